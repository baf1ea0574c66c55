"""A moment's trouble of the machine is told apart from damage, wherever a recording is found, probed or read."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.datasets.layouts import LENGTH, NAMES, write_all
from tests.faults.faults import Fault, FaultEnvironment

PROGRAM = """
import sys
from pathlib import Path
from lssvwm_datasets.errors import LssvwmError
from lssvwm_datasets.sources import find_recordings
try:
    recordings = find_recordings(Path(sys.argv[1]), sys.argv[2] or None)
except LssvwmError as error:
    sys.exit(f"{type(error).__name__} {error}")
for recording in recordings:
    try:
        print(recording.path.name, sum(len(part) for episode in recording.episodes() for part in episode.frames))
    except LssvwmError as error:
        print(recording.path.name, type(error).__name__, str(error).replace("\\n", " "))
"""


def outcomes(source: Path, format: str, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", PROGRAM, str(source), format]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment, timeout=120)


TROUBLE: dict[str, tuple[str, str, Fault]] = {  # format, kind of call, fault on a file of the first recording
    "a maze without permission": ("maze", "open", Fault(errno.EACCES, ".npz")),
    "a maze on a broken disk": ("maze", "read", Fault(errno.EIO, ".npz")),
    "a maze on a server that was restarted": ("maze", "read", Fault(errno.ESTALE, ".npz", after=1)),
    "too many open files for a video": ("vpt", "open", Fault(errno.EMFILE, ".mp4")),
    "a video on a broken disk": ("vpt", "read", Fault(errno.EIO, ".mp4")),
    "a video whose disk breaks later": ("vpt", "read", Fault(errno.EIO, ".mp4", after=2)),
    "ticks without permission": ("vpt", "open", Fault(errno.EPERM, ".jsonl")),
    "ticks on a slow network": ("vpt", "read", Fault(errno.ETIMEDOUT, ".jsonl")),
    "arrays beside a video": ("worldmem", "open", Fault(errno.ENFILE, ".npz")),
    "no memory for the system": ("teco-minecraft", "open", Fault(errno.ENOMEM, ".npz")),
    "a stream's arrays": ("minerl", "read", Fault(errno.EIO, "rendered.npz")),
    "a stream's metadata": ("minerl", "open", Fault(errno.EACCES, "metadata.json")),
}


@pytest.mark.parametrize("case", TROUBLE)
def test_trouble_with_a_file_is_no_damage_and_costs_no_other(
    fault_environment: FaultEnvironment, tmp_path: Path, case: str
) -> None:
    format, kind, fault = TROUBLE[case]
    write_all(format, tmp_path)
    first = NAMES.get(format, ("000000",))[0]
    where = f"{first}/{fault.path}" if format == "minerl" else f"{first}{fault.path}"
    done = outcomes(tmp_path, format, fault_environment(**{kind: Fault(fault.error, where, fault.after)}))
    lines = dict(line.split(" ", 1) for line in done.stdout.splitlines())
    assert len(lines) == 3, done.stderr
    for name, outcome in lines.items():
        if name.startswith(first):
            assert outcome.startswith("UnreadableNow"), outcome
            assert os.strerror(fault.error) in outcome
            assert first in outcome
        else:
            assert outcome == str(LENGTH)


@pytest.mark.parametrize("error", [errno.EACCES, errno.EIO, errno.ESTALE])
def test_a_folder_that_cannot_be_looked_into_is_named(
    fault_environment: FaultEnvironment, tmp_path: Path, error: int
) -> None:
    write_all("maze", tmp_path)
    for kind in ("opendir", "stat"):
        done = outcomes(tmp_path, "maze", fault_environment(**{kind: Fault(error, "/eval")}))
        assert done.returncode == 1
        assert done.stderr.startswith("UnreadableNow"), done.stderr
        assert "eval" in done.stderr
        assert os.strerror(error) in done.stderr
        assert "--skip-list" in done.stderr


def test_a_format_that_cannot_be_found_out_for_now_is_told(fault_environment: FaultEnvironment, tmp_path: Path) -> None:
    write_all("maze", tmp_path)
    done = outcomes(tmp_path, "", fault_environment(open=Fault(errno.EACCES, ".npz")))
    assert done.returncode == 1
    assert done.stderr.startswith("UnreadableNow"), done.stderr
    assert "Permission denied" in done.stderr


def test_a_pipe_that_may_not_be_larger_is_no_error(fault_environment: FaultEnvironment, tmp_path: Path) -> None:
    write_all("teco-minecraft", tmp_path)
    done = outcomes(tmp_path, "teco-minecraft", fault_environment(setpipe=errno.EPERM))
    assert [line.split()[1] for line in done.stdout.splitlines()] == [str(LENGTH)] * 3, done.stderr
