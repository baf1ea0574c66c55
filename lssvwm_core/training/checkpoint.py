"""Checkpoints of a run: the world (EMA weights), and all that a training needs to go on as if nothing had happened.

A checkpoint is written under a hidden name and appears whole. The last one is the folder with the highest step.
"""

import contextlib
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lssvwm_core.model import storage
from lssvwm_core.model.storage import AUTOENCODER_FOLDER
from lssvwm_core.model.tensors import check_regular, is_finite, write_tensors
from lssvwm_core.model.world_model import WorldModel
from lssvwm_core.sampling import Sampler
from lssvwm_core.training.run.folder import MODEL_FOLDER, STATE_FOLDER, Run
from lssvwm_core.training.step.sharding import load_optimizer
from lssvwm_core.world import save_world
from lssvwm_datasets.errors import LssvwmError
from lssvwm_datasets.files import remove_partial_files, write_json, written_whole
from lssvwm_datasets.schema import read_json
from lssvwm_datasets.shards import ShardHeader

AUTOENCODER_FROM_CHECKPOINT = f"../../../{AUTOENCODER_FOLDER}"  # one copy a run
WEIGHTS_FILE, OPTIMIZER_FILE, PROGRESS_FILE = "raw.safetensors", "optimizer.pt", "progress.json"
ADVICE = "move this checkpoint away to go on from an earlier one, or start anew with another --name"


@dataclass(frozen=True)
class Progress:
    """The content of `progress.json`."""

    step: int


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
    """Write a checkpoint whole, then remove all but the newest `keep`. Raises: LssvwmError when it does not fit."""
    final = run.checkpoint(step)
    partial = final.with_name(f".{final.name}.partial")
    _remove(partial)
    try:
        save_world(partial / MODEL_FOLDER, ema, header, AUTOENCODER_FROM_CHECKPOINT, sampler)
        state = partial / STATE_FOLDER
        write_tensors(state / WEIGHTS_FILE, weights, {})
        _write_optimizer(state / OPTIMIZER_FILE, optimizer_state)
        write_json(state / PROGRESS_FILE, {"step": step})
        _remove(final)
        os.replace(partial, final)
    except BaseException as error:
        shutil.rmtree(partial, ignore_errors=True)
        if isinstance(error, OSError):
            raise LssvwmError(
                f"{final}: cannot be written ({error.strerror or error}); nothing of it is left, earlier checkpoints "
                "are as they were; once the cause is gone, the same command goes on from them"
            ) from error
        raise
    for old in run.saved()[:-keep]:
        _remove(old)
    _remove_link(run)
    return final


def remove_left_overs(run: Run) -> None:
    """Remove what a killed training left half-written or half-removed."""
    for path in run.checkpoints.glob(".*") if run.checkpoints.is_dir() else ():
        if path.is_dir() and not path.is_symlink() and path.suffix in (".partial", ".removed"):
            shutil.rmtree(path, ignore_errors=True)
    remove_partial_files(run.samples)


def restore_weights(checkpoint: Path, model: WorldModel, ema: WorldModel) -> None:
    """Restore the weights, before they are shared out. Raises: LssvwmError when a file is missing or damaged."""
    with _advised(checkpoint):
        storage.load_weights(checkpoint / MODEL_FOLDER, ema)
        storage.fill(checkpoint / STATE_FOLDER / WEIGHTS_FILE, model)


def restore_optimizer(checkpoint: Path, optimizer: torch.optim.Optimizer) -> int:
    """Restore the optimiser's state and return the step. Raises: LssvwmError when a file is missing or damaged."""
    state = checkpoint / STATE_FOLDER
    with _advised(checkpoint):
        load_optimizer(optimizer, _read_optimizer(state / OPTIMIZER_FILE, optimizer))
        step = read_json(state / PROGRESS_FILE, Progress).step
        if step != int(checkpoint.name):
            raise LssvwmError(f"{state / PROGRESS_FILE}: step is {step}, expected {int(checkpoint.name)}")
        return step


def _write_optimizer(path: Path, state: dict[str, Any]) -> None:
    with written_whole(path) as partial:
        torch.save(state, partial)


def _read_optimizer(path: Path, optimizer: torch.optim.Optimizer) -> dict[int, dict[str, Tensor]]:
    """AdamW's moments by the number of their parameter. Raises: LssvwmError unless they are just those; OSError."""
    check_regular(path)
    try:
        saved = torch.load(path, map_location="cpu", weights_only=True)
        moments = dict(saved["state"])
    except OSError:
        raise
    except Exception as error:  # whatever unpicklers raise
        raise LssvwmError(f"{path}: damaged ({str(error).partition(chr(10))[0]})") from error
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for number, tensors in moments.items():
        if not isinstance(number, int) or not 0 <= number < len(parameters) or not isinstance(tensors, dict):
            raise LssvwmError(f"{path}: has a parameter {number!r}, expected numbers below {len(parameters)}")
        shape = tuple(parameters[number].shape)
        for name, expected in (("step", ()), ("exp_avg", shape), ("exp_avg_sq", shape)):
            tensor = tensors.get(name)
            where = f"{path}: {name} of parameter {number}"
            if not isinstance(tensor, Tensor) or tensor.dtype != torch.float32 or tuple(tensor.shape) != expected:
                found = f"{tensor.dtype} {tuple(tensor.shape)}" if isinstance(tensor, Tensor) else repr(tensor)
                raise LssvwmError(f"{where} is {found}, expected torch.float32 {expected}")
            if not is_finite(tensor):
                raise LssvwmError(f"{where} has numbers that are not finite (NaN or infinite)")
    return moments


@contextlib.contextmanager
def _advised(checkpoint: Path) -> Iterator[None]:
    """Errors about a damaged checkpoint say how to go on."""
    try:
        yield
    except FileNotFoundError as error:
        raise LssvwmError(f"{error.filename or error}: no such file; {ADVICE}") from error
    except LssvwmError as error:
        raise LssvwmError(f"{error}; {ADVICE}") from error


def _remove(folder: Path) -> None:
    """Remove a folder, if it is there; never is a part of it taken for a checkpoint."""
    if folder.exists():
        removed = folder.with_name(f".{folder.name.strip('.')}.removed")
        shutil.rmtree(removed, ignore_errors=True)
        os.replace(folder, removed)
        shutil.rmtree(removed, ignore_errors=True)


def _remove_link(run: Run) -> None:
    """Version 0.1 kept a link to the last checkpoint, which would be wrong from now on."""
    link = run.checkpoints / "last"
    if link.is_symlink():
        link.unlink()
