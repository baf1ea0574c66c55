"""Docstrings that begin with what a thing is or does."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("lssvwm_cli", "lssvwm_core", "datasets/lssvwm_datasets")
DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


def docstrings(folder: str) -> Iterator[tuple[str, str, str]]:
    """File, name (empty for the module's) and docstring of everything that has one."""
    for path in sorted((ROOT / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            text = ast.get_docstring(node) if isinstance(node, DOCUMENTED) else None
            if text is not None:
                yield path.relative_to(ROOT).as_posix(), getattr(node, "name", ""), text


@pytest.mark.parametrize("folder", PACKAGES)
def test_docstrings_begin_with_a_summary(folder: str) -> None:
    """Private helpers may say no more than what they raise."""
    bare = [
        f"{file} {name}: {text.splitlines()[0]}"
        for file, name, text in docstrings(folder)
        if text.startswith(("Of ", "Args:", "Attributes:", "Returns:"))
        or (text.startswith("Raises:") and not name.startswith("_"))
    ]
    assert not bare


@pytest.mark.parametrize("folder", PACKAGES)
def test_every_module_says_what_it_is(folder: str) -> None:
    told = {file for file, name, _ in docstrings(folder) if not name}
    modules = [path for path in (ROOT / folder).rglob("*.py") if path.stat().st_size]
    assert not {path.relative_to(ROOT).as_posix() for path in modules} - told
