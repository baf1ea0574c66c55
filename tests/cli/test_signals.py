"""Signals during long work: the first lets it save, a second one ends it at once; exit codes are those of shells."""

import json
import os
import pty
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from lssvwm_core.model.autoencoder import AutoencoderConfig
from lssvwm_core.training.autoencoder import AutoencoderTraining, train_autoencoder
from lssvwm_core.training.run.folder import Run
from lssvwm_datasets.sources import find_recordings, sample_recordings
from tests.conftest import CLI

WORK = """
import sys, time
from lssvwm_cli.signals import Signals
with Signals() as signals:
    print("ready", flush=True)
    while not (signals() and sys.argv[1] == "saves"):
        time.sleep(0.01)
    print("saved after", signals(), flush=True)
signals.exit_if_any()
"""
WRAPPED = f"""
import runpy, sys, typer
source = {WORK!r}
try:
    exec(source)
except typer.Exit as end:
    sys.exit(end.exit_code)
"""
NAMES = ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2")


def started(kind: str, *before: str) -> "subprocess.Popen[str]":
    process = subprocess.Popen([*before, sys.executable, "-c", WRAPPED, kind], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


@pytest.mark.parametrize("name", NAMES)
def test_the_first_signal_lets_the_work_save(name: str) -> None:
    process, number = started("saves"), getattr(signal, name)
    process.send_signal(number)
    output, _ = process.communicate(timeout=20)
    assert output == f"saved after {name}\n"
    assert process.returncode == 128 + number


@pytest.mark.parametrize(("first", "second"), [("SIGTERM", "SIGTERM"), ("SIGHUP", "SIGINT"), ("SIGUSR1", "SIGTERM")])
def test_a_second_signal_ends_at_once_but_not_the_same_one_passed_on(first: str, second: str) -> None:
    process, last = started("hangs"), getattr(signal, second)
    process.send_signal(getattr(signal, first))
    time.sleep(0.1)
    process.send_signal(getattr(signal, first))  # as bash and torchrun do
    time.sleep(0.7)
    assert process.poll() is None
    process.send_signal(last)
    assert process.wait(timeout=10) == -last


def test_nohup_is_respected() -> None:
    process = started("saves", "nohup")
    process.send_signal(signal.SIGHUP)
    time.sleep(0.3)
    assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=20) == 128 + signal.SIGTERM


def train(run: str) -> list[str]:
    return [*CLI, "train", "--name", run, "--data", "data/maze", "--clip-frames", "20", "--batch-size", "1", *SETTINGS]


SETTINGS = [
    part
    for setting in ("train.log_every=1", "train.sample_every=0", "model.width=32", "model.depth=1", "model.headdim=16")
    for part in ("--set", setting)
]


def wait_for_a_step(folder: Path, run: str) -> None:
    metrics, until = folder / f"runs/{run}/metrics.jsonl", time.monotonic() + 120
    while not (metrics.exists() and metrics.read_text()):
        assert time.monotonic() < until
        time.sleep(0.05)


def test_training_saves_on_signals(golden_copy: Path) -> None:
    """Every signal is noted in the same way; Ctrl-C and a lost terminal have tests of their own."""
    processes = {}
    for name in ("SIGTERM", "SIGUSR1"):
        processes[name] = subprocess.Popen(train(name), cwd=golden_copy, stderr=subprocess.PIPE, text=True)
    for name, process in processes.items():
        wait_for_a_step(golden_copy, name)
        process.send_signal(getattr(signal, name))
        error = process.communicate(timeout=60)[1]
        assert process.returncode == 128 + getattr(signal, name)
        assert f"stopped by {name}; go on with the same command" in error
        assert Run(golden_copy / "runs" / name).last is not None


def test_training_saves_when_its_terminal_is_gone(golden_copy: Path) -> None:
    """As at the end of an ssh session: the signal comes, and whatever is shown from then on is an error."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(golden_copy)
        command = train("gone")
        os.execv(command[0], command)
    wait_for_a_step(golden_copy, "gone")
    os.close(terminal)
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 128 + signal.SIGHUP
    assert Run(golden_copy / "runs/gone").last is not None


def test_an_autoencoder_is_saved_when_asked_to_stop(tmp_path: Path) -> None:
    out, asked = tmp_path / "ae", iter([None, None, None, "SIGUSR1"])
    training = AutoencoderTraining(batch_size=1, max_frames=40)
    config = AutoencoderConfig("ae", latent_channels=2, widths=(16, 16, 32), decoder_blocks=1)
    recordings = find_recordings(sample_recordings())
    [first] = train_autoencoder(recordings, out, config, training, torch.device("cpu"), stop=lambda: next(asked))
    assert first.step == 0
    assert json.loads((out / "recipe.json").read_text())["steps_done"] == 3
