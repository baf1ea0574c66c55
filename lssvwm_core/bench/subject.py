"""The models that are measured: a preset, or a variant of it, for latents and poses as the shipped world has them."""

import functools
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from lssvwm_core.model.config import ModelConfig
from lssvwm_core.model.variants import VARIANTS, variant
from lssvwm_core.model.world_model import WorldModel
from lssvwm_core.presets import PRESETS, preset
from lssvwm_core.resolve import SHIPPED_WORLD, shipped_models
from lssvwm_core.world import compile_where_possible, load_model
from lssvwm_datasets.errors import LssvwmError
from lssvwm_datasets.shards import ShardHeader

COMPARED = ("ours", "mamba2", "mamba2-local", "causal-window", "causal-full")
CLIP_FRAMES = 800  # of the training clips, which set the window of causal-window


@dataclass(frozen=True)
class Subject:
    """A preset by its name, with the fields of the model that are to differ."""

    preset: str = "tiny"
    model: dict[str, Any] = field(default_factory=dict)

    def config(self) -> ModelConfig:
        """The shape of the model. Raises: LssvwmError for an unknown preset, and for fields that do not fit."""
        if self.preset not in PRESETS:
            raise LssvwmError(f"--preset {self.preset}: unknown; expected one of {', '.join(PRESETS)}")
        header = _shipped_header()
        try:
            return preset(self.preset, header.latent_shape, **{"pose_names": header.pose_names, **self.model})
        except (ValueError, TypeError) as error:
            raise LssvwmError(f"--set model.…: {error}") from error

    def variant(self, name: str, device: torch.device, compiled: bool = False) -> WorldModel:
        """A variant by its name, with random weights that are the same every time."""
        ours = self.config()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            model = WorldModel(replace(ours, **variant(name, ours, CLIP_FRAMES))).to(device)
        if compiled:
            compile_where_possible(model, device)
        return model


@functools.cache
def _shipped_header() -> ShardHeader:
    return load_model(shipped_models()[SHIPPED_WORLD])[1]


def check_variants(names: Sequence[str]) -> None:
    """Check names of variants. Raises: LssvwmError for an unknown one."""
    unknown = [name for name in names if name not in VARIANTS]
    if unknown:
        raise LssvwmError(f"--variants {', '.join(unknown)}: unknown; expected some of {', '.join(VARIANTS)}")


def check_frames(frames: Sequence[int], config: ModelConfig) -> None:
    """Check numbers of frames. Raises: LssvwmError for one that is no multiple of every chunk of the model."""
    for count in frames:
        if any(count % chunk for chunk in config.chunk_sizes):
            chunks = ", ".join(map(str, config.chunk_sizes))
            raise LssvwmError(f"--frames {count}: expected multiples of the model's chunks, {chunks}")
