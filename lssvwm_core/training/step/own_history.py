"""Clips that go on from what the student made itself, as its rollouts do, and what it is to learn there.

In training the frames before a chunk are true, so a world learns to trust them; in a rollout they are its own, and an
error goes on from frame to frame although the memory knows better. Here the frames after a clip's clean prefix are the
student's own (Bengio et al., 2015; in video diffusion Huang et al., 2025), and what it learns is the truth, but only at
places that the prefix has shown: elsewhere nobody could know it, and the mean of all that may be there is a blur.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from lssvwm_core.conditions import Conditions
from lssvwm_core.model.recall import GENERATED_NOISE
from lssvwm_core.model.world_model import WorldModel
from lssvwm_core.sampling import Sampler, denoise


def prefix_lengths(noise_levels: Tensor) -> Tensor:
    """(B,) the clean frames that each clip begins with, of (B, T) levels."""
    return (noise_levels == 0).long().cumprod(dim=1).sum(dim=1)


@torch.no_grad()
def own_history(
    model: WorldModel,
    sampler: Sampler,
    latents: Tensor,
    noise: Tensor,
    conditions: Mapping[str, Tensor],
    prefixes: Tensor,
    chunk: int,
) -> Tensor:
    """Clips (B, T, C, h, w) as they are up to their prefix, and then as a rollout of the model goes on.

    Args:
        model: in evaluation mode.
        noise: (B, T, C, h, w) what each chunk is made from.
        prefixes: (B,) frames, whole chunks; T for a clip that stays as it is.
    """
    batch, frames = latents.shape[:2]
    start = int(prefixes.min())
    own = torch.arange(frames, device=latents.device) >= prefixes[:, None]  # (B, T)
    led, clean = Conditions(conditions), torch.zeros(batch, frames, device=latents.device)
    history, state = latents.clone(), model.initial_state(batch)
    if 0 < start < frames:
        _, state = model(latents[:, :start], clean[:, :start], led[:start], state, chunk, latents[:, :start])
    for first in range(start, frames, chunk):
        rows = slice(first, first + chunk)
        made = denoise(model, sampler, noise[:, rows], led[rows], state)
        history[:, rows] = torch.where(own[:, rows, None, None, None], made, latents[:, rows])
        noises = write_noise(own[:, rows])
        _, state = model(history[:, rows], clean[:, rows], led[rows], state, chunk, history[:, rows], noises)
    return history


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
