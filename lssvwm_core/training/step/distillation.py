"""Distils a world's sampler: the student makes in one step what its teacher makes in several.

Progressive distillation (Salimans & Ho, 2022) in a single round: one step of the student is to arrive where the
teacher's steps over the same noise levels arrive, by whatever samplers the two have. Of the few-step methods this one
leaves a world what it is, a network of the same shape under the same sampler, where a consistency model needs a sampler
that adds noise again and a shortcut model a network that is told the size of its step. A single round, because a
teacher here takes about 8 steps: no error of a student in between is learnt by the next.

The clip is that of any training: chunks with noise levels of their own after a clean prefix, in one parallel pass. All
chunks step together, so one that follows clean frames alone is stepped exactly as in a rollout.

What a teacher does by guidance, which costs it two evaluations a step, its student does in one (Meng et al., 2023).

A student may also learn from the mistakes that it makes when it goes on from its own frames (`own_history`). Its
teacher is then told more than it, the true frames and all conditions, and needs no guidance.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from lssvwm_core.diffusion import add_noise, velocity_error
from lssvwm_core.model.world_model import WorldModel
from lssvwm_core.sampling import Level, Sampler, guidance_of, guided, with_settings
from lssvwm_core.training.run.config import DistillConfig
from lssvwm_core.training.step.lesson import Lesson
from lssvwm_core.training.step.own_history import own_history, prefix_lengths, shown, write_noise
from lssvwm_core.world import load_model


@dataclass(frozen=True)
class Distillation:
    """A training's objective, in place of `flow_loss`.

    Attributes:
        teacher: the model that is learnt from; in training mode, so that no memory beyond the clip is kept.
        teacher_sampler: any; its steps are a multiple of the student's, and it visits the student's noise levels.
        sampler: the student's, which takes one evaluation of the model a step.
        dreamer: what goes on after a clip's clean prefix, the moving average of the student; None: the truth does.
    """

    teacher: WorldModel
    teacher_sampler: Sampler
    sampler: Sampler
    dreamer: WorldModel | None = None

    def __call__(self, model: torch.nn.Module, lesson: Lesson) -> Tensor:
        """Mean squared error of the student's velocity; levels are raised to the next that its sampler visits."""
        latents, noise, noise_levels, conditions, whole, chunk = lesson
        schedule = noise_levels.new_tensor(self.sampler.levels()).flip(0)  # from clean to noise
        places = torch.searchsorted(schedule, noise_levels.contiguous())  # 0: clean
        levels, taken = schedule[places], self.sampler.steps - places
        noisy = add_noise(latents, noise, levels)
        if self.dreamer is None:
            target = self.target(noisy, taken, conditions, chunk, latents)
            velocity, _ = model(noisy, levels, conditions, chunk=chunk, remember=latents)
            return velocity_error(velocity, target, levels)

        prefixes = prefix_lengths(noise_levels)
        dreamt = prefixes > 0  # (B,) which clips
        prefixes = torch.where(dreamt, prefixes, latents.shape[1])
        history = own_history(self.dreamer, self.sampler, latents, noise, conditions, prefixes, chunk)
        target = torch.empty_like(latents)
        for clips, led, guidance in [(~dreamt, conditions, None), (dreamt, whole, 0.0)]:
            if clips.any():
                told = {name: rows[clips] for name, rows in led.items()}
                taught = replace(self, teacher_sampler=with_settings(self.teacher_sampler, guidance=guidance))
                target[clips] = taught.target(noisy[clips], taken[clips], told, chunk, latents[clips])

        own = torch.arange(latents.shape[1], device=latents.device) >= prefixes[:, None]  # (B, T)
        seen = shown(whole["pose"], prefixes, 2 * self.teacher.config.recall_lengths[1])
        noisy = torch.where(levels[:, :, None, None, None] > 0, noisy, history)
        velocity, _ = model(noisy, levels, conditions, chunk=chunk, remember=history, write_noise=write_noise(own))
        return velocity_error(velocity, target, levels, torch.where(own, seen, 1.0))

    @torch.no_grad()
    def target(
        self,
        noisy: Tensor,
        taken: Tensor,
        conditions: Mapping[str, Tensor],
        chunk: int,
        latents: Tensor | None = None,
    ) -> Tensor:
        """The mean velocity of the teacher on its way over one step of the student, 0 for clean frames.

        Args:
            noisy: (B, T, C, h, w).
            taken: (B, T) how many steps of the student lead to each frame's noise level; all of them: it is clean.
            latents: (B, T, C, h, w) the clean ones, for a memory by least squares.
        """
        span = self.teacher_sampler.steps // self.sampler.steps
        schedule = noisy.new_tensor(self.teacher_sampler.levels())
        noised = taken < self.sampler.steps
        place, guides = taken * span, self.teacher_sampler.guidance > 0
        known = None if latents is None else self.teacher.recollect_clip(latents, conditions, chunk)
        guidance = guidance_of(self.teacher, self.teacher_sampler, known)

        def velocity(x: Tensor, level: Level) -> Tensor:
            levels = torch.as_tensor(level).flatten(1)  # (B, T)
            found = self.teacher(x, levels, conditions, chunk=chunk, recollection=known)[0]
            if guides:
                without = self._without_memory(found, x, levels, conditions, chunk, latents)
                found = guided(found, without, guidance)
            return found * noised[:, :, None, None, None]

        def level(step: int) -> Tensor:
            return schedule[place + step * noised][:, :, None, None, None]

        x = noisy
        for step in range(span):
            x = self.teacher_sampler.advance(velocity, x, level(step), level(step + 1))
        length = torch.where(noised[:, :, None, None, None], level(0) - level(span), 1.0)
        return (noisy - x) / length

    def _without_memory(
        self,
        found: Tensor,
        x: Tensor,
        levels: Tensor,
        conditions: Mapping[str, Tensor],
        chunk: int,
        latents: Tensor | None,
    ) -> Tensor:
        """The teacher's velocity of each frame from those just before it; `found` where there are too few.

        A rollout without memory sees `recent_frames` of a chunk. Here the clip is cut into pieces of twice as many,
        and the second half of each is asked for: where a chunk has fewer frames than that, most see a little more.
        """
        kept, frames = self.teacher.config.recent_frames(chunk), x.shape[1]
        if not kept or frames < 2 * kept:
            return found
        starts = torch.tensor([*range(0, frames - 2 * kept, kept), frames - 2 * kept], device=x.device)
        rows = starts[:, None] + torch.arange(2 * kept, device=x.device)  # (pieces, 2 · kept)
        clips, wanted = (levels[:, rows[:, kept:]] > 0).any(dim=2).nonzero(as_tuple=True)  # nobody asks what is clean
        clips, rows = clips[:, None], rows[wanted]

        led = {name: values[clips, rows] for name, values in conditions.items()}
        seen = None if latents is None else latents[clips, rows]
        apart = self.teacher(x[clips, rows], levels[clips, rows], led, chunk=chunk, remember=seen)[0]
        without = found.clone()
        without[clips, rows[:, kept:]] = apart[:, kept:]
        return without


def load_distillation(folder: Path, config: DistillConfig, device: torch.device, student: WorldModel) -> Distillation:
    """The objective of a run; `folder` is the teacher's. Raises: LssvwmError."""
    teacher = load_model(folder)[0].to(device).requires_grad_(False).train()
    return Distillation(teacher, config.taught, config.sampler, student if config.own_history else None)
