"""N worlds side by side, each at a moment of its own; one pass of the model takes a step of all of them."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from lssvwm_core.conditions import Conditions
from lssvwm_core.episodes import EncodedEpisode, episode_count, load_episode
from lssvwm_core.gym.reward import Imagined, Reward
from lssvwm_core.gym.spaces import Choices
from lssvwm_core.place import Place
from lssvwm_core.resolve import resolve_data
from lssvwm_core.rollout import Rollout
from lssvwm_core.world import World
from lssvwm_datasets.environments import environment_of
from lssvwm_datasets.errors import LssvwmError

EPISODES_KEPT = 8  # recorded ones, encoded, that worlds begin from
SEEDS = 2**31


@dataclass(frozen=True)
class Moment:
    """Where one world stands: all that is needed to go on from there.

    Attributes:
        rollout: of one world; copied when it is gone on from, never run.
        place: where the agent stands, as far as that is known.
    """

    rollout: Rollout
    place: Place

    def save(self, path: Path) -> None:
        """Write a file that `options={"state": path}`, `lssvwm play` and `lssvwm rollout --load-state` go on from."""
        self.rollout.save(path, self.place.tensors())


class Imagination:
    """The worlds, and what they look like now.

    Args:
        world: its `chunk` is the frames that an action leads to.
        source: shards or recordings, from whose held-out episodes the worlds begin; None: see `resolve_data`.
        count: N.
        context: recorded frames that a world sees first.
        actions_only: tell the world no poses, though the environment's kinematics tell them.

    Attributes:
        frames: (N, H, W, 3) uint8, the last of each world.
        places: where each agent stands.
    """

    frames: NDArray[np.uint8]
    rollout: Rollout

    def __init__(
        self, world: World, source: str | Path | None, count: int, reward: Reward, context: int, actions_only: bool
    ) -> None:
        self.world, self.reward, self.context, self.actions_only = world, reward, context, actions_only
        folder = resolve_data(source, world.header.dataset, samples=True)
        self.environment = environment_of(world.header)
        self.places = [Place(self.environment)] * count
        self.frames = np.zeros((count, *world.header.frame_size, 3), np.uint8)
        self._episodes = episode_count(folder, world)
        self._episode = lru_cache(EPISODES_KEPT)(partial(load_episode, world, folder))

    def recorded(self, rng: np.random.Generator, context: int | None = None, episode: int | None = None) -> Moment:
        """The moment after `context` frames of a held-out episode, any one where none is named; they begin anywhere.

        Raises: LssvwmError for a context that does not fill the attention window, or an episode that is too short.
        """
        context = self.context if context is None else int(context)
        window = self.world.model.config.frame_window
        if context < window:
            raise LssvwmError(f"context {context}: expected at least {window} frames, the attention window")
        number = int(rng.integers(self._episodes)) if episode is None else episode
        recording: EncodedEpisode = self._episode(number)
        if len(recording) < context:
            raise LssvwmError(f"context {context}: episode {recording.id} has {len(recording)} frames")
        first = int(rng.integers(len(recording) - context + 1))
        rows = slice(first, first + context)
        rollout = Rollout(self.world, (int(rng.integers(SEEDS)),))
        rollout.observe(recording.latents[rows], self._told(recording.conditions[rows]))
        poses = recording.poses[rows] if recording.poses is not None else None
        return Moment(rollout, Place.recorded(self.environment, poses, recording.layout))

    def saved(self, state: Moment | str | Path) -> Moment:
        """A moment that goes on from another, or from a file. Raises: LssvwmError, OSError."""
        if isinstance(state, Moment):
            return Moment(state.rollout.of_world(0), state.place)
        rollout = Rollout(self.world, (0,))
        tensors = rollout.load(Path(state))
        return Moment(rollout, Place.restored(self.environment, Path(state), tensors))

    def moment(self, number: int) -> Moment:
        """The moment that a world is at now: a branch, whatever happens to the world afterwards."""
        return Moment(self.rollout.of_world(number), self.places[number])

    def begin(self, moments: Mapping[int, Moment]) -> None:
        """Let the worlds of these numbers go on from other moments; the first time, all of them."""
        count = len(self.places)
        self.rollout = Rollout.joined(
            [moments[number].rollout if number in moments else self.rollout.of_world(number) for number in range(count)]
        )
        self.places = [moments[k].place if k in moments else place for k, place in enumerate(self.places)]
        shown = sorted(moments)
        self.frames = self.frames.copy()
        self.frames[shown] = self.world.decode(self.rollout.recent.latents[shown, -1:])[:, 0]

    def step(self, actions: Choices) -> NDArray[np.float64]:
        """Take a step of every world by one pass of the model; an action leads to every frame of the chunk.

        Returns: the rewards (N,).
        """
        moves = [None] * len(self.places) if actions.moves is None else actions.moves.tolist()
        poses = np.stack([self._walk(number, move) for number, move in enumerate(moves)])  # (N, c, P)
        rows = Conditions(action=np.repeat(actions.rows[:, None], self.world.chunk, axis=1), pose=poses)
        before = self.rollout.recent.latents[:, -1]
        sampled = self.rollout.sample(self._told(rows))
        self.rollout.commit()
        self.frames = self.world.decode(sampled.latents[:, -1:])[:, 0]
        imagined = Imagined(self.world, before, sampled.latents, sampled.conditions, self.rollout.state)
        return np.asarray(self.reward(imagined), np.float64)

    def _walk(self, number: int, move: int | None) -> NDArray[np.float32]:
        """Let the agent of a world walk through a chunk; its poses (c, P), NaN where they are unknown."""
        columns = len(self.world.header.pose_names)
        poses = np.full((self.world.chunk, columns), np.nan, np.float32)
        if move is None:
            return poses
        for frame in range(self.world.chunk):
            self.places[number] = self.places[number].after(move)
            pose = self.places[number].pose
            if pose is not None:
                poses[frame] = pose
        return poses

    def _told(self, conditions: Conditions) -> Conditions:
        known = conditions.only(self.world.model.config.streams)
        return known.unknown("pose") if self.actions_only and "pose" in known else known


def seeded(rng: np.random.Generator, moment: Moment) -> Moment:
    """The same moment with other noise."""
    moment.rollout.reseed(torch.Generator().manual_seed(int(rng.integers(SEEDS))))
    return moment
