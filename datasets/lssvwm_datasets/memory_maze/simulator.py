"""Acting in the real Memory Maze, step by step."""

import gc
import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lssvwm_datasets.memory_maze.constants import SIZES
from lssvwm_datasets.memory_maze.environment import fast_physics, make_environment, set_up_process
from lssvwm_datasets.memory_maze.explorer import Navigator
from lssvwm_datasets.simulation import Simulator

CAMERA, BORDER = "walker/egocentric", 2  # the agent's eyes; pixels in the colour of the target, per 64


class MazeEpisode:
    """An episode, as `simulation.Simulation` describes it; the target that is asked for shows as the frame's border.

    Frames take most of an episode's time, so that only those are drawn that somebody looks at.
    """

    _frame: NDArray[np.uint8] | None

    def __init__(self, environment: Any) -> None:
        self._environment = environment
        first = environment.reset()
        physics, self._shape = environment.physics, first.observation["image"].shape
        self._render, physics.render = physics.render, lambda **options: np.zeros(self._shape, np.uint8)
        self._see(first)
        self.layout = np.array(self._seen["maze_layout"], np.uint8)
        self.targets = np.array(self._seen["targets_pos"], np.float32)

    @property
    def frame(self) -> NDArray[np.uint8]:
        """(H, W, 3), as the environment would have observed it."""
        if self._frame is None:
            height, width, _ = self._shape
            border = int(BORDER * math.sqrt(height // 64))
            inside = (slice(border, -border),) * 2
            frame = np.empty(self._shape, np.uint8)
            frame[:] = self._seen["target_color"] * 255 * 0.7
            frame[inside] = self._render(height=height, width=width, camera_id=CAMERA)[inside]
            self._frame = frame
        return self._frame

    @property
    def wanted(self) -> int:
        """The number of the target that is asked for."""
        return int(np.abs(self.targets - self._seen["target_pos"]).sum(axis=1).argmin())

    def step(self, action: int) -> float:
        """Take an action; returns the reward: 1 where the target that was asked for is reached."""
        moment = self._environment.step(action)
        self._see(moment)
        return float(moment.reward or 0.0)

    def _see(self, moment: Any) -> None:
        self._seen, self._frame = moment.observation, None
        self.pose = np.concatenate([self._seen["agent_pos"], self._seen["agent_dir"]]).astype(np.float32)


@contextmanager
def open_episode(size: str, seed: int) -> Iterator[MazeEpisode]:
    """The episode of a seed, as `lssvwm record maze` records it when the same actions are taken."""
    with fast_physics():
        environment = make_environment(size, seed)
        try:
            yield MazeEpisode(environment)
        finally:
            environment.close()
            gc.collect()  # camera and physics refer to each other


SIMULATOR = Simulator(open_episode, Navigator, SIZES, set_up_process)
