"""Models in folders: `config.json` and `model.safetensors`, as people expect them on the hub. Never a pickle.

A folder may come from anywhere. Its config is checked by its types, and the model that it describes is compared with
the names and shapes at the head of the weights' file before any memory is taken for it.
"""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

from lssvwm_core.model.tensors import (
    Header,
    check_regular,
    problems,
    read_header,
    read_tensors,
    specs_of,
    write_tensors,
)
from lssvwm_datasets.errors import LssvwmError
from lssvwm_datasets.files import sha256_of, write_json
from lssvwm_datasets.schema import convert, read_json

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
VAE_WEIGHTS_FILE = "diffusion_pytorch_model.safetensors"  # the name that diffusers gives it
AUTOENCODER_FOLDER = "autoencoder"  # beside the shards, in a run, in a world: the one that belongs there
FORMER_TENSORS = ("recall.frequencies",)  # of worlds whose memory by least squares had addresses; none are learnt
SHIPPED = Path(__file__).resolve().parents[1] / "weights"  # models that come with the package, side by side

Config = TypeVar("Config")
Model = TypeVar("Model", bound=nn.Module)


def save_model(
    folder: Path, kind: str, config: dict[str, Any], model: nn.Module, dtype: torch.dtype = torch.float32
) -> None:
    """Write `config.json` (kind + config) and the weights, floating tensors as `dtype`."""
    tensors = {
        name: tensor.to(dtype if tensor.is_floating_point() else tensor.dtype)
        for name, tensor in model.state_dict().items()
    }
    write_tensors(folder / WEIGHTS_FILE, tensors, {"format": "pt"})
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
    return _read_config(folder).get("_class_name")


def _read_config(folder: Path) -> dict[str, Any]:
    try:
        return read_json(folder / CONFIG_FILE, dict[str, Any])
    except FileNotFoundError as error:
        raise LssvwmError(f"{folder}: not a model folder; expected {CONFIG_FILE} and {WEIGHTS_FILE}") from error


def config_from(path: Path, config_class: type[Config], fields: Any) -> Config:
    """Build a config dataclass from JSON. Raises: LssvwmError naming unknown fields, wrong types or wrong values."""
    known = {field.name for field in dataclasses.fields(config_class)}  # type: ignore[arg-type]
    unknown = sorted(set(fields) - known) if isinstance(fields, dict) else []
    if unknown:
        raise LssvwmError(f"{path}: unknown fields {', '.join(unknown)}; expected some of {', '.join(sorted(known))}")
    return convert(str(path), fields, config_class)


def outline(folder: Path, build: Callable[[], Model], weights: str = WEIGHTS_FILE) -> Model:
    """The model that a folder's config describes, without memory for its weights (on the meta device).

    Args:
        build: makes the model by the config.

    Raises: LssvwmError when it cannot be built, or when it is not the model of the folder's weights.
    """
    header = _header_of(folder / weights)
    try:
        with torch.device("meta"):
            model = build()
    except (ArithmeticError, RuntimeError, TypeError, ValueError) as error:  # sizes beyond what torch can count
        raise LssvwmError(f"{folder / CONFIG_FILE}: no model can be built as it says ({error})") from error
    differing = problems(header, specs_of(model.state_dict()))
    if differing:
        raise LssvwmError(f"{folder / weights}: does not fit its config: {_in_short(differing)}")
    return model


def load_model(folder: Path, build: Callable[[], Model]) -> Model:
    """The model that a folder's config describes, with the folder's weights. Raises: LssvwmError as `outline`."""
    outline(folder, build)
    model = build()
    load_weights(folder, model)
    return model


def load_weights(folder: Path, model: nn.Module) -> None:
    """Fill `model` from the folder. Raises: LssvwmError as `fill`."""
    fill(folder / WEIGHTS_FILE, model)


def fill(path: Path, model: nn.Module) -> None:
    """Fill `model` from a safetensors file.

    Raises: LssvwmError naming tensors that are missing, unexpected, of another shape or type, or not finite.
    """
    specs = specs_of(model.state_dict())
    differing = problems(_header_of(path), specs)
    if differing:
        raise LssvwmError(f"{path}: does not fit the model: {_in_short(differing)}")
    model.load_state_dict(read_tensors(path, specs))


def _header_of(path: Path) -> Header:
    """What a file of weights holds, but for what nobody asks for any more."""
    header = read_header(path)
    return header._replace(tensors={name: spec for name, spec in header.tensors.items() if name not in FORMER_TENSORS})


def weights_file(folder: Path) -> Path:
    """Where the weights lie, whether the project or diffusers saved them."""
    saved_by_diffusers = folder / VAE_WEIGHTS_FILE
    return saved_by_diffusers if saved_by_diffusers.exists() else folder / WEIGHTS_FILE


def weights_sha256(folder: Path) -> str:
    """The SHA-256 of the weights' file. Raises: LssvwmError when there is none."""
    path = weights_file(folder)
    check_regular(path)
    return sha256_of(path)


def latents_sha256(folder: Path) -> str:
    """What the latents of an autoencoder are known by: the SHA-256 of its weights, or of those whose encoder it has.

    So a decoder may be trained on, and worlds and shards still fit. Raises: LssvwmError where there is none.
    """
    own = weights_sha256(folder)
    return str(_read_config(folder).get("encoder_of") or own)


def autoencoder_of(world: Path, name: str) -> Path:
    """The folder of a world's autoencoder, which the world's config names relative to the world's own folder.

    It lies within the world's folder; for a world in a run, within the run; for a shipped one, among those that ship.
    Links count as what they point to. Raises: LssvwmError for any other place.
    """
    world = world.resolve()
    run = next((parent for parent in [*world.parents][:3] if (parent / "checkpoints").is_dir()), None)
    home = SHIPPED if world.parent == SHIPPED else run or world
    folder = (world / name).resolve() if "\0" not in name else Path()
    if not folder.is_relative_to(home):
        raise LssvwmError(
            f"{world / CONFIG_FILE}: its autoencoder is {name!r}, outside of {home}; "
            f"copy that folder to {world / AUTOENCODER_FOLDER} and name it {AUTOENCODER_FOLDER!r} there"
        )
    return folder


def _in_short(differing: list[str]) -> str:
    return f"{'; '.join(differing[:3])} ({len(differing)} in all)"
