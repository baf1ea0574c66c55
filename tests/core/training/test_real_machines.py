"""Trainings on the machines that people have: signals, no links, no room, two at once, runs of earlier versions."""

import errno
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from lssvwm_core.training.run.folder import Run
from lssvwm_core.training.run.lock import locked
from lssvwm_datasets.errors import LssvwmError
from tests.conftest import CLI, lssvwm, train_command
from tests.faults.faults import Fault

GOLDEN = Path(__file__).parents[2] / "golden"
QUIET = ("--set", "train.sample_every=0")


def linked(workspace: Path, folder: Path) -> Path:
    """A folder of its own with the workspace's data."""
    (folder / "data").symlink_to(workspace / "data")
    return folder


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2"])
def test_a_signal_saves_and_the_same_command_goes_on(workspace: Path, tmp_path: Path, name: str) -> None:
    folder = linked(workspace, tmp_path)
    command = train_command("test", 10_000, *QUIET, "--set", "train.log_every=1")
    with subprocess.Popen([*CLI, *command], cwd=folder, stderr=subprocess.PIPE, text=True) as training:
        metrics = folder / "runs/test/metrics.jsonl"
        deadline = time.monotonic() + 120
        while not (metrics.exists() and metrics.read_text(encoding="utf-8")):
            assert time.monotonic() < deadline
            time.sleep(0.1)
        training.send_signal(getattr(signal, name))
        said = training.communicate(timeout=120)[1]
    assert training.returncode == 128 + getattr(signal, name), said
    assert f"stopped by {name}; go on with the same command" in said
    saved = Run(folder / "runs/test").last
    assert saved is not None
    step = int(saved.name)
    assert 0 < step < 10_000


def test_two_trainings_of_one_run(workspace: Path, tmp_path: Path) -> None:
    folder = linked(workspace, tmp_path)
    with locked(folder / "runs/test"):
        error = lssvwm(folder, *train_command("test", 2, *QUIET), fails=True).stderr
        assert f"process {os.getpid()} on" in error
        assert "is training it already" in error
    lssvwm(folder, *train_command("test", 2, *QUIET))


def test_a_lock_of_a_dead_process_is_taken_over(tmp_path: Path) -> None:
    code = "import os, sys; from pathlib import Path; from lssvwm_core.training.run.lock import locked\n"
    code += "with locked(Path(sys.argv[1])): os._exit(9)"
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False)
    assert (tmp_path / ".lock").read_text(encoding="utf-8")
    with locked(tmp_path):
        pass


def test_where_there_are_no_locks_the_words_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lssvwm_core.training.run.lock.fcntl", None)
    held = "import sys, time; from pathlib import Path; from lssvwm_core.training.run import lock; lock.fcntl = None\n"
    held += "with lock.locked(Path(sys.argv[1])): print('held', flush=True); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", held, str(tmp_path)], stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        other.stdout.readline()
        with pytest.raises(LssvwmError, match=f"process {other.pid} on"), locked(tmp_path):
            pass
        other.kill()
    with locked(tmp_path):
        pass


@pytest.mark.parametrize("error", [errno.EOPNOTSUPP, errno.EPERM, errno.ENOSYS])
def test_without_links_a_run_trains_and_goes_on(
    workspace: Path, tmp_path: Path, fault_environment: Callable[..., dict[str, str]], error: int
) -> None:
    folder, environment = linked(workspace, tmp_path), fault_environment(symlink=error, link=error)
    for steps in ("2", "4"):
        command = [*train_command("test", 4, *QUIET, "--set", "train.checkpoint_every=1"), "--steps", steps]
        lssvwm(folder, *command, environment=environment)
    assert [path.name for path in Run(folder / "runs/test").saved()] == ["000003", "000004"]
    assert not any(path.is_symlink() for path in (folder / "runs").rglob("*"))


@pytest.mark.parametrize("place", ["optimizer", "raw", "model.safetensors", "progress"])
def test_a_checkpoint_that_does_not_fit_is_one_line_and_leaves_nothing(
    workspace: Path, tmp_path: Path, fault_environment: Callable[..., dict[str, str]], place: str
) -> None:
    folder = linked(workspace, tmp_path)
    lssvwm(folder, *train_command("test", 2, *QUIET))
    before = {path: path.read_bytes() for path in (folder / "runs").rglob("*.safetensors")}
    full = fault_environment(write=Fault(errno.ENOSPC, path=place))
    done = lssvwm(folder, *train_command("test", 4, *QUIET), environment=full, fails=True)
    error = done.stderr.strip().splitlines()[-1]
    assert error.startswith("error: ")
    assert "runs/test/checkpoints/000004: cannot be written (No space left on device)" in error
    assert sorted(path.name for path in (folder / "runs/test/checkpoints").iterdir()) == ["000002"]
    assert {path: path.read_bytes() for path in (folder / "runs").rglob("*.safetensors")} == before
    lssvwm(folder, *train_command("test", 4, *QUIET))


def test_colleagues_may_read_a_checkpoint(workspace: Path) -> None:
    mask = os.umask(0)
    os.umask(mask)
    last = Run(workspace / "runs/test").last
    assert last is not None
    for path in last.rglob("*"):
        if path.is_file():
            assert path.stat().st_mode & 0o777 == 0o666 & ~mask, path


def test_a_run_of_an_earlier_version_goes_on(tmp_path: Path) -> None:
    """Its fields have former names, and a link names its last checkpoint."""
    shutil.copytree(GOLDEN / "data", tmp_path / "data")
    shutil.copytree(GOLDEN / "runs", tmp_path / "runs", symlinks=True)
    done = lssvwm(tmp_path, "train", "--name", "test", "--steps", "42", "--threads", "1")
    assert "continuing runs/test from step 40" in done.stderr
    last = Run(tmp_path / "runs/test").last
    assert last is not None
    assert last.name == "000042"


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0 or not shutil.which("unshare"), reason="needs root")
def test_a_small_shared_memory_never_hangs(workspace: Path, tmp_path: Path) -> None:
    folder = linked(workspace, tmp_path)
    command = [*CLI, *train_command("test", 6, *QUIET, "--set", "train.workers=2")]
    script = 'mount -t tmpfs -o size=200k none /dev/shm && exec "$@"'
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", script, "sh", *command],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    if "unshare failed" in done.stderr or "mount:" in done.stderr:
        pytest.skip("no namespaces here")
    assert "Traceback" not in done.stderr
    assert done.returncode == 0, done.stderr
