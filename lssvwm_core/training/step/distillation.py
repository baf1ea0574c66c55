"""Distils a world's sampler: the student makes in one step what its teacher makes in several.

Progressive distillation (Salimans & Ho, 2022) in a single round: one step of the student is to arrive where the
teacher's steps over the same noise levels arrive, by whatever samplers the two have. Of the few-step methods this one
leaves a world what it is, a network of the same shape under the same sampler, where a consistency model needs a sampler
that adds noise again and a shortcut model a network that is told the size of its step. A single round, because a
teacher here takes about 8 steps: no error of a student in between is learnt by the next.

The clip is that of any training: chunks with noise levels of their own after a clean prefix, in one parallel pass. All
chunks step together, so one that follows clean frames alone is stepped exactly as in a rollout.

What a teacher does by guidance, which costs it two evaluations a step, its student does in one (Meng et al., 2023).

A student may also learn from the mistakes that it makes when it goes on from its own frames (`own_history`): the truth
where that was shown, and elsewhere what its teacher would do there, who is told all conditions.
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
from lssvwm_core.sampling import Level, Sampler, Velocity, denoise, guidance_of, guided
from lssvwm_core.training.run.config import DistillConfig
from lssvwm_core.training.step.lesson import Lesson
from lssvwm_core.training.step.own_history import (
    after_prefix,
    own_history,
    prefix_lengths,
    shown,
    state_after,
    write_noise,
)
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
        """The loss of clips that go on from what the student makes itself, after the prefix of each.

        From where it is on its own way, a step is to lead to the truth where the prefix has shown that, elsewhere to
        where its teacher would go from there. Errors are of the clean latents that a velocity points to. What all clips
        begin with passes without gradients, and so do the states.
        """
        latents, noise, noise_levels, _, whole, chunk = lesson
        prefixes, schedule = prefix_lengths(noise_levels), self.sampler.levels()
        own = after_prefix(latents, prefixes)
        seen = shown(whole["pose"], prefixes, self.teacher.config.recall_lengths[1])[:, :, None, None, None]
        guide = _Guide(self.teacher, self.teacher_sampler, Conditions(whole), chunk)
        total = noise.new_zeros(len(latents))
        for rows, state, known, way, history in own_history(dreamer, self.sampler, lesson, prefixes):
            led = {name: told[:, rows] for name, told in lesson.conditions.items()}
            guide.follow(history[:, : rows.start], write_noise(own[:, : rows.start]))
            for step, (level, x) in enumerate(way.items()):
                levels = torch.full(x.shape[:2], level, device=x.device)
                velocity, _ = model(x, levels, led, state, chunk, recollection=known, keep=False)
                there = guide.goes(x, self._span(step))
                elsewhere, truth = (x - there) / (level - schedule[step + 1]), (x - latents[:, rows]) / level
                error = velocity - torch.lerp(elsewhere, truth, seen[:, rows])
                total = total + level**2 * (error.square().mean(dim=(2, 3, 4)) * own[:, rows]).sum(dim=1)
        return (total / (own.sum(dim=1) * self.sampler.steps)).mean()

    def _span(self, step: int) -> slice:
        """The steps of the teacher over one of the student's."""
        span = self.teacher_sampler.steps // self.sampler.steps
        return slice(step * span, (step + 1) * span)

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
        span = self._span(0).stop
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


class _Guide:
    """A teacher that follows a rollout of its student, and is told all conditions.

    Args:
        conditions: (B, T, columns) of each stream, of whole clips.
    """

    def __init__(self, teacher: WorldModel, sampler: Sampler, conditions: Conditions, chunk: int) -> None:
        self.teacher, self.sampler, self.conditions, self.chunk = teacher, sampler, conditions, chunk
        self.kept = teacher.config.recent_frames(chunk)
        self.state: ModelState | None = None
        self.cut: ModelState | None = None
        self.seen = 0

    def follow(self, history: Tensor, noise: Tensor) -> None:
        """See how the clips went on so far: all frames (B, T, C, h, w), and R of each for a memory by least squares."""
        seen, now = self.seen, history.shape[1]
        led, new = self.conditions, slice(seen, now)
        self.state = state_after(self.teacher, self.state, history[:, new], led[new], self.chunk, noise[:, new])
        self.seen = now
        if self.sampler.guidance and 0 < self.kept < now:
            last = slice(now - self.kept, now)
            self.cut = state_after(self.teacher, None, history[:, last], led[last], self.chunk)

    @torch.no_grad()
    def goes(self, x: Tensor, steps: slice) -> Tensor:
        """Where it gets by some of its steps from the next chunk (B, c, C, h, w), as it is before them."""
        assert self.state is not None
        led = self.conditions[self.seen : self.seen + x.shape[1]]
        return denoise(self.teacher, _Part(self.sampler, steps), x, led, self.state, cut=self.cut)


@dataclass(frozen=True)
class _Part:
    """Some steps of a sampler, from latents that are at the first of their levels already."""

    whole: Sampler
    of: slice
    temperature: float = 1.0

    @property
    def steps(self) -> int:
        return len(self.levels()) - 1

    @property
    def guidance(self) -> float:
        return self.whole.guidance

    def levels(self) -> tuple[float, ...]:
        return self.whole.levels()[self.of.start : self.of.stop + 1]

    def advance(self, velocity: Velocity, x: Tensor, now: Level, after: Level) -> Tensor:
        return self.whole.advance(velocity, x, now, after)


def load_distillation(folder: Path, config: DistillConfig, device: torch.device, student: WorldModel) -> Distillation:
    """The objective of a run; `folder` is the teacher's. Raises: LssvwmError."""
    teacher = load_model(folder)[0].to(device).requires_grad_(False).train()
    return Distillation(teacher, config.taught, config.sampler, student if config.own_history else None)
