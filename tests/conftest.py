"""One small pipeline for all tests: real samples, a random autoencoder, shards, and a barely trained tiny world."""

import contextlib
import io
import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import pytest

from tests.faults.faults import fault_environment as fault_environment

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("MUJOCO_GL", "osmesa")  # as `lssvwm record` does
os.environ.setdefault("LP_NUM_THREADS", "0")

CLI = [sys.executable, "-m", "lssvwm_cli.app"]
PREPARE = ("prepare", "maze", "--autoencoder", "autoencoder", "--accept-quality", "--shard-size", "1", "--jobs", "1")
SMALL_MODEL = ("model.width=64", "model.depth=2", "model.headdim=32", "model.d_state=16", "model.recall=32")


@pytest.fixture(scope="session")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which a user has prepared the samples and trained for some steps: data/maze and runs/test."""
    import torch

    from lssvwm_core.model.autoencoder import Autoencoder, AutoencoderConfig, save_autoencoder

    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("workspace")
    small = AutoencoderConfig("small", latent_channels=8, widths=(16, 16, 32), decoder_blocks=1)
    save_autoencoder(folder / "autoencoder", Autoencoder(small))
    lssvwm(folder, *PREPARE)
    lssvwm(folder, *train_command("test", 4))
    return folder


def train_command(run: str, steps: int, *more: str) -> list[str]:
    sets = [part for override in SMALL_MODEL for part in ("--set", override)]
    clips = ["--clip-frames", "20", "--batch-size", "2"]
    return ["train", "--name", run, "--steps", str(steps), "--threads", "1", *sets, *clips, *more]


def lssvwm(
    folder: Path,
    *arguments: str,
    fails: bool = False,
    environment: dict[str, str] | None = None,
    own_process: bool = False,
) -> subprocess.CompletedProcess[str]:
    """Run the command in `folder`; with `fails` it must end in a message, not a traceback.

    It runs in this process, which is seconds quicker, and what it sets in a process is set back. `own_process`, or an
    `environment`, starts it as a user does.
    """
    if own_process or environment is not None:
        command = [*CLI, *arguments]
        done = subprocess.run(
            command, cwd=folder, capture_output=True, text=True, timeout=300, check=False, env=environment
        )
    else:
        done = _run_here(folder, arguments)
    if fails:
        assert done.returncode != 0, done.stderr
        assert "Traceback" not in done.stderr, done.stderr
    else:
        assert done.returncode == 0, done.stderr
    return done


def _run_here(folder: Path, arguments: tuple[str, ...]) -> subprocess.CompletedProcess[str]:
    import torch

    from lssvwm_cli.app import run

    out, err, root = io.StringIO(), io.StringIO(), logging.getLogger()
    level, threads = root.level, torch.get_num_threads()
    no_handlers = mock.patch.object(root, "handlers", [])  # pytest's would keep the command from setting up its own
    try:
        with contextlib.chdir(folder), mock.patch.dict(os.environ), no_handlers:
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
                code = run(arguments)
    finally:
        root.setLevel(level)
        torch.set_num_threads(threads)
    return subprocess.CompletedProcess(arguments, code, out.getvalue(), err.getvalue())


@pytest.fixture
def float32(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rollouts in float32 on every CPU: with AMX they take bfloat16, which rounds a whole otherwise than its pieces."""
    monkeypatch.setattr("lssvwm_core.device.cpu_has", lambda feature: False)


@pytest.fixture(scope="session")
def run_cli() -> Callable[..., subprocess.CompletedProcess[str]]:
    return lssvwm


@pytest.fixture
def golden_copy(tmp_path: Path) -> Path:
    """A folder with data/maze and runs/test as version 0.1 wrote them; the run has a link `last`."""
    golden = Path(__file__).parent / "golden"
    for name in ("data", "runs"):
        shutil.copytree(golden / name, tmp_path / name, symlinks=True)
    return tmp_path
