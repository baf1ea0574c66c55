"""The page about environments: its Python runs, and its commands have the options that it names."""

import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import typer

pytest.importorskip("gymnasium")

from lssvwm_cli.app import app

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs/environments.md").read_text("utf-8")


@pytest.mark.parametrize("code", re.findall(r"```python\n(.*?)```", PAGE, re.S))
def test_the_python_of_the_page_runs(code: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    exec(code.replace("maze-world", str(ROOT / "tests/golden/runs/test")), names)
    if "rewards" in names:
        assert np.isfinite(np.asarray(names["rewards"])).all()


def test_the_commands_of_the_page_are_commands() -> None:
    lines = [line for block in re.findall(r"```bash\n(.*?)```", PAGE, re.S) for line in block.splitlines()]
    assert len(lines) >= 5
    for line in lines:
        command, arguments = typer.main.get_command(app), shlex.split(line, comments=True)[1:]
        while hasattr(command, "commands"):
            command = command.commands[arguments.pop(0)]
        command.make_context("lssvwm", arguments)  # raises for options that there are not
