"""Completion as bash does it, with the script that the command itself gives."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from lssvwm_cli import completion

GOLDEN = Path(__file__).parents[1] / "golden"
COMMAND = f"""#!/bin/sh
exec {sys.executable} -c "import sys; sys.argv[0] = 'lssvwm'; from lssvwm_cli.app import main; main()" "$@"
"""
COMPLETE = """
eval "$(lssvwm --show-completion)"
for line in "$@"; do
  COMP_WORDS=($line)
  [[ $line == *" " ]] && COMP_WORDS+=("")
  COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
  COMPREPLY=()
  _lssvwm_completion lssvwm
  echo "${COMPREPLY[*]}"
done
"""


@pytest.mark.parametrize("source", [None, "data/maze", "nowhere"])
def test_formats_environments_and_episodes_are_known(source: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(GOLDEN)
    assert completion.formats("mi") == ["minerl"]
    assert completion.environments("ma") == ["maze"]
    assert completion.episodes(SimpleNamespace(params={"data": source}), "") == ["0"]  # type: ignore[arg-type]


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash")
def test_bash_completes_commands_options_and_known_values(tmp_path: Path) -> None:
    command = tmp_path / "bin/lssvwm"
    command.parent.mkdir()
    command.write_text(COMMAND)
    command.chmod(0o755)
    for run in ("maze-tiny", "maze-small", "village"):
        (tmp_path / "runs" / run / "checkpoints").mkdir(parents=True)
    index = json.loads((GOLDEN / "data/maze/dataset.json").read_text("utf-8"))
    index["shards"] = [shard | {"episodes": 3} for shard in index["shards"]]
    (tmp_path / "data/maze").mkdir(parents=True)
    (tmp_path / "data/maze/dataset.json").write_text(json.dumps(index), encoding="utf-8")
    wanted = {
        "lssvwm ro": "rollout",
        "lssvwm train --pres": "--preset",
        "lssvwm train --preset ": "tiny small base",
        "lssvwm eval re": "retrieval reasoning return",
        "lssvwm push-hub --what d": "dataset",
        "lssvwm play maze": "maze-small maze-tiny",
        "lssvwm rollout --checkpoint v": "village",
        "lssvwm rollout --data data/maze --episode ": "0 1 2",
    }
    path = f"PATH={command.parent}:/usr/bin:/bin"
    bash = ["env", path, "bash", "--norc", "-c", COMPLETE, "bash", *wanted]
    done = subprocess.run(bash, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert done.stderr == ""
    assert dict(zip(wanted, (" ".join(line.split()) for line in done.stdout.splitlines()), strict=True)) == wanted
