"""A world being played: an action in, a frame out, one at a time; and its saved moments.

A recorded start gives the frames that the world sees first. From then on the place is reckoned from the actions.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lssvwm_core.conditions import Conditions
from lssvwm_core.episodes import EncodedEpisode, load_episode
from lssvwm_core.model.state import ModelState
from lssvwm_core.place import Place
from lssvwm_core.play.slots import Slots
from lssvwm_core.rollout import Rollout
from lssvwm_core.world import World
from lssvwm_datasets.environments import environment_of, moves_of
from lssvwm_datasets.errors import LssvwmError

MAX_SEED = 2**31 - 1
TRIED_STEPS = 2  # from a moment that is loaded; the second one shows what the first did to the memory


class Game:
    """One world, one frame at a time.

    Attributes:
        rollout: the world going on: its memory, and whether that is cut.
        frame: (H, W, 3) uint8, the last one.
        place: where the agent stands, as far as that is known.
        generated: frames since the last jump.
        certainty: how well the place of the last frame was known before, see `Chunk`; None where nobody can tell.
        scene: counts the jumps: restarts and loads.
        actions_only: tell the world no poses.
        slots: the saved moments.
        moves: names of what can be chosen in a step (`environments.moves_of`).
        keys: the number of the move that each key stands for; 1 to 9 where the environment does not say.
        idle: the move that stands for no key; None, a row of zeros, where the environment is unknown.
    """

    rollout: Rollout
    frame: NDArray[np.uint8]
    place: Place
    generated: int
    certainty: float | None

    def __init__(self, world: World, source: Path, slots: Path, context: int = 100, seed: int = 0) -> None:
        """Start at the first validation episode of `source`. Raises: LssvwmError."""
        if 1 not in world.model.config.chunk_sizes:
            raise LssvwmError(f"the world was trained for chunks of {world.model.config.chunk_sizes}; play needs 1")
        self.source, self.slots, self.context, self.seed = source, Slots(slots), context, seed
        self.environment = environment_of(world.header)
        self.moves, self._rows = moves_of(world.header)
        keys = self.environment.keys if self.environment is not None else {}
        self.keys = {key: self.moves.index(move) for key, move in keys.items()} or {
            str(number + 1): number for number in range(min(9, len(self.moves)))
        }
        self.idle = self.moves.index(self.environment.idle) if self.environment is not None else None
        self.rollout = replace(world, chunk=1).rollout(seed)
        self.actions_only = False
        self.scene = 0
        self._episode: tuple[int, EncodedEpisode] | None = None
        self.restart(0, 0)

    @property
    def world(self) -> World:
        return self.rollout.world

    @property
    def state(self) -> ModelState:
        """The memory of everything seen and generated."""
        return self.rollout.state

    @property
    def cut_memory(self) -> bool:
        """Generate from the frames of the attention window alone; the memory itself goes on underneath."""
        return self.rollout.memory_cut

    @cut_memory.setter
    def cut_memory(self, cut: bool) -> None:
        self.rollout.memory_cut = cut

    def set_steps(self, steps: int) -> None:
        """Take so many denoising steps a frame from now on."""
        self.rollout.world = self.world.sampled_with(steps)

    def set_seed(self, seed: int) -> None:
        self.seed = seed
        self.rollout.reseed(seed)

    def step(self, move: int | None) -> NDArray[np.uint8]:
        """Make a move, by its number, and return the frame it leads to: `show`, `commit`."""
        frame = self.show(move)
        self.commit()
        return frame

    def show(self, move: int | None) -> NDArray[np.uint8]:
        """The frame that a move leads to; `commit` is to follow, when the frame has been shown."""
        place, conditions = self._after(self.place, move)
        chunk = self.rollout.sample(conditions)
        self.frame = chunk.frames[0]
        self.certainty = None if chunk.certainty is None else float(chunk.certainty)
        self.place = place
        self.generated += 1
        return self.frame

    def commit(self) -> None:
        """Let the memory see the frame that was just shown."""
        self.rollout.commit()

    def restart(self, episode: int, first: int) -> None:
        """See `context` frames of a recording, from frame `first` on, and forget all else. Raises: LssvwmError."""
        if self._episode is None or self._episode[0] != episode:
            self._episode = episode, load_episode(self.world, self.source, episode)
        recording = self._episode[1]
        rows = slice(first, first + self.context)
        if not 0 <= first <= len(recording) - self.context:
            raise LssvwmError(
                f"episode {recording.id} has {len(recording)} frames; no {self.context} of them begin at {first}"
            )
        poses = recording.poses[rows] if recording.poses is not None else None
        begun = Rollout(self.world, (self.seed,), self.cut_memory)
        begun.observe(recording.latents[rows], self._conditions(recording.actions[rows], poses))
        self._jump(begun, Place.recorded(self.environment, poses, recording.layout))

    def save(self, slot: str) -> None:
        """Keep this moment, in place of what the slot held. Raises: LssvwmError, OSError."""
        self.rollout.save(self.slots.to_save(slot), self.place.tensors())

    def branch(self, slot: str) -> None:
        """Keep this moment under a name that is not taken yet. Raises: LssvwmError, OSError."""
        self.rollout.save(self.slots.to_save(slot, replacing=False), self.place.tensors())

    def load(self, slot: str) -> None:
        """Go back to a saved moment, also one of `rollout --save-state`.

        Raises: LssvwmError, OSError; the game then goes on where it was.
        """
        file = self.slots.to_load(slot)
        loaded = Rollout(self.world, (self.seed,), self.cut_memory)
        tensors = loaded.load(file)
        place = Place.restored(self.environment, file, tensors)
        try:
            self._check_goes_on(loaded, place)
        except LssvwmError as error:
            raise LssvwmError(f"{file}: damaged: {error}") from error
        self._jump(loaded, place)

    def _check_goes_on(self, rollout: Rollout, place: Place) -> None:
        """Take some steps from a moment and forget them. Raises: LssvwmError when its numbers run away."""
        trial = rollout.branch(rollout.world, self.seed)
        for _ in range(TRIED_STEPS):
            place, conditions = self._after(place, self.idle)
            trial.sample(conditions)
            trial.commit()

    def _after(self, place: Place, move: int | None) -> tuple[Place, Conditions]:
        """The place that a move leads to, and the conditions of the frame there."""
        actions = np.zeros((1, len(self.world.header.action_names)), np.float32)
        if move is not None:
            actions[0] = self._rows[move]
            place = place.after(move)
        return place, self._conditions(actions, None if place.pose is None else place.pose[None])

    def _conditions(self, actions: NDArray[np.float32], poses: NDArray[np.float32] | None) -> Conditions:
        known = {"action": actions} if poses is None or self.actions_only else {"action": actions, "pose": poses}
        return Conditions(known).only(self.world.model.config.streams)

    def _jump(self, rollout: Rollout, place: Place) -> None:
        if rollout.recent.frames:
            self.frame = self.world.decode(rollout.recent.latents[0, -1:])[0]
        self.rollout, self.place = rollout, place
        self.scene += 1
        self.generated, self.certainty = 0, None
