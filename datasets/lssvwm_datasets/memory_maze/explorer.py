"""An agent that explores a maze, and the kinematics of its walk.

The explorer needs only the layout and the pose, so it drives the real environment when recording and, through
`walk`, a rollout whose recording has ended.
"""

import math
from collections import deque

import numpy as np
from numpy.typing import NDArray

NOOP, FORWARD, LEFT, RIGHT, FORWARD_LEFT, FORWARD_RIGHT = range(6)

TURN_PER_STEP = math.radians(18.4)  # steady turn, measured in the environment
CELLS_PER_STEP = 0.2497  # steady walk
WALL_MARGIN = 0.1  # the agent's distance to a wall, in cells

RANDOM_ACTION = 0.05  # probability a step
RANDOM_BURST = 0.02
BURST_STEPS = 5
PATIENCE = 8  # steps without progress before another goal is chosen


class Explorer:
    """Walks from one random free cell to the next by shortest paths, with some random actions between.

    Args:
        layout: (N, N) uint8, 1 = free, indexed [y, x] with row 0 at the bottom.
        rng: source of goals and random actions.
    """

    def __init__(self, layout: NDArray[np.uint8], rng: np.random.Generator) -> None:
        self.layout = layout
        self.rng = rng
        self.path: list[tuple[int, int]] = []
        self.burst = 0
        self.still = 0
        self.last_position = (math.inf, math.inf)

    def act(self, pose: NDArray[np.floating]) -> int:
        """The next action id (0..5) at pose (x, y, cos, sin), positions in cells."""
        x, y, cos, sin = (float(value) for value in pose)
        self._notice_progress(x, y)
        if self.burst == 0 and self.rng.random() < RANDOM_BURST:
            self.burst = BURST_STEPS
        if self.burst > 0:
            self.burst -= 1
            return int(self.rng.integers(6))
        if self.rng.random() < RANDOM_ACTION:
            return int(self.rng.integers(6))
        return towards(self._next_waypoint(x, y), x, y, math.atan2(sin, cos))

    def _notice_progress(self, x: float, y: float) -> None:
        moved = math.hypot(x - self.last_position[0], y - self.last_position[1])
        self.still = self.still + 1 if moved < 0.02 else 0
        self.last_position = (x, y)
        if self.still > PATIENCE:
            self.path, self.still = [], 0

    def _next_waypoint(self, x: float, y: float) -> tuple[float, float]:
        while self.path and math.hypot(self.path[0][0] + 0.5 - x, self.path[0][1] + 0.5 - y) < 0.3:
            self.path.pop(0)
        if not self.path:
            free = np.argwhere(self.layout)
            goal_y, goal_x = free[self.rng.integers(len(free))]
            self.path = shortest_path(self.layout, (int(x), int(y)), (int(goal_x), int(goal_y)))
        return (self.path[0][0] + 0.5, self.path[0][1] + 0.5) if self.path else (x, y)


class Navigator:
    """Walks to where it is sent by shortest paths over the free cells of a map."""

    def __init__(self, layout: NDArray[np.uint8]) -> None:
        self.layout = layout

    def act(self, pose: NDArray[np.floating], goal: tuple[float, float]) -> int | None:
        """The next action at pose (x, y, cos, sin) towards `goal`; None where no way leads there."""
        x, y, cos, sin = (float(value) for value in pose)
        here, there = (int(x), int(y)), (int(goal[0]), int(goal[1]))
        if here == there:
            waypoint = goal
        else:
            path = shortest_path(self.layout, here, there)
            if not path:
                return None
            waypoint = (path[0][0] + 0.5, path[0][1] + 0.5)
        return towards(waypoint, x, y, math.atan2(sin, cos))


def towards(waypoint: tuple[float, float], x: float, y: float, heading: float) -> int:
    """The action that leads from (x, y) straight to a waypoint."""
    if waypoint == (x, y):
        return FORWARD
    turn = math.remainder(math.atan2(waypoint[1] - y, waypoint[0] - x) - heading, math.tau)
    if abs(turn) < TURN_PER_STEP / 2:
        return FORWARD
    if abs(turn) < 2.5 * TURN_PER_STEP:
        return FORWARD_LEFT if turn > 0 else FORWARD_RIGHT
    return LEFT if turn > 0 else RIGHT


def explorer(layout: NDArray[np.uint8] | None, rng: np.random.Generator) -> Explorer | None:
    """An explorer of the layout; None where none is known."""
    return None if layout is None else Explorer(layout, rng)


def shortest_path(layout: NDArray[np.uint8], start: tuple[int, int], goal: tuple[int, int]) -> list[tuple[int, int]]:
    """Cells (x, y) from after `start` to `goal` over free cells, 4-connected; empty when there is no way."""
    came_from = {start: start}
    queue = deque([start])
    while queue and goal not in came_from:
        x, y = queue.popleft()
        for cell in ((x + 1, y), (x - 1, y), (x, y + 1), (x, y - 1)):
            if cell not in came_from and is_free(layout, cell[0] + 0.5, cell[1] + 0.5):
                came_from[cell] = (x, y)
                queue.append(cell)
    path: list[tuple[int, int]] = []
    cell = goal
    while cell in came_from and cell != start:
        path.append(cell)
        cell = came_from[cell]
    return path[::-1]


def is_free(layout: NDArray[np.uint8], x: float, y: float) -> bool:
    column, row = math.floor(x), math.floor(y)
    return 0 <= row < layout.shape[0] and 0 <= column < layout.shape[1] and bool(layout[row, column])


def walk(layout: NDArray[np.uint8] | None, pose: NDArray[np.floating], action: int) -> NDArray[np.float32]:
    """The pose after one action by steady-state kinematics: no inertia, sliding along walls.

    An approximation of the environment (which coasts a little), exact enough to name places for a pose-conditioned
    world. Without a layout there are no walls.
    """
    x, y, cos, sin = (float(value) for value in pose)
    heading = math.atan2(sin, cos)
    if action in (LEFT, FORWARD_LEFT):
        heading += TURN_PER_STEP
    elif action in (RIGHT, FORWARD_RIGHT):
        heading -= TURN_PER_STEP
    if action in (FORWARD, FORWARD_LEFT, FORWARD_RIGHT):
        step_x, step_y = CELLS_PER_STEP * math.cos(heading), CELLS_PER_STEP * math.sin(heading)
        if layout is None or is_free(layout, x + step_x + math.copysign(WALL_MARGIN, step_x), y):
            x += step_x
        if layout is None or is_free(layout, x, y + step_y + math.copysign(WALL_MARGIN, step_y)):
            y += step_y
    return np.array([x, y, math.cos(heading), math.sin(heading)], dtype=np.float32)
