"""The presets: what a name such as `tiny` means for the model and for its training.

A new preset is one more record in `PRESETS`; the commands, their help and the shell's completion take it from there.
Nothing here imports torch or numpy.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Annotated, Any

from msgspec import Meta

if TYPE_CHECKING:
    from lssvwm_core.model.config import ModelConfig


Count = Annotated[int, Meta(ge=1, le=10**9)]  # of things that there must be: steps, frames, clips
Share = Annotated[float, Meta(ge=0, le=1)]


@dataclass(frozen=True)
class Stage:
    """A part of the training with clips of one length (the paper: 400 frames, then 800)."""

    frames: Count
    """Frames of a clip; a multiple of every chunk size."""
    steps: Count
    """Training steps on such clips."""
    batch_size: Count
    """Clips a step, in each process."""


@dataclass(frozen=True)
class Preset:
    """A size of model that is known to work, and how it is trained."""

    stages: tuple[Stage, ...]
    learning_rate: float
    patch: int
    """The smallest patch: cells of the latent along one side of a token."""
    tokens_a_side: int
    """Tokens along a side of a frame, at most: larger latents take larger patches, as far as a token can carry them."""
    model: Mapping[str, Any] = field(default_factory=dict)
    """Fields of `ModelConfig` that differ from its defaults."""


PAPER_STAGES = (Stage(400, 150_000, 1), Stage(800, 250_000, 1))  # maze reasoning

MOST_RECALLED = 2**25  # numbers, of two bytes each, that the memory by least squares of a preset holds

PRESETS = {
    "tiny": Preset(
        stages=(Stage(40, 6000, 6), Stage(100, 6000, 3), Stage(200, 6000, 2), Stage(400, 6000, 1)),
        learning_rate=1e-3,
        patch=2,
        tokens_a_side=4,
        model={"recall": 8192},
    ),
    "small": Preset(
        stages=(Stage(100, 20_000, 8), *PAPER_STAGES),
        learning_rate=5e-4,
        patch=1,
        tokens_a_side=8,
        model={
            "width": 384,
            "depth": 6,
            "mlp_ratio": 4.0,
            "block_sizes": ((4, 4), (1, 1), (2, 2), (1, 1)),
            "recall": 8192,
        },
    ),
    "base": Preset(
        stages=PAPER_STAGES,
        learning_rate=2e-4,
        patch=1,
        tokens_a_side=8,
        model={"width": 768, "depth": 12, "mlp_ratio": 4.0, "block_sizes": ((4, 4), (1, 1), (2, 2), (1, 1))},
    ),
}


def preset(name: str, latent_shape: tuple[int, int, int], **overrides: Any) -> "ModelConfig":
    """The model of a preset for latents of this shape: `tiny` (6M, CPUs), `small` (25M) or `base` (200M, the paper's).

    `tiny` and `small` have the memory by least squares where there are poses, `base` has the paper's alone.
    `overrides` are fields of the model that differ from the preset's.
    Raises: ValueError for unknown names or values that do not fit.
    """
    from lssvwm_core.model.config import ModelConfig, with_current_names  # with numpy, which help can do without

    if name not in PRESETS:
        raise ValueError(f"unknown preset {name!r}; expected one of {', '.join(PRESETS)}")
    overrides = with_current_names(overrides)
    unknown = sorted(set(overrides) - {field.name for field in fields(ModelConfig)})
    if unknown:
        raise ValueError(f"unknown model fields {', '.join(unknown)}")
    chosen = PRESETS[name]
    width = chosen.model.get("width", ModelConfig.width)
    given = {"latent_shape": latent_shape, "patch": _patch(chosen, latent_shape, width), **chosen.model}
    if not overrides.get("pose_names"):
        given.pop("recall", None)  # nothing to remember by
    if "recall" in given:
        given["recall"] = min(given["recall"], MOST_RECALLED // math.prod(latent_shape))
    return ModelConfig(**{**given, **overrides})


def _patch(chosen: Preset, latent_shape: tuple[int, int, int], width: int) -> int:
    """The patch that makes few enough tokens of a frame, but smaller where a token would hold more than the width."""
    channels, *sides = latent_shape
    wanted = max(chosen.patch, -(-max(sides) // chosen.tokens_a_side))
    smaller = (patch for patch in range(wanted, 0, -1) if not any(side % patch for side in sides))
    return next((patch for patch in smaller if carries(width, channels, patch)), wanted)


def carries(width: int, channels: int, patch: int) -> bool:
    """Whether a token of this width has room for its cells of the latents, noise and all.

    A model whose tokens have not can show what it remembers, but makes mush of what it has not seen.
    """
    return channels * patch**2 <= width
