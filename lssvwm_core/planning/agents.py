"""Agents that act in a real environment: one that plans by what a world remembers, and those it is measured against."""

import math
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from lssvwm_core.conditions import Conditions
from lssvwm_core.model.sight_head import SightHead
from lssvwm_core.planning.places import EVERY, around, imagined_views, votes
from lssvwm_core.world import World
from lssvwm_datasets.environment import Environment
from lssvwm_datasets.simulation import Simulation

SURE = 0.5  # probability from which on a target counts as seen in a real frame
THERE = 0.2  # cells: nearer to the middle of a cell than this, the agent has been there, and touched what is there
CLEARLY = 1.2  # times the votes of its goal lead an agent elsewhere
REACHED = 10.0  # votes for the cell in which a target was reached
STILL, PATIENCE, UNSTICK = 0.02, 8, 5  # cells that count as moving; steps without; random actions then


@dataclass(frozen=True)
class Walk:
    """What every agent of an episode has seen before it acts.

    Attributes:
        frames: (T, H, W, 3) uint8.
        actions: (T, A) float32, row 0 zeros.
        poses: (T, P) float32.
        moves: the numbers of the T - 1 actions.
    """

    frames: NDArray[np.uint8]
    actions: NDArray[np.float32]
    poses: NDArray[np.float32]
    moves: list[int]


class Agent(Protocol):
    def act(self, episode: Simulation) -> int:
        """The number of the next action."""


class Oracle:
    """Knows the map and where every target is."""

    def __init__(self, environment: Environment, episode: Simulation, rng: np.random.Generator) -> None:
        assert environment.simulator is not None
        self.navigator, self.rng = environment.simulator.navigator(episode.layout), rng

    def act(self, episode: Simulation) -> int:
        x, y = episode.targets[episode.wanted]
        action = self.navigator.act(episode.pose, (float(x), float(y)))
        return 0 if action is None else action


class Wanderer:
    """The environment's explorer: knows the map, and goes anywhere."""

    def __init__(self, environment: Environment, episode: Simulation, rng: np.random.Generator) -> None:
        explorer = environment.explorer(episode.layout, rng) if environment.explorer is not None else None
        assert explorer is not None  # `check` has asked for one
        self.explorer = explorer

    def act(self, episode: Simulation) -> int:
        return self.explorer.act(episode.pose)


class Planner:
    """Goes where a world remembers the target that is asked for, over cells that the agent has stood in or beside.

    Before it acts it imagines the views from poses of its walk, which vote for the cells that each target may be in
    (`places`); of the walk it keeps its poses, no frames. While it acts, every real frame votes too, and a target that
    was reached is known. It goes to the cell with the most votes. Where the target is not there, the votes around that
    cell are taken back, as far as they were for it, and it goes to the next.

    Args:
        memory_cut: imagine from the frames of the attention window alone: the same planner, and nothing remembered.
    """

    def __init__(
        self,
        environment: Environment,
        world: World,
        head: SightHead,
        walk: Walk,
        side: int,
        rng: np.random.Generator,
        memory_cut: bool = False,
    ) -> None:
        assert environment.simulator is not None
        assert environment.plane is not None
        self.moves = len(environment.move_names)
        self.world, self.head, self.plane, self.rng = world, head, environment.plane, rng
        self.stood = np.zeros((side, side), bool)
        self.known = np.zeros((side, side), np.uint8)  # 1: a cell to walk over, where it has stood, and its goal
        self.navigator = environment.simulator.navigator(self.known)
        for pose in walk.poses:
            self._stand(pose)
        rollout = world.rollout(0, memory_cut)
        told = Conditions(action=walk.actions, pose=walk.poses).only(world.model.config.streams)
        rollout.observe(walk.frames, told)
        ends = np.arange(world.chunk - 1, len(walk.poses), EVERY)
        looked_from = np.stack([walk.poses[end - world.chunk + 1 : end + 1] for end in ends])  # (M, c, P)
        views = imagined_views(rollout, looked_from, seed=0)
        self.votes = votes(head, views, walk.poses[ends], self.plane, side)
        self.ruled_out = np.zeros((side, side), bool)  # cells in which the target was not found
        self._wanted, self._goal = -1, self._stand(walk.poses[-1])  # goal: row and column
        self._last, self._still, self._random_actions = (math.inf, math.inf), 0, 0

    def act(self, episode: Simulation) -> int:
        row, column = self._stand(episode.pose)
        if episode.wanted != self._wanted:
            if self._wanted >= 0:  # it was reached here, so that no other is here
                self._take_back([other for other in range(len(self.votes)) if other != self._wanted], row, column)
                self.votes[self._wanted, row, column] += REACHED
            self._wanted = episode.wanted
            self.ruled_out[:] = False
        views = self.world.encode(episode.frame[None])
        self.votes += votes(self.head, views, episode.pose[None], self.plane, len(self.known), SURE)
        x, y = float(episode.pose[self.plane.x]), float(episode.pose[self.plane.y])
        if self._is_stuck(x, y):
            self.ruled_out[self._goal] = True
            self._random_actions = UNSTICK
        if self._random_actions:
            self._random_actions -= 1
            return int(self.rng.integers(self.moves))
        if math.hypot(self._goal[1] + 0.5 - x, self._goal[0] + 0.5 - y) < THERE:
            self.ruled_out[self._goal] = True
            self._take_back([self._wanted], *self._goal)
        self._choose_goal()
        action = self.navigator.act(episode.pose, (self._goal[1] + 0.5, self._goal[0] + 0.5))
        if action is None:  # no known way leads there
            self.ruled_out[self._goal] = True
            return int(self.rng.integers(self.moves))
        return action

    def _stand(self, pose: NDArray[np.float32]) -> tuple[int, int]:
        """Note that the agent stands here; returns row and column."""
        row, column = int(pose[self.plane.y]), int(pose[self.plane.x])
        self.stood[row, column] = True
        return row, column

    def _take_back(self, targets: list[int], row: int, column: int) -> None:
        """These targets are not in this cell: what spoke for it counts no longer around it."""
        shape = around(np.array(column + 0.5), np.array(row + 0.5), len(self.known))
        self.votes[targets] = np.maximum(
            0.0, self.votes[targets] - self.votes[targets, row, column, None, None] * shape
        )

    def _is_stuck(self, x: float, y: float) -> bool:
        moved = math.hypot(x - self._last[0], y - self._last[1])
        self._still, self._last = (0 if moved > STILL else self._still + 1), (x, y)
        if self._still <= PATIENCE:
            return False
        self._still = 0
        return True

    def _choose_goal(self) -> None:
        """The cell with the most votes, once it has clearly more than the present goal; any, when all are ruled out."""
        open_to = beside(self.stood) & ~self.ruled_out
        if not open_to.any():
            self.ruled_out[:] = False
            open_to = self.stood
        found = np.where(open_to, self.votes[self._wanted], -1.0)
        best = np.unravel_index(found.argmax(), found.shape)
        if not open_to[self._goal] or found[best] > CLEARLY * found[self._goal]:
            self._goal = int(best[0]), int(best[1])
        self.known[:] = self.stood
        self.known[self._goal] = 1


def beside(cells: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """These cells, and those to their four sides."""
    found = cells.copy()
    found[1:] |= cells[:-1]
    found[:-1] |= cells[1:]
    found[:, 1:] |= cells[:, :-1]
    found[:, :-1] |= cells[:, 1:]
    return found
