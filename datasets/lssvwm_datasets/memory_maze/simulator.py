"""Acting in the real Memory Maze, step by step."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from lssvwm_datasets.memory_maze.constants import SIZES
from lssvwm_datasets.memory_maze.environment import fast_physics, make_environment, set_up_process
from lssvwm_datasets.memory_maze.explorer import Navigator
from lssvwm_datasets.simulation import Simulator


class MazeEpisode:
    """An episode, as `simulation.Simulation` describes it; the target that is asked for shows as the frame's border."""

    def __init__(self, environment: Any) -> None:
        self._environment = environment
        self._see(environment.reset())
        self.layout = np.array(self._seen["maze_layout"], np.uint8)
        self.targets = np.array(self._seen["targets_pos"], np.float32)

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
        self._seen = moment.observation
        self.frame = np.array(self._seen["image"])  # a copy: buffers are reused
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
