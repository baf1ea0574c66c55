"""constraints.txt names a tested version of everything that pyproject.toml asks for, and one that it allows."""

import re
import tomllib
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]


def test_every_requirement_has_a_tested_version_that_it_allows() -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    tested = dict(line.split("==") for line in lines if line and not line.startswith("#"))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = [text for group in project["optional-dependencies"].values() for text in group]
    for requirement in map(Requirement, [*project["dependencies"], *extras]):
        pinned = re.fullmatch(r"==[\w.]+", str(requirement.specifier))
        if requirement.name != "packaging" and not pinned:
            assert requirement.specifier.contains(tested[requirement.name]), requirement


def test_torch_has_no_cap() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    (torch,) = [text for text in project["dependencies"] if text.startswith("torch")]
    assert Requirement(torch).specifier.contains("99.0")
