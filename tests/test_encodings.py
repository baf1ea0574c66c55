"""Every text file is UTF-8, whatever the locale: no call that reads or writes text leaves the encoding to it."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = [
    path for folder in ("lssvwm_cli", "lssvwm_core", "datasets", "docs") for path in (ROOT / folder).rglob("*.py")
]


def leaves_encoding_to_the_locale(call: ast.Call) -> bool:
    """`read_text()`, `write_text(…)`, `open(…)` and `path.open(…)` of text without `encoding`."""
    if any(word.arg == "encoding" for word in call.keywords):
        return False
    if isinstance(call.func, ast.Name):
        return call.func.id == "open" and "b" not in _mode(call, 1)
    if not isinstance(call.func, ast.Attribute) or ast.unparse(call.func.value).rpartition(".")[2] in LIBRARIES:
        return False
    if call.func.attr in ("read_text", "write_text"):
        return len(call.args) < (1 if call.func.attr == "read_text" else 2)
    return call.func.attr == "open" and "b" not in _mode(call, 0)


LIBRARIES = (
    "schema",
    "files",
    "os",
    "av",
    "Image",
    "archive",
    "tarfile",
    "simulator",
    "h5a",
    "h5o",
)  # whose functions of these names are others


def _mode(call: ast.Call, place: int) -> str:
    mode = next((word.value for word in call.keywords if word.arg == "mode"), None)
    mode = mode or (call.args[place] if len(call.args) > place else None)
    return mode.value if isinstance(mode, ast.Constant) and isinstance(mode.value, str) else "r"


@pytest.mark.parametrize("code", ["p.read_text()", "p.write_text('')", "p.open()", "p.open('a')", "open(p, mode='w')"])
def test_the_check_finds(code: str) -> None:
    (call,) = (node for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Call))
    assert leaves_encoding_to_the_locale(call)


def test_every_text_file_is_utf_8() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in SOURCES
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and leaves_encoding_to_the_locale(node)
    ]
    assert not found, "give encoding='utf-8', or use schema.read_text and files.write_text"
