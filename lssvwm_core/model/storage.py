"""Models in folders: `config.json` and `model.safetensors`, as people expect them on the hub. Never a pickle."""

import dataclasses
from pathlib import Path
from typing import Any, TypeVar

import safetensors
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from lssvwm_datasets.errors import LssvwmError
from lssvwm_datasets.files import sha256_of, write_json, written_whole
from lssvwm_datasets.schema import read_json

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
VAE_WEIGHTS_FILE = "diffusion_pytorch_model.safetensors"  # the name that diffusers gives it
Config = TypeVar("Config")
AUTOENCODER_FOLDER = "autoencoder"  # beside the shards, in a run, in a world: the one that belongs there


def save_model(
    folder: Path, kind: str, config: dict[str, Any], model: nn.Module, dtype: torch.dtype = torch.float32
) -> None:
    """Write `config.json` (kind + config) and the weights, floating tensors as `dtype`."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {
        name: tensor.detach().cpu().to(dtype if tensor.is_floating_point() else tensor.dtype).contiguous()
        for name, tensor in model.state_dict().items()
    }
    with written_whole(folder / WEIGHTS_FILE) as partial:
        save_file(tensors, partial, metadata={"format": "pt"})
    write_json(folder / CONFIG_FILE, {"kind": kind, **config})


def load_config(folder: Path, kind: str) -> dict[str, Any]:
    """The config of a model folder. Raises: LssvwmError when it is missing, unreadable or of another kind."""
    config = _read_config(folder)
    found = config.pop("kind", config.get("_class_name"))
    if found != kind:
        raise LssvwmError(f"{folder / CONFIG_FILE}: describes {found!r}, expected kind {kind!r}")
    return config


def diffusers_class(folder: Path) -> str | None:
    """The class of a model saved by diffusers, None for one of ours. Raises: LssvwmError as `load_config`."""
    config = _read_config(folder)
    return config.get("_class_name")


def _read_config(folder: Path) -> dict[str, Any]:
    try:
        return read_json(folder / CONFIG_FILE, dict[str, Any])
    except FileNotFoundError as error:
        raise LssvwmError(f"{folder}: not a model folder; expected {CONFIG_FILE} and {WEIGHTS_FILE}") from error


def load_weights(folder: Path, model: nn.Module) -> None:
    """Fill `model` from the folder. Raises: LssvwmError naming tensors that are missing, unexpected or misshapen."""
    path = folder / WEIGHTS_FILE
    try:
        found = load_file(path)
    except FileNotFoundError as error:
        raise LssvwmError(f"{path}: no such file") from error
    except (safetensors.SafetensorError, OSError) as error:
        raise LssvwmError(f"{path}: damaged or not a safetensors file ({error})") from error
    expected = model.state_dict()
    problems = [f"missing {name}" for name in expected if name not in found]
    problems += [f"unexpected {name}" for name in found if name not in expected]
    problems += [
        f"{name} is {tuple(found[name].shape)}, expected {tuple(tensor.shape)}"
        for name, tensor in expected.items()
        if name in found and found[name].shape != tensor.shape
    ]
    if problems:
        raise LssvwmError(f"{path}: does not fit its config: {'; '.join(problems[:3])} ({len(problems)} in all)")
    model.load_state_dict(found)


def weights_file(folder: Path) -> Path:
    """Where the weights lie, whether the project or diffusers saved them."""
    saved_by_diffusers = folder / VAE_WEIGHTS_FILE
    return saved_by_diffusers if saved_by_diffusers.exists() else folder / WEIGHTS_FILE


def weights_sha256(folder: Path) -> str:
    return sha256_of(weights_file(folder))


def config_from(path: Path, config_class: type[Config], fields: dict[str, Any]) -> Config:
    """Build a config dataclass from JSON. Raises: LssvwmError naming unknown or wrong fields."""
    known = {field.name for field in dataclasses.fields(config_class)}  # type: ignore[arg-type]
    unknown = sorted(set(fields) - known)
    if unknown:
        raise LssvwmError(f"{path}: unknown fields {', '.join(unknown)}; expected some of {', '.join(sorted(known))}")
    try:
        return config_class(**fields)
    except (TypeError, ValueError) as error:
        raise LssvwmError(f"{path}: {error}") from error
