"""Training on real machines: disks that fill, no links, little shared memory, kills, damaged files of a run.

The run is one that version 0.1 left (tests/golden): it goes on with today's code.
"""

import errno
import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from lssvwm_core.resolve import latest_run
from lssvwm_core.training.data.clips import ClipDataset, ClipSampling
from lssvwm_core.training.data.loader import batches_from
from lssvwm_core.training.loop import Finished, train
from lssvwm_core.training.run.config import load_run_config
from lssvwm_core.training.run.folder import Run
from lssvwm_core.training.run.setup import open_run
from lssvwm_core.world import World
from lssvwm_datasets.errors import LssvwmError
from lssvwm_datasets.shards import open_shards
from tests.conftest import CLI, lssvwm
from tests.faults.faults import Fault, FaultEnvironment

CPU = torch.device("cpu")
MORE = ("train", "--name", "test", "--data", "data/maze")  # goes on with the settings of the run
NEW = (*MORE[:2], "new", *MORE[3:], "--clip-frames", "20", "--batch-size", "1", "--set", "train.sample_every=0")
SMALL = ("--set", "model.width=32", "--set", "model.depth=1", "--set", "model.headdim=16")


def checkpoints(run: Path) -> set[str]:
    return {path.name for path in (run / "checkpoints").iterdir()}


def go_on(folder: Path, steps: int, monkeypatch: pytest.MonkeyPatch, **more: Any) -> list[Any]:
    monkeypatch.chdir(folder)
    saved = load_run_config(Path("runs/test/config.toml"))
    from dataclasses import replace

    wanted = replace(saved, train=replace(saved.train, steps=steps, **more.pop("train", {})))
    run, config = open_run(Path("runs/test"), wanted, adopt=True)
    return list(train(run, replace(config, train=wanted.train), CPU, **more))


def test_a_run_of_version_0_1_goes_on(golden_copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run(golden_copy / "runs/test")
    assert (run.checkpoints / "last").is_symlink(), "this artefact proves nothing"
    assert run.last == run.checkpoints / "000040"
    assert go_on(golden_copy, 42, monkeypatch)[-1] == Finished(42)
    assert run.last == run.checkpoints / "000042"
    assert not (run.checkpoints / "last").is_symlink(), "it would point to the wrong one"
    assert [json.loads(line)["step"] for line in run.metrics_file.open()][-2:] == [40, 42]


def test_no_link_is_needed(golden_copy: Path, fault_environment: FaultEnvironment) -> None:
    without_links = fault_environment(symlink=errno.EPERM, link=errno.EPERM)
    for steps in (1, 2):
        lssvwm(golden_copy, *NEW, *SMALL, "--steps", str(steps), environment=without_links)
    last = Run(golden_copy / "runs/new").last
    assert last is not None
    assert last.name == "000002"
    (golden_copy / "runs/test/checkpoints/last").unlink()
    os.utime(golden_copy / "runs/test/checkpoints/000040", (2e9, 2e9))
    assert latest_run(golden_copy / "runs") == Run(golden_copy / "runs/test")


@pytest.mark.parametrize(  # each kind of writer
    "file", ["model/.model.", "training_state/.optimizer.", "training_state/.progress."]
)
def test_a_checkpoint_that_does_not_fit_is_told_and_leaves_nothing(
    file: str, golden_copy: Path, fault_environment: FaultEnvironment
) -> None:
    full = fault_environment(write=Fault(errno.ENOSPC, path=f"partial/{file}"))
    before = checkpoints(golden_copy / "runs/test")
    error = lssvwm(golden_copy, *MORE, "--steps", "42", environment=full, fails=True).stderr
    [line] = [line for line in error.splitlines() if line.startswith("error")]
    assert "runs/test/checkpoints/000042: cannot be written (No space left on device)" in line
    assert checkpoints(golden_copy / "runs/test") == before
    assert "step 42 of 42" in lssvwm(golden_copy, *MORE, "--steps", "42").stderr


@pytest.mark.skipif(os.geteuid() != 0 if hasattr(os, "geteuid") else True, reason="mounting needs root")
def test_a_small_disk_and_small_shared_memory(golden_copy: Path) -> None:
    script = f"mount -t tmpfs -o size=200k none /dev/shm && {' '.join(CLI)} " + " ".join(
        (*NEW, *SMALL, "--set", "train.workers=2", "--steps", "6")
    )
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", script], cwd=golden_copy, capture_output=True, text=True, timeout=120, check=False
    )
    if "unshare" in done.stderr or "mount" in done.stderr:
        pytest.skip("mounting is not allowed here")
    assert done.returncode == 0, done.stderr
    assert "step 6 of 6" in done.stderr

    script = f"mount -t tmpfs -o size=100k none runs && {' '.join(CLI)} " + " ".join((*NEW, *SMALL, "--steps", "2"))
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", f"{script}; ls -A runs/new/checkpoints; exit 7"],
        cwd=golden_copy,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert "cannot be written (No space left on device)" in done.stderr or "No space left" in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_workers_change_nothing(golden_copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(golden_copy / "runs", golden_copy / "other/runs", symlinks=True)
    shutil.copytree(golden_copy / "data", golden_copy / "other/data")
    go_on(golden_copy, 43, monkeypatch)
    go_on(golden_copy / "other", 43, monkeypatch, train={"workers": 2})
    for file in ("model/model.safetensors", "training_state/raw.safetensors"):
        a, b = (folder / "runs/test/checkpoints/000043" / file for folder in (golden_copy, golden_copy / "other"))
        assert a.read_bytes() == b.read_bytes()


def test_a_worker_that_dies_or_fails_ends_the_training_in_a_line(
    golden_copy: Path, fault_environment: FaultEnvironment
) -> None:
    command = [*CLI, *NEW, *SMALL, "--set", "train.workers=1", "--steps", "100000", "--set", "train.log_every=1"]
    process = subprocess.Popen(command, cwd=golden_copy, stderr=subprocess.PIPE, text=True)
    metrics, until = golden_copy / "runs/new/metrics.jsonl", time.monotonic() + 120
    while not (metrics.exists() and metrics.read_text()):
        assert time.monotonic() < until
        time.sleep(0.05)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    workers = [int(child) for child in children if b"lssvwm_cli" in Path(f"/proc/{child}/cmdline").read_bytes()]
    os.kill(workers[0], signal.SIGKILL)
    error = process.communicate(timeout=60)[1]
    assert process.returncode == 1
    assert "Traceback" not in error
    assert "a process that reads clips has died" in error
    assert "--set train.workers=0" in error


@pytest.mark.parametrize("clips", [1, 200], ids=["between two messages", "within a message"])
def test_a_death_is_told_where_the_next_batch_is_read(clips: int, golden_copy: Path) -> None:
    shards = open_shards(golden_copy / "data/maze", "train")
    dataset = ClipDataset(shards, ("action",), ClipSampling(), [(100, clips, 40)], seed=1)
    batches = batches_from(dataset, 0, workers=1)
    next(batches)
    [process] = multiprocessing.active_children()
    assert process.pid
    time.sleep(0.3)  # until it waits for the pipe to be emptied
    os.kill(process.pid, signal.SIGKILL)
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    time.sleep(0.1)  # here a step or a sample would be under way
    with pytest.raises(LssvwmError, match=r"a process that reads clips has died.*train\.workers=0"):
        list(batches)


def test_the_sample_of_a_killed_training_is_made_up_for(golden_copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, made = Run(golden_copy / "runs/test"), []
    run.samples.mkdir()
    left = run.samples / f".000040.{2**22 + 1}.partial.mp4"
    left.touch()
    half = run.checkpoints / ".000041.partial/model"
    half.mkdir(parents=True)

    def sample(_: World, path: Path) -> None:
        made.append(path.name)
        path.touch()

    for _ in range(2):
        go_on(golden_copy, 41, monkeypatch, train={"sample_every": 20}, make_sample=sample)
    assert made == ["000040.mp4"]
    assert not left.exists()
    assert not half.exists()


def test_two_trainings_of_one_run_are_refused(golden_copy: Path) -> None:
    from lssvwm_core.training.run.lock import locked

    with locked(golden_copy / "runs/test"):
        error = lssvwm(golden_copy, *MORE, "--steps", "42", fails=True).stderr
    assert f"process {os.getpid()} on " in error
    assert "is training it already" in error
    assert checkpoints(golden_copy / "runs/test") == {"000040", "last"}


def moments(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
    def damage(checkpoint: Path) -> None:
        path = checkpoint / "training_state/optimizer.pt"
        state = torch.load(path)
        change(state)
        torch.save(state, path)

    return damage


def text(file: str, content: str) -> Callable[[Path], None]:
    return lambda checkpoint: (checkpoint / file).write_text(content) and None


def raw(change: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[Path], None]:
    def damage(checkpoint: Path) -> None:
        path = checkpoint / "training_state/raw.safetensors"
        tensors = load_file(path)
        name = next(iter(tensors))
        save_file(tensors | {name: change(tensors[name]).contiguous()}, path)

    return damage


STATE_FILES = ("optimizer.pt", "progress.json", "raw.safetensors")


def as_pipe(name: str, checkpoint: Path) -> None:
    """One that nobody writes to would be waited for without end, and no signal would end that."""
    path = checkpoint / "training_state" / name
    path.unlink()
    os.mkfifo(path)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (
            moments(lambda s: s["state"][0].update(exp_avg=s["state"][0]["exp_avg"].double())),
            r"exp_avg of parameter 0 is torch.float64",
        ),
        (
            moments(lambda s: s["state"][1].update(exp_avg_sq=torch.zeros(3))),
            r"exp_avg_sq of parameter 1 is torch.float32 \(3,\)",
        ),
        (
            moments(lambda s: s["state"][1]["exp_avg"].fill_(torch.nan)),
            "exp_avg of parameter 1 has numbers that are not finite",
        ),
        (moments(lambda s: s["state"][0].pop("step")), "step of parameter 0 is None"),
        (moments(lambda s: s["state"].update({10**6: {}})), "has a parameter 1000000"),
        (moments(lambda s: s.pop("state")), "damaged"),
        (text("training_state/optimizer.pt", "no pickle"), "optimizer.pt: damaged"),
        (lambda c: (c / "training_state/optimizer.pt").unlink(), "optimizer.pt: no such file"),
        *((partial(as_pipe, name), f"{name}: not a regular file") for name in STATE_FILES),
        (text("training_state/progress.json", '{"step": "x"}'), r"progress.json: Expected int, got str - at \$.step"),
        (
            text("training_state/progress.json", '{"step": 1180591620717411303424}'),
            r"progress.json: step is 1180591620717411303424, expected 40",
        ),
        (text("training_state/progress.json", "[]"), "progress.json: Expected object, got array"),
        (raw(lambda t: t * torch.nan), "raw.safetensors: damaged: .* not finite"),
        (raw(lambda t: t[:1]), r"raw.safetensors: does not fit the model"),
        (raw(lambda t: t.int()), r"raw.safetensors: does not fit the model: .* torch.int32, expected torch.float32"),
    ],
)
def test_a_damaged_checkpoint_is_told_with_file_and_place(
    damage: Callable[[Path], None], message: str, golden_copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    damage(golden_copy / "runs/test/checkpoints/000040")
    with pytest.raises(LssvwmError, match=message) as raised:
        go_on(golden_copy, 42, monkeypatch)
    assert "move this checkpoint away" in str(raised.value)
    assert "\n" not in str(raised.value)


def test_trouble_of_the_machine_is_no_damage(golden_copy: Path, fault_environment: FaultEnvironment) -> None:
    for fault in (Fault(errno.EIO, path="optimizer.pt"), Fault(errno.EACCES, path="progress.json")):
        error = lssvwm(
            golden_copy, *MORE, "--steps", "42", environment=fault_environment(open=fault), fails=True
        ).stderr
        assert os.strerror(fault.error) in error
        assert "damaged" not in error
        assert "move this checkpoint away" not in error


@pytest.mark.parametrize(
    ("line", "message"),
    [('{"loss": 1}', "missing required field step"), ("[1]", "Expected object, got array"), ("\0\0}", "not readable")],
)
def test_a_damaged_line_of_metrics_is_named(
    line: str, message: str, golden_copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    metrics = golden_copy / "runs/test/metrics.jsonl"
    lines = metrics.read_text().splitlines()
    metrics.write_text("\n".join([lines[0], line, *lines[1:]]) + "\n")
    with pytest.raises(LssvwmError, match=rf"metrics.jsonl: line 2: .*{message}.*remove this line"):
        go_on(golden_copy, 42, monkeypatch)


def test_a_training_leaves_the_process_as_it_was(golden_copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import warnings

    torch.manual_seed(5)
    before = (torch.get_rng_state(), list(warnings.filters), signal.getsignal(signal.SIGTERM), sys.gettrace())
    go_on(golden_copy, 41, monkeypatch)
    after = (torch.get_rng_state(), list(warnings.filters), signal.getsignal(signal.SIGTERM), sys.gettrace())
    assert torch.equal(before[0], after[0])
    assert before[1:] == after[1:]
