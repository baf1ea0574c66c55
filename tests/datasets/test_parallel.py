"""Work over processes: all of it, errors told, and no process that outlives its purpose."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lssvwm_datasets.errors import LssvwmError
from lssvwm_datasets.parallel import UNITS_PER_PROCESS, run_units


def double(number: int) -> int:
    if number == 13:
        raise ValueError("thirteen")
    return 2 * number


def die(how: str) -> str:
    if how == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "exit":
        os._exit(0)
    return how


def sleep_long(pid_file: str) -> None:
    Path(pid_file).write_text(str(os.getpid()))
    time.sleep(120)


def as_program(work: str, *units: str) -> list[str]:
    """A command that runs this module's function `work` over `units` in two processes and prints the results."""
    return [sys.executable, __file__, work, *units]


@pytest.mark.parametrize("jobs", [1, 2])
def test_every_unit_is_done_once(jobs: int) -> None:
    assert sorted(run_units(double, range(5), jobs)) == [0, 2, 4, 6, 8]


def test_work_for_several_lives_of_a_worker_ends() -> None:
    """In a process of its own, since `ProcessPoolExecutor(max_tasks_per_child=…)` can wait forever (gh-115634)."""
    units = [str(number) for number in range(3 * UNITS_PER_PROCESS)]
    done = subprocess.run(as_program("die", *units), capture_output=True, text=True, timeout=40, check=True)
    assert sorted(done.stdout.split(), key=int) == units


@pytest.mark.parametrize("jobs", [1, 2])
def test_errors_of_a_unit_are_raised(jobs: int) -> None:
    with pytest.raises(ValueError, match="thirteen"):
        list(run_units(double, [1, 13], jobs))


@pytest.mark.parametrize("how", ["kill", "exit"])
def test_a_worker_that_dies_is_told_and_nothing_hangs(how: str) -> None:
    with pytest.raises(LssvwmError, match="a worker process died"):
        list(run_units(die, ["live", how, "live"], 2))


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="looks for processes below /proc")
def test_workers_end_with_a_killed_parent(tmp_path: Path) -> None:
    files = [tmp_path / "a", tmp_path / "b"]
    parent = subprocess.Popen(as_program("sleep_long", *map(str, files)))
    deadline = time.monotonic() + 30
    while not all(file.exists() and file.read_text() for file in files):
        assert parent.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    parent.kill()
    parent.wait()
    deadline = time.monotonic() + 20
    while any(Path("/proc", file.read_text()).exists() for file in files):
        assert time.monotonic() < deadline, "orphans go on working"
        time.sleep(0.1)


if __name__ == "__main__":
    for result in run_units(globals()[sys.argv[1]], sys.argv[2:], jobs=2):
        print(result)
