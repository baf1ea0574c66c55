"""The loop of every rollout: see frames, sample a chunk, show it, let the memory see it (paper, 'Inference').

    rollout = world.rollout(seed=0)
    rollout.observe(frames, conditions)            recorded frames that the world sees first
    for chunk in rollout.run(more_conditions):     at constant cost and memory, however long it goes on
        show(chunk.frames)

A game asks for one chunk at a time: `sample`, show it, `commit`. Nothing here knows of tasks, videos or environments.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lssvwm_core.conditions import Conditions
from lssvwm_core.model.recent import Recent
from lssvwm_core.model.state import ModelState
from lssvwm_datasets.errors import LssvwmError

if TYPE_CHECKING:
    from lssvwm_core.world import World


class Chunk:
    """Frames that were generated together.

    Attributes:
        latents: (B, c, C, h, w), on the world's device.
        conditions: what led to them.
        certainty: (B, c) in [0, 1], how well each place was known before it was generated: 0 where it is new, 1 where
            it was recorded, a little less where the world made it up before. None for a world without a memory by least
            squares.
    """

    def __init__(
        self, world: "World", latents: Tensor, conditions: Conditions, certainty: Tensor | None = None
    ) -> None:
        self._world, self.latents, self.conditions, self.certainty = world, latents, conditions, certainty

    @cached_property
    def frames(self) -> NDArray[np.uint8]:
        """The decoded frames: (c, H, W, 3) of one world, (B, c, H, W, 3) of several side by side."""
        return self._world.decode(self.latents[0] if len(self.latents) == 1 else self.latents)


class Rollout:
    """One world, or several side by side, that go on frame by frame.

    Args:
        seeds: a seed or a generator for each world of the batch. The same seed gives the same frames, whatever the
            batch.
        memory_cut: sample from the frames of the attention window alone, for comparison; may be changed at any time,
            as the memory itself goes on underneath. A sampler's guidance is then none.

    Attributes:
        state: the memory of everything seen and generated.
    """

    def __init__(self, world: "World", seeds: Sequence[int | torch.Generator] = (0,), memory_cut: bool = False) -> None:
        self.world, self.memory_cut = world, memory_cut
        self.reseed(*seeds)
        self.state = world.reset(self.batch)
        self._sampled: Chunk | None = None

    @property
    def batch(self) -> int:
        """Worlds side by side."""
        return len(self.generators)

    def reseed(self, *seeds: int | torch.Generator) -> None:
        """From now on, take the noise from these seeds or generators, one for each world."""
        self.generators = [torch.Generator().manual_seed(seed) if isinstance(seed, int) else seed for seed in seeds]

    @property
    def frames_seen(self) -> int:
        return self.state.frames_seen

    @property
    def recent(self) -> Recent:
        """The last frames, as many as a chunk attends to beside itself, and what led to them."""
        return self.state.recent

    def observe(self, frames: NDArray[np.generic] | Tensor, conditions: Conditions | None = None) -> None:
        """Let the memory see frames (uint8) or latents with their conditions; see `World.observe` for shapes."""
        self.world.observe(self.state, frames, conditions)

    def sample(self, conditions: Conditions) -> Chunk:
        """The next chunk, led by one row of conditions for each of its frames. `commit` is to follow.

        Raises: LssvwmError when its numbers are not finite.
        """
        with _kept_finite():
            state = self.world.without_memory(self.state) if self.memory_cut else self.state
            recollection = self.world.recollect(state, conditions)
            latents = self.world.sample(state, conditions, self.generators, recollection)
            if not latents.isfinite().all():
                raise ArithmeticError("a frame is not finite")
        certainty = None if recollection is None else recollection.certainty(self.world.model.config.recall_ridge)
        self._sampled = Chunk(self.world, latents, conditions, certainty)
        return self._sampled

    def commit(self) -> None:
        """Let the memory see the chunk that was sampled last. Raises: LssvwmError when it cannot be put in there."""
        if self._sampled is None:
            raise ValueError("nothing was sampled since the last commit")
        chunk, self._sampled = self._sampled, None
        with _kept_finite():
            self.world.observe(self.state, chunk.latents, chunk.conditions, generated=True)

    def run(self, conditions: Conditions) -> Iterator[Chunk]:
        """Sample and commit chunk after chunk, as many as cover the conditions; each is yielded before its commit.

        Where the last chunk is not covered, the last row of conditions is repeated for the rest of it.
        """
        chunk = self.world.chunk
        conditions = conditions.padded(-(-conditions.frames // chunk) * chunk)
        for first in range(0, conditions.frames, chunk):
            yield self.sample(conditions[first : first + chunk])
            self.commit()

    def branch(self, world: "World", *seeds: int | torch.Generator) -> "Rollout":
        """An independent rollout that goes on from here, by the same world sampled otherwise and with other noise."""
        branch = Rollout(world, seeds, self.memory_cut)
        branch.state = self.state.copy()
        return branch

    def of_world(self, number: int) -> "Rollout":
        """An independent rollout of one of the worlds side by side, which goes on with the same noise."""
        generator = torch.Generator()
        generator.set_state(self.generators[number].get_state())
        one = Rollout(self.world, (generator,), self.memory_cut)
        one.state = self.state.of_world(number)
        return one

    @staticmethod
    def joined(rollouts: "Sequence[Rollout]") -> "Rollout":
        """Rollouts of the same world side by side, as a batch; each goes on as it would alone.

        Raises: ValueError where one of them has not filled its attention window yet and another has seen more.
        """
        first, window = rollouts[0], rollouts[0].world.model.config.frame_window
        seen = {min(rollout.frames_seen, window) for rollout in rollouts}
        if len(seen) > 1:
            raise ValueError(f"rollouts that have seen {sorted(seen)} frames; expected as many each, or {window}")
        generators = [generator for rollout in rollouts for generator in rollout.generators]
        both = Rollout(first.world, generators, first.memory_cut)
        both.state = ModelState.joined([rollout.state for rollout in rollouts])
        return both

    def save(self, path: Path, extra: Mapping[str, Tensor] | None = None) -> None:
        """Write all that is needed to go on as if nothing had happened; `extra` travels along."""
        generators = torch.stack([generator.get_state() for generator in self.generators])
        self.state.save(path, {**(extra or {}), "rng": generators[0] if self.batch == 1 else generators})

    def load(self, path: Path) -> dict[str, Tensor]:
        """Go back to what was saved, and return the extra tensors.

        Raises: LssvwmError when the file is damaged or of another model or batch; the rollout then stays as it was.
        """
        state = self.world.reset(self.batch)
        extra = state.restore(path)
        generators = extra.pop("rng", None)
        if generators is not None:
            self._restore_generators(path, generators)
        self.state, self._sampled = state, None
        return extra

    def _restore_generators(self, path: Path, saved: Tensor) -> None:
        states = saved.reshape(self.batch, -1) if saved.numel() % self.batch == 0 else saved[None]
        before = [generator.get_state() for generator in self.generators]
        try:
            for generator, state in zip(self.generators, states, strict=True):
                generator.set_state(state.clone())
        except (RuntimeError, TypeError, ValueError) as error:
            for generator, state in zip(self.generators, before, strict=True):
                generator.set_state(state.clone())
            raise LssvwmError(f"{path}: damaged: not the state of a random generator") from error


def episode_generator(seed: int, number: int) -> torch.Generator:
    """The noise of the `number`-th episode of an evaluation: a stream of its own, whatever else is rolled out."""
    return torch.Generator().manual_seed(int(np.random.SeedSequence([seed, number]).generate_state(1)[0]))


@contextmanager
def _kept_finite() -> Iterator[None]:
    """Tells in words that the numbers of a memory, though finite, lead to others that are not."""
    try:
        yield
    except (ArithmeticError, torch.linalg.LinAlgError) as error:  # type: ignore[attr-defined]
        raise LssvwmError(
            f"no frame follows: the numbers of the world's memory or weights run away ({error}); start anew, or go on "
            "from another saved state"
        ) from error
