"""The environments that the toolkit knows: one line each."""

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from lssvwm_datasets.environment import Environment
from lssvwm_datasets.errors import LssvwmError
from lssvwm_datasets.luanti.luanti import LUANTI
from lssvwm_datasets.memory_maze.maze import MAZE
from lssvwm_datasets.minecraft_play import MinecraftColumns, minecraft_of

ENVIRONMENTS = {
    environment.name: environment
    for environment in (
        MAZE,
        LUANTI,
    )
}  # fmt: skip


class Columns(MinecraftColumns, Protocol):
    """What tells an environment: of a shard's header, for example."""

    @property
    def dataset(self) -> str: ...


def environment_of(columns: Columns) -> Environment | None:
    """The environment that data are from: that of their columns, else Minecraft where they have its controls.

    None where there is none.
    """
    return listed_environment(columns) or minecraft_of(columns)


def listed_environment(columns: Columns) -> Environment | None:
    """The environment of `ENVIRONMENTS` that has the data's actions, and their poses where they have any.

    Of several, the one that the data set is named after. None where there is none.
    """
    fitting = [
        environment
        for environment in ENVIRONMENTS.values()
        if environment.action_names == columns.action_names and columns.pose_names in ((), environment.pose_names)
    ]
    return next((one for one in fitting if one.name == columns.dataset), fitting[0] if fitting else None)


def moves_of(columns: Columns) -> tuple[tuple[str, ...], NDArray[np.float32]]:
    """What can be chosen in a step: names, and (moves, A) their actions; in an unknown environment columns."""
    environment = environment_of(columns)
    if environment is None:
        return columns.action_names, np.eye(len(columns.action_names), dtype=np.float32)
    return environment.move_names, environment.move_rows


def environment_named(name: str) -> Environment:
    """The environment of a name. Raises: LssvwmError where there is none."""
    if name not in ENVIRONMENTS:
        raise LssvwmError(f"no environment {name!r}; expected one of {', '.join(ENVIRONMENTS)}")
    return ENVIRONMENTS[name]
