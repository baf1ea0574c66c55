"""Completion as bash does it, with the script that the command itself gives."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(shutil.which("bash") is None, reason="no bash")

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


def test_bash_completes_commands_options_and_known_values(tmp_path: Path) -> None:
    command = tmp_path / "bin/lssvwm"
    command.parent.mkdir()
    command.write_text(COMMAND)
    command.chmod(0o755)
    for run in ("maze-tiny", "maze-small", "village"):
        (tmp_path / "runs" / run / "checkpoints").mkdir(parents=True)
    wanted = {
        "lssvwm ro": "rollout",
        "lssvwm train --pres": "--preset",
        "lssvwm train --preset ": "tiny small base",
        "lssvwm eval re": "retrieval reasoning",
        "lssvwm push-hub --what d": "dataset",
        "lssvwm play maze": "maze-small maze-tiny",
        "lssvwm rollout --checkpoint v": "village",
    }
    path = f"PATH={command.parent}:/usr/bin:/bin"
    bash = ["env", path, "bash", "--norc", "-c", COMPLETE, "bash", *wanted]
    done = subprocess.run(bash, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert done.stderr == ""
    assert dict(zip(wanted, (" ".join(line.split()) for line in done.stdout.splitlines()), strict=True)) == wanted
