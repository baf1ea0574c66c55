"""Diffusion forcing with rectified flow: noise and the training loss; `sampling` has the way back.

    x_t = (1 - t) · clean + t · noise        velocity = noise - clean

Every chunk has its own noise level, shared by its frames: they are generated together, so levels that differ inside a
chunk would train for something that never happens. With chunk size 1 this is the paper's level for every frame.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

LEVEL_MEAN, LEVEL_STD = 0.4, 1.2  # of the logit of a noise level: a little more high noise, where memory decides


def sample_noise_levels(
    batch: int,
    frames: int,
    chunk: int,
    prefix_probability: float,
    generator: torch.Generator,
    clean_probability: float = 0.0,
) -> Tensor:
    """(B, T) noise levels in [0, 1], equal within a chunk; exactly 0 marks what is clean; the last chunk never is.

    Long-context training (paper, section 'Training'): with `prefix_probability` a clip keeps a clean prefix of random
    length, longer than half of it; the loss is taken on the other frames only. With `clean_probability` every second
    chunk after it is clean too: the others then follow frames that are done, as in a rollout.
    """
    chunks = frames // chunk
    levels = torch.sigmoid(LEVEL_MEAN + LEVEL_STD * torch.randn(batch, chunks, generator=generator))
    shortest = min(chunks // 2 + 1, chunks - 1)
    prefix = torch.randint(shortest, chunks, (batch, 1), generator=generator) if chunks > 1 else torch.zeros(batch, 1)
    has_prefix = torch.rand(batch, 1, generator=generator) < prefix_probability
    clean = has_prefix & (torch.arange(chunks) < prefix)
    if clean_probability:
        alternates = torch.rand(batch, 1, generator=generator) < clean_probability
        clean |= alternates & ((torch.arange(chunks) - prefix * has_prefix) % 2 == 1)
        clean[:, -1] = False
    return levels.masked_fill(clean, 0.0).repeat_interleave(chunk, dim=1)


def add_noise(latents: Tensor, noise: Tensor, noise_levels: Tensor) -> Tensor:
    """(B, T, C, h, w) clean and noise, (B, T) levels -> noisy latents."""
    t = noise_levels[:, :, None, None, None]
    return (1 - t) * latents + t * noise


def flow_loss(
    model: torch.nn.Module,
    latents: Tensor,
    noise: Tensor,
    noise_levels: Tensor,
    conditions: Mapping[str, Tensor],
    chunk: int,
) -> Tensor:
    """Mean squared error of the velocity over the noised frames of each clip, then over the clips."""
    velocity, _ = model(
        add_noise(latents, noise, noise_levels), noise_levels, conditions, chunk=chunk, remember=latents
    )
    return velocity_error(velocity, noise - latents, noise_levels)


def velocity_error(velocity: Tensor, target: Tensor, noise_levels: Tensor, weights: Tensor | float = 1.0) -> Tensor:
    """Mean square over the noised frames of each clip, then over the clips; velocities are (B, T, C, h, w).

    Args:
        weights: (B, T) in [0, 1], of each frame's error.
    """
    error = (velocity - target).square().mean(dim=(2, 3, 4)) * weights  # (B, T)
    noised = (noise_levels > 0).float()
    return ((error * noised).sum(dim=1) / noised.sum(dim=1)).mean()
