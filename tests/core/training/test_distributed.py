"""Training in several processes, on the CPU: the same training as in one, that any number of them goes on with."""

import json
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import torch
from safetensors.torch import load_file

from lssvwm_core.training.run.folder import Run
from tests.conftest import CLI, lssvwm, train_command

SETTINGS = ("--set", "train.log_every=1", "--set", "train.precision=fp32")


def command_of(processes: int, run: str, steps: int, batch_size: int, *more: str) -> list[str]:
    command = train_command(run, steps, *SETTINGS, *more)
    command[command.index("--batch-size") + 1] = str(batch_size)
    launcher = ["torch.distributed.run", "--nproc-per-node", str(processes), "-m"] if processes > 1 else []
    return [sys.executable, "-m", *launcher, "lssvwm_cli.app", *command]


def train_with(processes: int, workspace: Path, run: str, steps: int, batch_size: int, *more: str) -> Run:
    command = command_of(processes, run, steps, batch_size, *more)
    if processes == 1:
        lssvwm(workspace, *command[len(CLI) :])
    else:
        done = subprocess.run(command, cwd=workspace, capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 0, done.stderr
    return Run(workspace / "runs" / run)


@pytest.fixture(scope="module")
def one(workspace: Path) -> Run:
    """A run of one process."""
    return train_with(1, workspace, "one", 3, 4)


def reports(run: Run) -> list[dict[str, float]]:
    return [json.loads(line) for line in run.metrics_file.open()]


def assert_same_reports(run: Run, expected: Run) -> None:
    for found, alone in zip(reports(run), reports(expected), strict=True):
        for name in ("step", "loss", "gradient_norm", "learning_rate"):
            assert found[name] == pytest.approx(alone[name], rel=1e-4), name


def test_two_processes_train_as_one_does_and_one_goes_on_with_their_run(workspace: Path, one: Run) -> None:
    """The same losses, gradient norms and weights, to rounding, for 1 × 4 clips and 2 × 2 clips a step."""
    two = train_with(2, workspace, "two", 3, 2)
    assert_same_reports(two, one)
    assert one.last is not None
    assert two.last is not None
    weights, other = (load_file(run.last / "training_state/raw.safetensors") for run in (one, two))
    for name, tensor in weights.items():
        assert (tensor - other[name]).abs().max() < 1e-4, name
    assert [report["step"] for report in reports(train_with(1, workspace, "two", 4, 2))] == [1, 2, 3, 4]


def test_a_sharded_model_trains_as_a_whole_one(workspace: Path, one: Run) -> None:
    """Interrupted or not, and leaves a checkpoint that is the same, tensor by tensor; one process goes on from it."""
    for steps in (2, 3):
        two = train_with(2, workspace, "sharded", steps, 2, "--shard-model")
    assert one.last is not None
    assert two.last is not None
    assert_same_reports(two, one)
    for file in ("training_state/raw.safetensors", "model/model.safetensors"):
        torch.testing.assert_close(load_file(two.last / file), load_file(one.last / file), rtol=0, atol=1e-4)
    moments = [torch.load(last / "training_state/optimizer.pt")["state"] for last in (one.last, two.last)]
    torch.testing.assert_close(moments[1], moments[0], rtol=1e-3, atol=1e-5)
    assert [report["step"] for report in reports(train_with(1, workspace, "sharded", 4, 2))] == [1, 2, 3, 4]


def test_a_student_learns_from_its_own_history_in_two_processes_what_it_does_in_one(workspace: Path) -> None:
    """Half of the clips have a prefix, each its own, so that a process asks its model as often as it needs to."""
    options = ("--own-history", "--steps", "1", "--clip-frames", "40", "--threads", "1", *SETTINGS)
    command = ("lssvwm_cli.app", "distill", "test", *options, "--set", "train.prefix_probability=0.5")
    runs = []
    for processes in (1, 2):
        launcher = ["torch.distributed.run", "--nproc-per-node", str(processes), "-m"]
        name = f"own-history-{processes}"
        line = [sys.executable, "-m", *launcher, *command, "--name", name, "--batch-size", str(8 // processes)]
        done = subprocess.run(line, cwd=workspace, capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 0, done.stderr
        runs.append(Run(workspace / "runs" / name))
    found, expected = (reports(run)[0] for run in reversed(runs))
    assert found["loss"] == pytest.approx(expected["loss"], rel=1e-3)
    assert found["gradient_norm"] > 0


def test_a_dead_process_ends_the_others_with_a_message(workspace: Path) -> None:
    """And the last checkpoint is a good one."""
    every = ("--set", "train.checkpoint_every=2", "--set", "train.sample_every=0")
    command = command_of(2, "bereft", 100_000, 2, *every)
    with subprocess.Popen(command, cwd=workspace, stderr=subprocess.PIPE, text=True) as job:
        run = Run(workspace / "runs/bereft")
        while run.last is None:
            assert job.poll() is None
            time.sleep(0.1)
        psutil.Process(job.pid).children()[-1].kill()
        _, error = job.communicate(timeout=120)
    assert job.returncode != 0
    assert "error: process 0 of 2 has lost another one" in error
    last = run.last
    assert last is not None
    assert f"The last checkpoint is {last.relative_to(workspace)}" in error
    steps = int(last.name) + 1
    assert [report["step"] for report in reports(train_with(1, workspace, "bereft", steps, 2, *every))][-1] == steps
