"""A run is trained by one process at a time, with and without locks of the file system."""

import errno
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from lssvwm_core.training.run.lock import LOCK_FILE, locked
from lssvwm_datasets.errors import LssvwmError
from tests.faults.faults import Fault, FaultEnvironment

HOLD = """
import sys, time
from pathlib import Path
from lssvwm_core.training.run.lock import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""
FORK = """
import os, sys, time
from pathlib import Path
from lssvwm_core.training.run.lock import locked
with locked(Path(sys.argv[1])):
    if os.fork() == 0:
        time.sleep(600)
    print("held", flush=True)
    time.sleep(600)
"""
TRY = """
import sys
from pathlib import Path
from lssvwm_core.training.run.lock import locked
from lssvwm_datasets.errors import LssvwmError
try:
    with locked(Path(sys.argv[1])):
        print("taken")
except LssvwmError as error:
    print(error)
"""


def holder(folder: Path, environment: dict[str, str] | None = None, script: str = HOLD) -> "subprocess.Popen[str]":
    command = [sys.executable, "-c", script, str(folder)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment, start_new_session=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def end(process: "subprocess.Popen[str]") -> None:
    process.kill()
    process.wait()


def attempt(folder: Path, environment: dict[str, str] | None) -> str:
    command = [sys.executable, "-c", TRY, str(folder)]
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=True).stdout.strip()


@pytest.fixture(params=[None, errno.ENOTSUP, errno.ENOLCK, errno.ENOSYS], ids=["locks", "ENOTSUP", "ENOLCK", "ENOSYS"])
def environment(request: pytest.FixtureRequest, fault_environment: FaultEnvironment) -> dict[str, str] | None:
    """Of a file system with locks, and of those without."""
    return None if request.param is None else fault_environment(flock=Fault(request.param, path=LOCK_FILE))


def test_the_second_is_refused_and_a_dead_ones_lock_is_taken_over(
    environment: dict[str, str] | None, tmp_path: Path
) -> None:
    process = holder(tmp_path, environment)
    try:
        refused = attempt(tmp_path, environment)
        assert f"process {process.pid} on {socket.gethostname()} is training it already" in refused
        assert "remove" not in refused, "nobody is to remove the lock of a process that lives"
    finally:
        end(process)
    assert attempt(tmp_path, environment) == "taken"
    assert attempt(tmp_path, environment) == "taken"


def test_another_machines_lock_is_the_users_to_judge(fault_environment: FaultEnvironment, tmp_path: Path) -> None:
    (tmp_path / LOCK_FILE).write_text(json.dumps({"host": "elsewhere", "pid": 1}))
    without_locks = fault_environment(flock=errno.ENOSYS)
    words = "process 1 on elsewhere is training it already; wait for its end, or choose another name; if that one is "
    assert words + f"gone, remove {tmp_path / LOCK_FILE}" in attempt(tmp_path, without_locks)
    assert attempt(tmp_path, None) == "taken", "where there are locks, they tell"


def test_a_number_that_came_again_is_no_owner(fault_environment: FaultEnvironment, tmp_path: Path) -> None:
    (tmp_path / LOCK_FILE).write_text(
        json.dumps({"host": socket.gethostname(), "pid": os.getpid(), "began": "long ago"})
    )
    assert attempt(tmp_path, fault_environment(flock=errno.ENOTSUP)) == "taken"


@pytest.mark.parametrize("content", ["", "{", '{"host": 3}', "\0" * 100, '{"host": "h", "pid": 1e99}'])
def test_a_damaged_lock_names_nobody(content: str, fault_environment: FaultEnvironment, tmp_path: Path) -> None:
    (tmp_path / LOCK_FILE).write_text(content)
    if '"pid"' not in content:
        assert attempt(tmp_path, fault_environment(flock=errno.ENOTSUP)) == "taken"
    assert attempt(tmp_path, None) == "taken"


def test_a_forked_process_does_not_keep_the_lock_of_a_killed_one(tmp_path: Path) -> None:
    """As those that read clips, which live on for some seconds."""
    process = holder(tmp_path, script=FORK)
    end(process)
    try:
        assert attempt(tmp_path, None) == "taken"
    finally:
        os.killpg(process.pid, 9)


def test_a_lock_that_is_a_link_or_a_pipe_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("content")
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / LOCK_FILE).symlink_to(tmp_path / "precious")
    with pytest.raises(OSError, match=LOCK_FILE), locked(tmp_path / "a"):
        pass
    assert (tmp_path / "precious").read_text() == "content"
    (tmp_path / "b").mkdir()
    os.mkfifo(tmp_path / "b" / LOCK_FILE)
    with pytest.raises(LssvwmError, match="not a regular file"), locked(tmp_path / "b"):
        pass
