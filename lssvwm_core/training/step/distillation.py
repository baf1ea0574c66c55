"""Distils a world's sampler: the student makes in one step what its teacher makes in several.

Progressive distillation (Salimans & Ho, 2022) in a single round: one Euler step of the student is to arrive where the
teacher's Euler steps over the same noise levels arrive. Of the few-step methods this one leaves a world what it is, a
network of the same shape under the same sampler, where a consistency model needs a sampler that adds noise again and a
shortcut model a network that is told the size of its step. A single round, because a teacher here takes about 8 steps:
no error of a student in between is learnt by the next.

The clip is that of any training: chunks with noise levels of their own after a clean prefix, in one parallel pass. All
chunks step together, so the first after the prefix is stepped exactly as in a rollout, given clean frames alone.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from lssvwm_core.diffusion import add_noise, velocity_error
from lssvwm_core.training.run.config import DistillConfig
from lssvwm_core.world import load_model


@dataclass(frozen=True)
class Distillation:
    """A training's objective, in place of `flow_loss`."""

    teacher: torch.nn.Module
    teacher_steps: int
    """A multiple of `steps`."""
    steps: int

    def __call__(
        self,
        model: torch.nn.Module,
        latents: Tensor,
        noise: Tensor,
        noise_levels: Tensor,
        conditions: Mapping[str, Tensor],
        chunk: int,
    ) -> Tensor:
        """Mean squared error of the student's velocity; levels are rounded up to those its sampler visits."""
        steps_left = (noise_levels * self.steps).ceil() * (self.teacher_steps // self.steps)  # of the teacher; 0: clean
        levels = steps_left / self.teacher_steps
        noisy = add_noise(latents, noise, levels)
        target = self.target(noisy, steps_left, conditions, chunk)
        velocity, _ = model(noisy, levels, conditions, chunk=chunk)
        return velocity_error(velocity, target, levels)

    @torch.no_grad()
    def target(self, noisy: Tensor, steps_left: Tensor, conditions: Mapping[str, Tensor], chunk: int) -> Tensor:
        """The mean velocity of the teacher on its way over one step of the student, 0 for clean frames.

        Args:
            noisy: (B, T, C, h, w).
            steps_left: (B, T) whole numbers: steps of the teacher from each frame's noise level to clean.
        """
        noised = (steps_left > 0).float()
        span = self.teacher_steps // self.steps
        x, total = noisy, torch.zeros_like(noisy)
        for taken in range(span):
            levels = (steps_left - taken * noised) / self.teacher_steps
            velocity = self.teacher(x, levels, conditions, chunk=chunk)[0] * noised[:, :, None, None, None]
            x = x - velocity / self.teacher_steps
            total += velocity
        return total / span


def load_distillation(folder: Path, config: DistillConfig, device: torch.device) -> Distillation:
    """The objective of a run; `folder` is the teacher's. Raises: LssvwmError."""
    teacher = load_model(folder)[0].to(device).requires_grad_(False)
    return Distillation(teacher, config.teacher_steps, config.steps)
