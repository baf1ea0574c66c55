"""Baselines and ablations: models that differ from a given one in their mixers, with as many parameters.

The depth and the width of the MLP make up for the parameters of other mixers, to within a fraction of a percent.
"""

import functools
from dataclasses import replace
from typing import Any

import torch

from lssvwm_core.model.config import ModelConfig
from lssvwm_core.model.world_model import WorldModel

VARIANTS = {
    "ours": "block-wise scans and frame-local attention, and a memory by least squares where the preset has one",
    "mamba2": "one scan over all tokens, no attention",
    "mamba2-local": "one scan over all tokens, and frame-local attention: ours without the block-wise scan",
    "causal-window": "attention to a limited past",
    "causal-full": "attention to all of the past",
    "block-1": "ours with blocks of one token",
    "no-long-context": "ours without long-context training",
    "no-pose-address": "ours with addresses learnt from the tokens alone, as in the paper",
    "no-recall": "ours without the memory by least squares: the scan's alone, as in the paper",
}
WINDOW_SHARE = 0.24  # of a clip that causal-window sees: 192 of 800 frames (paper)
RATIO_STEP = 1 / 16  # of the MLP's width over D


def variant(name: str, ours: ModelConfig, clip_frames: int) -> dict[str, Any]:
    """The fields of a model in which a variant differs from `ours`, ready for `[model]` of a run's config.

    Args:
        clip_frames: of the longest training clips; they set the window of `causal-window`.

    Raises: ValueError for unknown names.
    """
    if name not in VARIANTS:
        raise ValueError(f"unknown variant {name!r}; expected some of {', '.join(VARIANTS)}")
    window = max(round(WINDOW_SHARE * clip_frames), 2 * max(ours.chunk_sizes))
    changes: dict[str, dict[str, Any]] = {
        "mamba2": {"mixers": ("scan",), "block_sizes": (ours.grid,), "recall": 0},
        "mamba2-local": {"block_sizes": (ours.grid,), "recall": 0},
        "causal-window": {"mixers": ("attention",), "frame_window": window, "recall": 0},
        "causal-full": {"mixers": ("causal",), "recall": 0},
        "block-1": {"block_sizes": ((1, 1),)},
        "no-pose-address": {"pose_address": False},
        "no-recall": {"recall": 0},
    }
    changed = changes.get(name, {})
    return changed | (_match(replace(ours, **changed), ours) if {"mixers", "recall"} & changed.keys() else {})


def training_fields(name: str) -> dict[str, Any]:
    """The fields of `[train]` in which a variant differs."""
    return {"prefix_probability": 0.0} if name == "no-long-context" else {}


@functools.cache
def parameters(config: ModelConfig) -> int:
    """How many parameters a model with this config has, without making one."""
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in WorldModel(config).parameters())


def _match(config: ModelConfig, ours: ModelConfig) -> dict[str, Any]:
    """The depth whose matching MLP is the nearest to that of `ours`, and that MLP's ratio."""
    target = parameters(ours)
    fixed = parameters(replace(config, depth=1, mlp_ratio=1))  # parameters are affine in depth, and in depth · ratio
    a_layer = parameters(replace(config, depth=2, mlp_ratio=1)) - fixed
    a_ratio = parameters(replace(config, depth=1, mlp_ratio=2)) - fixed
    outside = fixed - a_layer
    candidates = []
    for depth in range(1, 3 * ours.depth + 1):
        ratio = 1 + ((target - outside) / depth - a_layer) / a_ratio
        ratio = round(ratio / RATIO_STEP) * RATIO_STEP
        if ratio >= 1:
            candidates.append((max(ratio / ours.mlp_ratio, ours.mlp_ratio / ratio), depth, ratio))
    _, depth, ratio = min(candidates)
    return {"depth": depth, "mlp_ratio": ratio}
