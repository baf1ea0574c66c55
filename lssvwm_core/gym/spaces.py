"""What an agent may do and what it sees: gymnasium's spaces, from the columns of a world's actions."""

from typing import Any, NamedTuple

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from lssvwm_core.world import World
from lssvwm_datasets.environments import listed_environment, moves_of

DEVIATIONS = 4  # of a continuous column from its mean, in the data, that an agent may choose
DEGREES = 180.0  # either way, where nothing is known of the data


def observation_space(world: World) -> spaces.Space[Any]:
    """Frames: (H, W, 3) uint8."""
    return spaces.Box(0, 255, (*world.header.frame_size, 3), np.uint8)


def action_space(world: World) -> spaces.Space[Any]:
    """What an agent chooses in a step.

    `Discrete` for the moves of an environment that is listed, and where one column of an action is 1; `MultiBinary`
    where each is 0 or 1; else a `Box`, one number a column, as for Minecraft's keys and camera.
    """
    units = _units(world)
    if listed_environment(world.header) is not None or set(units) == {"one-hot"}:
        return spaces.Discrete(len(moves_of(world.header)[0]))
    if set(units) <= {"one-hot", "binary"}:
        return spaces.MultiBinary(len(units))
    low, high = np.zeros(len(units), np.float32), np.ones(len(units), np.float32)
    known = dict(enumerate(world.model.config.action_scaling))
    for column in world.header.continuous_actions:
        mean, std = known.get(column, (0.0, DEGREES / DEVIATIONS))
        low[column], high[column] = mean - DEVIATIONS * std, mean + DEVIATIONS * std
    return spaces.Box(low, high)


class Choices(NamedTuple):
    """What N agents chose.

    Attributes:
        rows: (N, A) float32, what each world is told.
        moves: (N,) the numbers of the moves; None where actions are no moves.
    """

    rows: NDArray[np.float32]
    moves: NDArray[np.integer] | None


def choices(world: World, actions: Any) -> Choices:
    """Actions of N agents, as their space has them. Raises: ValueError for actions that are not in the space."""
    columns, space, given = len(world.header.action_names), action_space(world), np.asarray(actions)
    if isinstance(space, spaces.Discrete):
        if given.ndim != 1 or given.dtype.kind not in "iu" or not ((given >= 0) & (given < space.n)).all():
            raise ValueError(f"actions {given}; expected whole numbers from 0 to {space.n - 1}")
        return Choices(moves_of(world.header)[1][given], given)
    if given.ndim != 2 or given.shape[1] != columns or not np.isfinite(given.astype(float)).all():
        raise ValueError(f"actions of shape {given.shape}; expected {columns} finite columns for each world")
    rows = given.astype(np.float32)
    held = [column for column in range(columns) if column not in world.header.continuous_actions]
    rows[:, held] = rows[:, held] >= 0.5
    return Choices(rows, None)


def _units(world: World) -> tuple[str, ...]:
    """One a column; of worlds that do not say, 0 or 1."""
    return world.header.action_units or ("binary",) * len(world.header.action_names)
