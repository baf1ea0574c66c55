"""Clips that go on from what the student made itself, as its rollouts do, and what it is to learn there.

In training the frames before a chunk are true, so a world learns to trust them; in a rollout they are its own, and an
error goes on from frame to frame although the memory knows better. Here the frames after a clip's clean prefix are the
student's own (Bengio et al., 2015; in video diffusion Huang et al., 2025), and so is what it denoises: noise that was
added to the truth would tell it. At places that the prefix has shown it learns the truth. Elsewhere nobody could know
that, and the mean of all that may be there is a blur: there it learns what its teacher would do in its place.
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from lssvwm_core.conditions import Conditions
from lssvwm_core.model.recall import GENERATED_NOISE, Recollection
from lssvwm_core.model.state import ModelState
from lssvwm_core.model.world_model import WorldModel
from lssvwm_core.sampling import Sampler, denoise
from lssvwm_core.training.step.lesson import Lesson


def prefix_lengths(noise_levels: Tensor) -> Tensor:
    """(B,) the clean frames that each clip begins with, of (B, T) levels."""
    return (noise_levels == 0).long().cumprod(dim=1).sum(dim=1)


class Moment(NamedTuple):
    """A chunk of clips on its way from the noise, in a rollout.

    Attributes:
        rows: of the clips.
        state: of the model that is rolled out, before this chunk.
        recollection: what its memory by least squares says of the chunk.
        way: the latents (B, c, C, h, w) by their level, before each step of the sampler.
        history: (B, T, C, h, w) the frames before the chunk, as they were made; true within each clip's prefix.
    """

    rows: slice
    state: ModelState
    recollection: Recollection | None
    way: dict[float, Tensor]
    history: Tensor


@torch.no_grad()
def own_history(model: WorldModel, sampler: Sampler, lesson: Lesson, prefixes: Tensor) -> Iterator[Moment]:
    """Roll a model out from the shortest of the prefixes to the end of the clips, chunk after chunk.

    Args:
        model: in evaluation mode.
        lesson: whose noise each chunk is made from.
        prefixes: (B,) frames, whole chunks; T for a clip that stays as it is.
    """
    start, chunk, led = int(prefixes.min()), lesson.chunk, Conditions(lesson.conditions)
    own = after_prefix(lesson.latents, prefixes)
    history = lesson.latents.clone()
    state = state_after(model, None, history[:, :start], led[:start], chunk)
    for first in range(start, history.shape[1], chunk):
        rows = slice(first, first + chunk)
        known, way = model.recollect(state, led[rows], chunk), dict[float, Tensor]()
        made = denoise(model, sampler, lesson.noise[:, rows], led[rows], state, known, passing=way.__setitem__)
        yield Moment(rows, state, known, way, history)
        history[:, rows] = torch.where(own[:, rows, None, None, None], made, history[:, rows])
        state = state_after(model, state, history[:, rows], led[rows], chunk, write_noise(own[:, rows]))


@torch.no_grad()
def state_after(
    model: WorldModel,
    state: ModelState | None,
    latents: Tensor,
    conditions: Conditions,
    chunk: int,
    noise: float | Tensor = 1.0,
) -> ModelState:
    """What a model knows when it has seen clean frames (B, T, C, h, w); T may be 0. `state` None: it knew nothing."""
    state = model.initial_state(len(latents)) if state is None else state
    if not latents.shape[1]:
        return state
    return model(latents, latents.new_zeros(latents.shape[:2]), conditions, state, chunk, latents, noise)[1]


def after_prefix(latents: Tensor, prefixes: Tensor) -> Tensor:
    """(B, T) whether the student makes each frame of clips (B, T, C, h, w)."""
    return torch.arange(latents.shape[1], device=latents.device) >= prefixes[:, None]


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
