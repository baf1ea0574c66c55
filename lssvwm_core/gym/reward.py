"""What a reward in a world is a function of, and the rewards that come with the toolkit.

A reward is any function of an `Imagined` step: of its frames, its latents, its conditions or the memory after it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lssvwm_core.conditions import Conditions
from lssvwm_core.model.reward_head import load_reward_head
from lssvwm_core.model.state import ModelState
from lssvwm_core.world import World
from lssvwm_datasets.errors import LssvwmError


@dataclass(frozen=True)
class Imagined:
    """One step of N worlds side by side, of c frames each.

    Attributes:
        before: (N, C, h, w) latents of the frame before the step.
        latents: (N, c, C, h, w) of the frames that were imagined.
        conditions: what led to them.
        state: the memory after them.
    """

    world: World
    before: Tensor
    latents: Tensor
    conditions: Conditions
    state: ModelState

    @cached_property
    def frames(self) -> NDArray[np.uint8]:
        """The decoded frames, (N, c, H, W, 3)."""
        return self.world.decode(self.latents)


Reward = Callable[[Imagined], NDArray[np.floating]]  # -> (N,), summed over the frames of the step


def nothing(step: Imagined) -> NDArray[np.float64]:
    """No reward at all: for agents that bring their own."""
    return np.zeros(len(step.latents))


def load_reward(folder: Path, world: World) -> Reward:
    """What `lssvwm train-reward` learnt. Raises: LssvwmError when it is damaged or of another autoencoder."""
    head = load_reward_head(folder)
    if head.config.autoencoder_sha256 != world.header.autoencoder_sha256:
        raise LssvwmError(
            f"{folder}: learnt from latents of another autoencoder than the world's ({world.header.autoencoder}); "
            "train it again with --checkpoint"
        )
    head = head.to(world.device)

    @torch.inference_mode()
    def reward(step: Imagined) -> NDArray[np.float64]:
        before = torch.cat([step.before[:, None].to(step.latents), step.latents[:, :-1]], dim=1)
        return head(before, step.latents).sum(dim=1).double().cpu().numpy()

    return reward
