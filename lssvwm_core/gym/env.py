"""A world as a gymnasium environment, and as a vector environment that imagines N worlds in one pass.

    env = WorldEnv("maze-world", reward=my_reward)
    frame, info = env.reset(seed=0, options={"context": 100, "episode": 0})
    frame, reward, terminated, truncated, info = env.step(1)
    moment = env.branch()                            # later: env.reset(options={"state": moment})

An episode begins after some recorded frames, and ends (is truncated) after `steps`; a world has no end of its own.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from gymnasium.utils import seeding
from gymnasium.vector import AutoresetMode
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from lssvwm_core.gym.imagination import Imagination, Moment, seeded
from lssvwm_core.gym.reward import Reward, load_reward, nothing
from lssvwm_core.gym.spaces import action_space, choices, observation_space
from lssvwm_core.world import World, load_world
from lssvwm_datasets.errors import LssvwmError

Frame = NDArray[np.uint8]
CONTEXT, STEPS = 100, 500
OPTIONS = ("context", "episode", "state")


def imagine(
    world: World | str | Path | None,
    count: int,
    reward: Reward | str | Path | None,
    source: str | Path | None,
    chunk: int | None,
    context: int,
    actions_only: bool,
) -> Imagination:
    """What both environments are made of. See `WorldEnv`."""
    loaded = world if isinstance(world, World) else load_world(world)
    loaded = replace(loaded, chunk=min(loaded.model.config.chunk_sizes)).sampled_with(chunk=chunk)
    if isinstance(reward, str | Path):
        reward = load_reward(Path(reward), loaded)
    return Imagination(loaded, source, count, reward or nothing, context, actions_only)


def begun(imagination: Imagination, rng: np.random.Generator, options: Mapping[str, Any], reseed: bool) -> Moment:
    """The moment that an episode begins at. Raises: LssvwmError for options that there are not, or do not fit."""
    unknown = sorted(set(options) - set(OPTIONS))
    if unknown:
        raise LssvwmError(f"reset options {', '.join(unknown)}: unknown; expected some of {', '.join(OPTIONS)}")
    if (state := options.get("state")) is None:
        return imagination.recorded(rng, options.get("context"), options.get("episode"))
    if set(options) > {"state"}:
        raise LssvwmError("reset options: a state says where to begin; leave context and episode out")
    moment = imagination.saved(state)
    return seeded(rng, moment) if reseed else moment


class WorldEnv(gymnasium.Env[Frame, Any]):
    """One world, one action at a time.

    Args:
        world: a `World`, or a name as `load_world` takes it.
        reward: a function of an `Imagined` step, or the folder that `lssvwm train-reward` wrote; None: always 0.
        source: shards or recordings whose held-out episodes worlds begin from; None: prepared ones, else the samples.
        steps: after which an episode is truncated.
        chunk: frames that an action leads to, of which the last is seen; None: the fewest that the world knows.
        context: recorded frames that a world sees before its episode begins.
        actions_only: tell the world actions alone, no poses.

    `reset` takes options: `context`, in place of the environment's; `episode`, the number of the held-out recording;
    `state`, a moment of `branch` or a file of `save`, which goes on with the same noise unless a seed is given.
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"]}  # noqa: RUF012  (gymnasium declares it so)

    def __init__(
        self,
        world: World | str | Path | None = None,
        reward: Reward | str | Path | None = None,
        source: str | Path | None = None,
        steps: int = STEPS,
        chunk: int | None = None,
        context: int = CONTEXT,
        actions_only: bool = False,
        render_mode: str | None = None,
    ) -> None:
        self.imagination = imagine(world, 1, reward, source, chunk, context, actions_only)
        self.observation_space = observation_space(self.imagination.world)
        self.action_space = action_space(self.imagination.world)
        self.metadata = {**self.metadata, "render_fps": self.imagination.world.header.fps}
        self.steps, self.render_mode, self._taken = steps, render_mode, 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Frame, dict[str, Any]]:
        """Begin an episode. Raises: LssvwmError, OSError."""
        super().reset(seed=seed)
        moment = begun(self.imagination, self.np_random, options or {}, seed is not None)
        self.imagination.begin({0: moment})
        self._taken = 0
        return self.imagination.frames[0].copy(), self._info()

    def step(self, action: Any) -> tuple[Frame, float, bool, bool, dict[str, Any]]:
        """Take a step by an action. Raises: ValueError for an action that is not in the space."""
        rewards = self.imagination.step(choices(self.imagination.world, np.asarray(action)[None]))
        self._taken += 1
        return self.imagination.frames[0].copy(), float(rewards[0]), False, self._taken >= self.steps, self._info()

    def render(self) -> Frame | None:
        return self.imagination.frames[0].copy() if self.render_mode == "rgb_array" else None

    def branch(self) -> Moment:
        """This moment, to go on from any number of times."""
        return self.imagination.moment(0)

    def save(self, path: str | Path) -> None:
        """Write this moment to a file. Raises: OSError."""
        self.branch().save(Path(path))

    def _info(self) -> dict[str, Any]:
        pose = self.imagination.places[0].pose
        return {} if pose is None else {"pose": pose.copy()}


class WorldVectorEnv(gymnasium.vector.VectorEnv[Frame, Any, NDArray[Any]]):
    """N worlds, a step of all of them in one pass of the model; else as gymnasium's `SyncVectorEnv` of `WorldEnv`s.

    An episode that ended begins anew at the next step (`AutoresetMode.NEXT_STEP`). The seed of a reset is that of the
    first world; the next has seed + 1.
    """

    metadata: dict[str, Any] = {  # noqa: RUF012  (gymnasium declares it so)
        "render_modes": ["rgb_array"],
        "autoreset_mode": AutoresetMode.NEXT_STEP,
    }

    def __init__(
        self,
        num_envs: int = 1,
        world: World | str | Path | None = None,
        reward: Reward | str | Path | None = None,
        source: str | Path | None = None,
        steps: int = STEPS,
        chunk: int | None = None,
        context: int = CONTEXT,
        actions_only: bool = False,
        render_mode: str | None = None,
    ) -> None:
        self.imagination = imagine(world, num_envs, reward, source, chunk, context, actions_only)
        self.num_envs, self.steps, self.render_mode = num_envs, steps, render_mode
        self.single_observation_space = observation_space(self.imagination.world)
        self.single_action_space = action_space(self.imagination.world)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self.metadata = {**self.metadata, "render_fps": self.imagination.world.header.fps}
        self._rngs = [seeding.np_random()[0] for _ in range(num_envs)]
        self._taken, self._ended = np.zeros(num_envs, int), np.zeros(num_envs, bool)

    def reset(
        self, *, seed: int | list[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Frame, dict[str, Any]]:
        """Begin an episode in every world. Raises: LssvwmError, OSError."""
        if not isinstance(seed, list):
            seed = [None if seed is None else seed + number for number in range(self.num_envs)]
        if len(seed) != self.num_envs:
            raise ValueError(f"{len(seed)} seeds; expected one for each of {self.num_envs} worlds")
        moments = {}
        for number, one in enumerate(seed):
            if one is not None:
                self._rngs[number] = seeding.np_random(one)[0]
            moments[number] = begun(self.imagination, self._rngs[number], options or {}, one is not None)
        self.imagination.begin(moments)
        self._taken[:], self._ended[:] = 0, False
        return self.imagination.frames.copy(), self._infos()

    def step(
        self, actions: Any
    ) -> tuple[Frame, NDArray[np.float64], NDArray[np.bool_], NDArray[np.bool_], dict[str, Any]]:
        """Take a step of every world, each by its action. Raises: ValueError for actions that are not in the space."""
        again = self._ended.copy()
        rewards = self.imagination.step(choices(self.imagination.world, actions))
        self._taken += 1
        if again.any():
            fresh = {int(k): begun(self.imagination, self._rngs[k], {}, False) for k in np.flatnonzero(again)}
            self.imagination.begin(fresh)
            self._taken[again], rewards[again] = 0, 0.0
        self._ended = self._taken >= self.steps
        ended = np.zeros(self.num_envs, bool)
        return self.imagination.frames.copy(), rewards, ended, self._ended.copy(), self._infos()

    def render(self) -> tuple[Frame, ...] | None:
        return tuple(self.imagination.frames.copy()) if self.render_mode == "rgb_array" else None

    def branch(self, number: int) -> Moment:
        """The moment that one of the worlds is at; `WorldEnv` and this environment go on from it alike."""
        return self.imagination.moment(number)

    def _infos(self) -> dict[str, Any]:
        infos: dict[str, Any] = {}
        for number, place in enumerate(self.imagination.places):
            if place.pose is not None:
                infos = self._add_info(infos, {"pose": place.pose.copy()}, number)
        return infos
