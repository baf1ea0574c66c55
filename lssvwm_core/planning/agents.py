"""Agents that act in a real environment: one that plans by what a world remembers, and those it is measured against."""

import math
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from lssvwm_core.conditions import Conditions
from lssvwm_core.model.sight_head import SightHead
from lssvwm_core.planning.places import EVERY, imagined_views, places_on_map, votes
from lssvwm_core.world import World
from lssvwm_datasets.environment import Environment
from lssvwm_datasets.simulation import Simulation

SURE = 0.5  # probability of a target that is taken for seen
THERE = 0.5  # cells: nearer to a place than this, the agent has been there
RULED_OUT = 1.5  # cells around a place where the target was not found
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
    """Goes where a world remembers the target that is asked for; walks over cells that the agent has stood in.

    Before it acts it imagines the views from poses of its walk (`places`), and so has votes for the cells that each
    target may be in. It goes to the best of them; where the target is not there, to the next. A target in sight in the
    real frame is walked up to. Of the walk it keeps its poses, no frames.

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
        self.stood = np.zeros((side, side), np.uint8)  # 1: a cell that the agent has stood in
        self.known = self.stood.copy()  # those, and the way to a target in sight
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
        self._wanted, self._left = -1, self.votes[0]
        self._goal: tuple[float, float] | None = None
        self._last, self._still, self._random_actions = (math.inf, math.inf), 0, 0

    def act(self, episode: Simulation) -> int:
        x, y = self._stand(episode.pose)
        if episode.wanted != self._wanted:
            self._wanted, self._left, self._goal = episode.wanted, self.votes[episode.wanted].copy(), None
        if self._is_stuck(x, y):
            self._give_up()
            self._random_actions = UNSTICK
        if self._random_actions:
            self._random_actions -= 1
            return int(self.rng.integers(self.moves))
        if (seen := self._in_sight(episode)) is not None:
            self._goal = seen
            self._free_way((x, y), seen)
        elif self._goal is None or math.hypot(self._goal[0] - x, self._goal[1] - y) < THERE:
            self._give_up()
            self._goal = self._next_place()
        action = None if self._goal is None else self.navigator.act(episode.pose, self._goal)
        if action is None:  # no known way leads there
            self._give_up()
            return int(self.rng.integers(self.moves))
        return action

    def _stand(self, pose: NDArray[np.float32]) -> tuple[float, float]:
        x, y = float(pose[self.plane.x]), float(pose[self.plane.y])
        self.stood[int(y), int(x)] = 1
        self.known[int(y), int(x)] = 1
        return x, y

    def _is_stuck(self, x: float, y: float) -> bool:
        moved = math.hypot(x - self._last[0], y - self._last[1])
        self._still, self._last = (0 if moved > STILL else self._still + 1), (x, y)
        if self._still <= PATIENCE:
            return False
        self._still = 0
        return True

    def _free_way(self, start: tuple[float, float], goal: tuple[float, float]) -> None:
        """Take the cells between for free: what is seen has no wall before it."""
        self.known[:] = self.stood
        for part in np.linspace(0, 1, 20):
            self.known[int(start[1] + part * (goal[1] - start[1])), int(start[0] + part * (goal[0] - start[0]))] = 1

    @torch.inference_mode()
    def _in_sight(self, episode: Simulation) -> tuple[float, float] | None:
        """Where the target is that is asked for, if the real frame shows it; the way there is taken for free."""
        logits, seen_at = self.head(self.world.encode(episode.frame[None]))
        if logits[0, episode.wanted].sigmoid() < SURE:
            return None
        xs, ys = places_on_map(episode.pose[None], seen_at.double().cpu().numpy(), self.plane)
        last = len(self.known) - 0.01
        return float(xs[0, episode.wanted].clip(0, last)), float(ys[0, episode.wanted].clip(0, last))

    def _next_place(self) -> tuple[float, float]:
        """The cell with the most votes of those where it has stood; any of them where no votes are left."""
        left = np.where(self.stood == 1, self._left, 0.0)
        if left.max() > 0:
            row, column = np.unravel_index(left.argmax(), left.shape)
        else:
            cells = np.argwhere(self.stood)
            row, column = cells[self.rng.integers(len(cells))]
        return float(column) + 0.5, float(row) + 0.5

    def _give_up(self) -> None:
        """The target is not at the goal, or no way leads there: take the votes away from around it."""
        if self._goal is not None:
            rows, columns = np.indices(self._left.shape) + 0.5
            self._left[np.hypot(columns - self._goal[0], rows - self._goal[1]) < RULED_OUT] = 0
        self.known[:] = self.stood
        self._goal = None
