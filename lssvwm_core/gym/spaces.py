"""What an agent may do and what it sees: gymnasium's spaces, from the columns of a world's actions."""

from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from lssvwm_core.world import World
from lssvwm_datasets.environments import environment_of

DEVIATIONS = 4  # of a continuous column from its mean, in the data, that an agent may choose
DEGREES = 180.0  # either way, where nothing is known of the data


def observation_space(world: World) -> spaces.Box:
    """Frames: (H, W, 3) uint8."""
    return spaces.Box(0, 255, (*world.header.frame_size, 3), np.uint8)


def action_space(world: World) -> spaces.Space[Any]:
    """`Discrete` where one column of an action is 1, `MultiBinary` where each is 0 or 1, else a `Box`, one a column."""
    units = _units(world)
    if set(units) == {"one-hot"}:
        return spaces.Discrete(len(units))
    if set(units) <= {"one-hot", "binary"}:
        return spaces.MultiBinary(len(units))
    scaling = iter(world.model.config.action_scaling or ())
    low, high = np.zeros(len(units), np.float32), np.ones(len(units), np.float32)
    known = dict(zip(range(len(units)), scaling, strict=False))
    for column in world.header.continuous_actions:
        mean, std = known.get(column, (0.0, DEGREES / DEVIATIONS))
        low[column], high[column] = mean - DEVIATIONS * std, mean + DEVIATIONS * std
    return spaces.Box(low, high)


def rows_of(world: World, actions: Any) -> NDArray[np.float32]:
    """Actions of N worlds, as their space has them -> the rows (N, A) that the world is told.

    Raises: ValueError for actions that are not in the space.
    """
    units, space = _units(world), action_space(world)
    given = np.asarray(actions)
    if isinstance(space, spaces.Discrete):
        if given.ndim != 1 or given.dtype.kind not in "iu" or not ((given >= 0) & (given < len(units))).all():
            raise ValueError(f"actions {given}; expected whole numbers from 0 to {len(units) - 1}")
        return np.eye(len(units), dtype=np.float32)[given]
    if given.ndim != 2 or given.shape[1] != len(units) or not np.isfinite(given.astype(float)).all():
        raise ValueError(f"actions of shape {given.shape}; expected {len(units)} finite columns for each world")
    rows = given.astype(np.float32)
    held = [column for column in range(len(units)) if column not in world.header.continuous_actions]
    rows[:, held] = rows[:, held] >= 0.5
    return rows


def _units(world: World) -> tuple[str, ...]:
    """One a column; of worlds that do not say, those of their environment, else 0 or 1."""
    environment = environment_of(world.header)
    known = environment.action_units if environment is not None else ("binary",) * len(world.header.action_names)
    return world.header.action_units or known
