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
teacher is then told more than it, the true frames and all conditions.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from lssvwm_core.conditions import Conditions
from lssvwm_core.diffusion import add_noise, velocity_error
from lssvwm_core.model.state import ModelState
from lssvwm_core.model.world_model import WorldModel
from lssvwm_core.sampling import Level, Sampler, guidance_of, guided
from lssvwm_core.training.run.config import DistillConfig
from lssvwm_core.training.step.lesson import Lesson
from lssvwm_core.training.step.own_history import own_history, prefix_lengths, shown, state_after, write_noise
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
        dreamt = prefix_lengths(lesson.noise_levels) > 0  # (B,) which clips
        if self.dreamer is None or not dreamt.any():
            return self._of_truth(model, lesson)
        dreams = self._of_dreams(model, self.dreamer, lesson.of(dreamt))
        if dreamt.all():
            return dreams
        return torch.lerp(self._of_truth(model, lesson.of(~dreamt)), dreams, dreamt.float().mean())

    def _of_truth(self, model: torch.nn.Module, lesson: Lesson) -> Tensor:
        """The loss of clips that are true throughout."""
        noisy, levels, taken = self._noised(lesson)
        target = self.target(noisy, taken, lesson.conditions, lesson.chunk, lesson.latents)
        velocity, _ = model(noisy, levels, lesson.conditions, chunk=lesson.chunk, remember=lesson.latents)
        return velocity_error(velocity, target, levels)

    def _of_dreams(self, model: torch.nn.Module, dreamer: WorldModel, lesson: Lesson) -> Tensor:
        """The loss of clips that go on from what the student makes itself.

        From where it was on its own way, each step is to lead to where the teacher arrives from the same noise. What
        all clips begin with passes without gradients: nothing is learnt there.
        """
        latents, noise, _, conditions, whole, chunk = lesson
        prefixes = prefix_lengths(lesson.noise_levels)
        start = int(prefixes.min())
        _, levels, taken = self._noised(lesson)
        dream = own_history(dreamer, self.sampler, latents, noise, levels, conditions, prefixes, chunk)
        seen = shown(whole["pose"], prefixes, 2 * self.teacher.config.recall_lengths[1])[:, start:]
        own = (torch.arange(latents.shape[1], device=latents.device) >= prefixes[:, None])[:, start:]  # (B, rest)

        rest, levels, taken = lesson.after(start), levels[:, start:], taken[:, start:]
        noised = (levels > 0)[:, :, None, None, None]
        taught = state_after(self.teacher, latents[:, :start], Conditions(whole)[:start], chunk)
        noisy = torch.where(noised, rest.noise, rest.latents)
        there = self._walk(noisy, torch.where(levels > 0, 0, taken), taken + 1, rest.whole, chunk, rest.latents, taught)
        target = self._velocity(dream.way, there, taken)
        velocity, _ = model(dream.way, levels, rest.conditions, dream.state, chunk, dream.history, write_noise(own))
        return velocity_error(velocity, target, levels, seen)

    def _noised(self, lesson: Lesson) -> tuple[Tensor, Tensor, Tensor]:
        """Noisy latents, their levels (B, T), and how many steps of the student lead there, see `target`."""
        schedule = lesson.noise_levels.new_tensor(self.sampler.levels()).flip(0)  # from clean to noise
        places = torch.searchsorted(schedule, lesson.noise_levels.contiguous())  # 0: clean
        levels = schedule[places]
        return add_noise(lesson.latents, lesson.noise, levels), levels, self.sampler.steps - places

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
        return self._velocity(noisy, self._walk(noisy, taken, taken + 1, conditions, chunk, latents), taken)

    def _velocity(self, here: Tensor, there: Tensor, taken: Tensor) -> Tensor:
        """That which leads from latents after so many steps of the student, (B, T), to others after one more."""
        schedule = here.new_tensor([*self.sampler.levels(), 0.0])
        length = (schedule[taken] - schedule[taken + 1])[:, :, None, None, None]
        return (here - there) / torch.where(length > 0, length, 1.0)

    @torch.no_grad()
    def _walk(
        self,
        x: Tensor,
        begin: Tensor,
        end: Tensor,
        conditions: Mapping[str, Tensor],
        chunk: int,
        latents: Tensor | None = None,
        state: ModelState | None = None,
    ) -> Tensor:
        """Where the teacher gets from latents after `begin` steps of the student, when it has taken `end`, (B, T) each.

        Args:
            x: (B, T, C, h, w).
            latents: (B, T, C, h, w) the clean ones, for a memory by least squares.
            state: the teacher's before these frames; None: the clips begin with nothing.
        """
        span = self.teacher_sampler.steps // self.sampler.steps
        schedule = x.new_tensor(self.teacher_sampler.levels())
        begin, end = (span * steps.clamp(max=self.sampler.steps) for steps in (begin, end))
        moving, guides = (end > begin)[:, :, None, None, None], self.teacher_sampler.guidance > 0
        known = None if latents is None else self.teacher.recollect_clip(latents, conditions, chunk, state)
        guidance = guidance_of(self.teacher, self.teacher_sampler, known)

        def velocity(x: Tensor, level: Level) -> Tensor:
            levels = torch.as_tensor(level).flatten(1)  # (B, T)
            found = self.teacher(x, levels, conditions, state, chunk, recollection=known)[0]
            if guides:
                without = self._without_memory(found, x, levels, conditions, chunk, latents)
                found = guided(found, without, guidance)
            return found * moving

        def level(step: int) -> Tensor:
            return schedule[torch.minimum(begin + step, end)][:, :, None, None, None]

        for step in range(int((end - begin).max())):
            x = self.teacher_sampler.advance(velocity, x, level(step), level(step + 1))
        return x

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
