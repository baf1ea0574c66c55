"""Clips that go on from what the student made itself, as its rollouts do, and what it is to learn there.

In training the frames before a chunk are true, so a world learns to trust them; in a rollout they are its own, and an
error goes on from frame to frame although the memory knows better. Here the frames after a clip's clean prefix are the
student's own (Bengio et al., 2015; in video diffusion Huang et al., 2025), and so is what it denoises: noise that was
added to the truth would tell it. What it learns is the truth, but only at places that the prefix has shown: elsewhere
nobody could know it, and the mean of all that may be there is a blur.
"""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from lssvwm_core.conditions import Conditions
from lssvwm_core.model.recall import GENERATED_NOISE
from lssvwm_core.model.state import ModelState
from lssvwm_core.model.world_model import WorldModel
from lssvwm_core.sampling import Sampler, denoise


def prefix_lengths(noise_levels: Tensor) -> Tensor:
    """(B,) the clean frames that each clip begins with, of (B, T) levels."""
    return (noise_levels == 0).long().cumprod(dim=1).sum(dim=1)


class Dream(NamedTuple):
    """How clips go on from what a model makes itself, after the shortest of their prefixes.

    Attributes:
        state: of the model, after that prefix.
        history: (B, rest, C, h, w) the frames that are done; true within each clip's own prefix.
        way: the same, but frames with a noise level as they were at it, on their way from the noise.
    """

    state: ModelState
    history: Tensor
    way: Tensor


@torch.no_grad()
def own_history(
    model: WorldModel,
    sampler: Sampler,
    latents: Tensor,
    noise: Tensor,
    levels: Tensor,
    conditions: Mapping[str, Tensor],
    prefixes: Tensor,
    chunk: int,
) -> Dream:
    """Roll a model out from clips (B, T, C, h, w).

    Args:
        model: in evaluation mode.
        noise: (B, T, C, h, w) what each chunk is made from.
        levels: (B, T) of the sampler's, at which its way is looked at; 0: when it is done.
        prefixes: (B,) frames, whole chunks; T for a clip that stays as it is.
    """
    batch, frames = latents.shape[:2]
    start = int(prefixes.min())
    own = torch.arange(frames, device=latents.device) >= prefixes[:, None]  # (B, T)
    led, clean = Conditions(conditions), latents.new_zeros(batch, chunk)
    history, way = latents.clone(), latents.clone()
    state = began = state_after(model, latents[:, :start], led[:start], chunk)
    for first in range(start, frames, chunk):
        rows = slice(first, first + chunk)

        def look(level: float, x: Tensor, rows: slice = rows) -> None:
            way[:, rows] = torch.where(levels[:, rows, None, None, None] == level, x, way[:, rows])

        made = denoise(model, sampler, noise[:, rows], led[rows], state, passing=look)
        history[:, rows] = torch.where(own[:, rows, None, None, None], made, latents[:, rows])
        noises = write_noise(own[:, rows])
        _, state = model(history[:, rows], clean, led[rows], state, chunk, history[:, rows], noises)
    way = torch.where(levels[:, :, None, None, None] > 0, way, history)
    return Dream(began, history[:, start:], way[:, start:])


@torch.no_grad()
def state_after(model: WorldModel, latents: Tensor, conditions: Mapping[str, Tensor], chunk: int) -> ModelState:
    """What a model knows when it has seen clean frames (B, T, C, h, w); T may be 0."""
    state, clean = model.initial_state(len(latents)), latents.new_zeros(latents.shape[:2])
    return model(latents, clean, conditions, state, chunk, latents)[1] if latents.shape[1] else state


def write_noise(own: Tensor) -> Tensor:
    """(B, T) R of each frame in a memory by least squares, of (B, T) whether the student made it."""
    return torch.where(own, GENERATED_NOISE, 1.0)


def shown(poses: Tensor, prefixes: Tensor, reach: float) -> Tensor:
    """(B, T) in [0, 1]: how surely the prefix showed what is seen from each pose after it.

    Args:
        poses: (B, T, P); rows of NaN are unknown: 0.
        prefixes: (B,) frames.
        reach: of a view, in the pose's units: 1 up to half of it from a pose of the prefix, 0 from one and a half on.
    """
    before = torch.arange(poses.shape[1], device=poses.device) < prefixes[:, None]  # (B, T)
    unknown = poses.isnan().any(dim=-1)
    apart = torch.cdist(poses.nan_to_num(0.0), poses.nan_to_num(0.0))  # (B, T, T)
    nearest = apart.masked_fill(~(before & ~unknown)[:, None], torch.inf).amin(dim=2)
    return (1.5 - nearest / reach).clamp(0, 1) * ~(before | unknown)
