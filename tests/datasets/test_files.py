"""Files that appear whole or not at all; work over processes that ends when it must."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lssvwm_datasets.errors import LssvwmError
from lssvwm_datasets.files import remove_partial_files, write_json, written_whole
from lssvwm_datasets.parallel import run_units


def test_an_exception_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_json(path, 1)

    def fail() -> None:
        with written_whole(path) as partial:
            partial.write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert path.read_text() == "1\n"
    assert list(tmp_path.iterdir()) == [path]


def test_a_killed_writer_leaves_no_final_file(tmp_path: Path) -> None:
    code = (
        "import os, pathlib, sys; from lssvwm_datasets.files import written_whole\n"
        "with written_whole(pathlib.Path(sys.argv[1])) as partial:\n"
        "    partial.write_text('half'); os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "a.txt")], check=False)
    assert not (tmp_path / "a.txt").exists()
    assert len(list(tmp_path.iterdir())) == 1
    remove_partial_files(tmp_path)
    assert not list(tmp_path.iterdir())


def double(number: int) -> int:
    if number == 13:
        raise ValueError("thirteen")
    if number == 99:
        os.kill(os.getpid(), signal.SIGKILL)
    return 2 * number


@pytest.mark.parametrize("jobs", [1, 2])
def test_every_unit_is_done_once(jobs: int) -> None:
    assert sorted(run_units(double, range(5), jobs)) == [0, 2, 4, 6, 8]


@pytest.mark.parametrize("jobs", [1, 2])
def test_errors_of_a_unit_are_raised(jobs: int) -> None:
    with pytest.raises(ValueError, match="thirteen"):
        list(run_units(double, [1, 13], jobs))


def test_a_worker_that_dies_is_told_and_nothing_hangs() -> None:
    with pytest.raises(LssvwmError, match="a worker process died"):
        list(run_units(double, [1, 99], 2))


def sleep_long(pid_file: str) -> None:
    Path(pid_file).write_text(str(os.getpid()))
    time.sleep(120)


def test_workers_end_with_a_killed_parent(tmp_path: Path) -> None:
    code = (
        "import sys; from lssvwm_datasets.parallel import run_units; from tests.datasets.test_files import sleep_long\n"
        "if __name__ == '__main__': list(run_units(sleep_long, sys.argv[1:], 2))"
    )
    files = [tmp_path / "a", tmp_path / "b"]
    script = tmp_path / "parent.py"
    script.write_text(code)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    parent = subprocess.Popen([sys.executable, str(script), *map(str, files)], env=environment)
    while not all(file.exists() and file.read_text() for file in files):
        assert parent.poll() is None
        time.sleep(0.05)
    parent.kill()
    parent.wait()
    deadline = time.monotonic() + 20
    while any(Path(f"/proc/{file.read_text()}").exists() for file in files):
        assert time.monotonic() < deadline, "orphans go on working"
        time.sleep(0.1)
