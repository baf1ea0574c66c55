"""Which way the packages depend on each other."""

import re
from pathlib import Path

import pytest

from lssvwm_datasets.environments import ENVIRONMENTS

ROOT = Path(__file__).parents[1]
IMPORT = re.compile(r"^\s*(?:from|import)\s+([\w.]+)", re.MULTILINE)


def imports(folder: str) -> dict[str, set[str]]:
    """{file: modules that it imports, anywhere in it}."""
    files = {
        path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8") for path in (ROOT / folder).rglob("*.py")
    }
    return {name: set(IMPORT.findall(text)) for name, text in files.items()}


def environment_modules() -> set[str]:
    """The packages of single environments: what the registry imports to list them, but for what all share."""
    source = ROOT / "datasets/lssvwm_datasets/environments.py"
    shared = {"lssvwm_datasets.environment", "lssvwm_datasets.errors", "lssvwm_datasets.minecraft_play"}
    found = {name for name in IMPORT.findall(source.read_text(encoding="utf-8")) if name.startswith("lssvwm_datasets.")}
    return {name.rpartition(".")[0] if name.count(".") > 1 else name for name in found - shared}


@pytest.mark.parametrize("folder", ["lssvwm_core", "lssvwm_cli"])
def test_nothing_outside_the_data_sets_knows_one_environment(folder: str) -> None:
    own = environment_modules()
    assert len(own) == len(ENVIRONMENTS)
    offenders = {
        name: found
        for name, modules in imports(folder).items()
        if (found := {module for module in modules if any(f"{module}.".startswith(f"{one}.") for one in own)})
    }
    assert not offenders


@pytest.mark.parametrize(
    ("folder", "above"),
    [("datasets/lssvwm_datasets", {"lssvwm_core", "lssvwm_cli", "torch"}), ("lssvwm_core", {"lssvwm_cli"})],
)
def test_dependencies_point_one_way(folder: str, above: set[str]) -> None:
    offenders = {name: {m for m in modules if m.split(".")[0] in above} for name, modules in imports(folder).items()}
    assert not {name: found for name, found in offenders.items() if found}
