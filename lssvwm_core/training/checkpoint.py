"""Checkpoints of a run: the world (EMA weights), and all that a training needs to go on as if nothing had happened."""

import contextlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import safetensors
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from lssvwm_core.model import storage
from lssvwm_core.model.storage import AUTOENCODER_FOLDER
from lssvwm_core.model.world_model import WorldModel
from lssvwm_core.sampling import Sampler
from lssvwm_core.training.run.folder import MODEL_FOLDER, STATE_FOLDER, Run
from lssvwm_core.training.step.sharding import load_optimizer
from lssvwm_core.world import save_world
from lssvwm_datasets.errors import LssvwmError
from lssvwm_datasets.shards import ShardHeader

AUTOENCODER_FROM_CHECKPOINT = f"../../../{AUTOENCODER_FOLDER}"  # one copy a run


def save_checkpoint(
    run: Run,
    step: int,
    weights: dict[str, Tensor],
    ema: WorldModel,
    optimizer_state: dict[str, Any],
    header: ShardHeader,
    keep: int,
    sampler: Sampler,
) -> Path:
    """Write a checkpoint whole, point `last` to it, and remove all but the newest `keep`."""
    final = run.checkpoints / f"{step:06d}"
    partial = run.checkpoints / f".{step:06d}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    save_world(partial / MODEL_FOLDER, ema, header, AUTOENCODER_FROM_CHECKPOINT, sampler)
    state = partial / STATE_FOLDER
    state.mkdir()
    save_file({name: tensor.contiguous() for name, tensor in weights.items()}, state / "raw.safetensors")
    torch.save(optimizer_state, state / "optimizer.pt")
    (state / "progress.json").write_text(json.dumps({"step": step}))
    shutil.rmtree(final, ignore_errors=True)
    os.replace(partial, final)
    link = run.checkpoints / ".last"
    link.unlink(missing_ok=True)
    link.symlink_to(final.name)
    os.replace(link, run.checkpoints / "last")
    complete = sorted(path for path in run.checkpoints.iterdir() if path.name.isdigit())
    for old in complete[:-keep]:
        shutil.rmtree(old)
    return final


def restore_weights(checkpoint: Path, model: WorldModel, ema: WorldModel) -> None:
    """Restore the weights, before they are shared out. Raises: LssvwmError when a file is missing or damaged."""
    storage.load_weights(checkpoint / MODEL_FOLDER, ema)
    with _damage_named(checkpoint):
        model.load_state_dict(load_file(checkpoint / STATE_FOLDER / "raw.safetensors"))


def restore_optimizer(checkpoint: Path, optimizer: torch.optim.Optimizer) -> int:
    """Restore the optimiser's state and return the step. Raises: LssvwmError when a file is missing or damaged."""
    state = checkpoint / STATE_FOLDER
    with _damage_named(checkpoint):
        load_optimizer(optimizer, torch.load(state / "optimizer.pt", map_location="cpu", weights_only=True))
        return int(json.loads((state / "progress.json").read_text())["step"])


@contextlib.contextmanager
def _damage_named(checkpoint: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, RuntimeError, KeyError, EOFError, safetensors.SafetensorError) as error:
        raise LssvwmError(
            f"{checkpoint}: damaged checkpoint ({error}); point {checkpoint.parent / 'last'} to an earlier one, "
            "or start anew with another --name"
        ) from error


def drop_metrics_after(path: Path, step: int) -> None:
    """Forget the lines of steps that are about to be done again."""
    if path.exists():
        lines = path.read_text().splitlines()
        kept = [line for line in lines if line.endswith("}") and json.loads(line)["step"] <= step]
        path.write_text("".join(f"{line}\n" for line in kept))
