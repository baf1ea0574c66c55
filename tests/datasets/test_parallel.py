"""Work over processes: all of it, errors told, and no process that outlives its purpose."""

import gc
import itertools
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lssvwm_datasets.errors import LssvwmError
from lssvwm_datasets.files import sha256_of
from lssvwm_datasets.parallel import UNITS_PER_PROCESS, ahead, run_units, run_units_on_ray
from lssvwm_datasets.shards import read_index
from tests.datasets.layouts import LENGTH, teco_minecraft


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


def test_ray_does_every_unit_and_raises_what_a_unit_raises(tmp_path: Path) -> None:
    """With work of the package, since Ray's workers import it."""
    pytest.importorskip("ray")
    files = [tmp_path / name for name in "abc"]
    for file in files:
        file.write_text(file.name)
    assert sorted(run_units_on_ray(sha256_of, files)) == sorted(map(sha256_of, files))
    with pytest.raises(LssvwmError, match="no such file; make it with"):
        list(run_units_on_ray(read_index, [tmp_path]))


def test_ray_missing_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(LssvwmError, match=r"lssvwm\[ray\]"):
        list(run_units_on_ray(double, [1]))


def test_ahead_keeps_the_order_and_its_distance() -> None:
    made: list[int] = []

    def make() -> Iterator[int]:
        for number in range(20):
            made.append(number)
            yield number

    for number in ahead(make(), depth=2):
        time.sleep(0.002)
        assert number in made
        assert len(made) <= number + 1 + 2 + 1  # taken, waiting, and one held until there is room
    assert made == list(range(20))


def test_ahead_works_while_its_consumer_does() -> None:
    started = time.monotonic()
    for _ in ahead((time.sleep(0.05) for _ in range(10)), depth=1):
        time.sleep(0.05)
    assert time.monotonic() - started < 0.9  # 1.0 one after the other


def test_ahead_raises_in_place_what_iterating_raises() -> None:
    def break_down() -> Iterator[int]:
        yield 1
        raise LssvwmError("broken")

    items = ahead(break_down(), depth=4)
    assert next(items) == 1
    with pytest.raises(LssvwmError, match="broken"):
        next(items)


def test_ahead_ends_its_thread_when_it_is_left() -> None:
    before = threading.active_count()
    for number in ahead(itertools.count(), depth=2):
        if number == 3:
            break
    gc.collect()
    deadline = time.monotonic() + 5
    while threading.active_count() > before:
        assert time.monotonic() < deadline
        time.sleep(0.01)


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


SHADOWED = ("json", "socket", "selectors", "pickle", "tempfile", "av", "numpy", "struct", "queue")


def test_helper_processes_import_nothing_from_the_working_folder(tmp_path: Path) -> None:
    """A pool's workers, what they start, and decoders; the command itself is a script elsewhere, as `lssvwm` is."""
    work, scripts = tmp_path / "work", tmp_path / "scripts"
    work.mkdir()
    scripts.mkdir()
    for name in SHADOWED:
        (work / f"{name}.py").write_text("raise SystemExit(f'{__file__} was imported')")
    teco_minecraft(work / "train", "000000")
    script = scripts / "command.py"
    script.write_text(
        "from pathlib import Path\n"
        "from lssvwm_datasets.parallel import run_units\n"
        "from lssvwm_datasets.video import count_frames\n"
        "if __name__ == '__main__':\n"
        "    print(*run_units(count_frames, [Path('train/000000.mp4')] * 3, 2))\n"
    )
    done = subprocess.run([sys.executable, script], cwd=work, capture_output=True, text=True, check=False, timeout=120)
    assert done.stdout.split() == [str(LENGTH)] * 3, done.stderr
    assert "PYTHONSAFEPATH" not in os.environ


if __name__ == "__main__":
    for result in run_units(globals()[sys.argv[1]], sys.argv[2:], jobs=2):
        print(result)
