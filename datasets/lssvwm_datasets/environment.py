"""What the toolkit knows about an environment: one record, from which recording, rollouts, scores and play are driven.

Adding an environment is a module with such a record and a line in `environments.ENVIRONMENTS`; `lssvwm record`,
`prepare`, `rollout`, `eval turn` and `play` then know it. What an agent can do in a step is a move, by its number: a
row of the action's columns. Where the record names no moves, each column is one of its own (one-hot).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from lssvwm_datasets.format import Format
from lssvwm_datasets.poses import Plane, plane_of
from lssvwm_datasets.recorder import Recorder
from lssvwm_datasets.simulation import Simulator

Layout = NDArray[np.uint8]  # (N, N), 1 = free, indexed [y, x] with row 0 at the bottom
Pose = NDArray[np.float32]  # (P,), the columns that the environment names


class Explorer(Protocol):
    """An agent that sees much of the world."""

    def act(self, pose: Pose, /) -> int:
        """The number of the next move at `pose`."""


@dataclass(frozen=True)
class FullTurn:
    """The move that turns the agent on the spot, and how many frames of it bring the first view back."""

    move: str
    frames: int


@dataclass(frozen=True)
class Environment:
    """An environment as data; what it lacks is None or empty, and what needs it then does without or says so.

    Attributes:
        name: by which commands know it; also the default `dataset` of its shards.
        title: its name for people.
        action_names: columns of its actions.
        action_units: one a column: `one-hot`, `binary`, `degrees`; empty: one-hot.
        moves: {name: {column: value}} what can be chosen in a step; columns left out are 0. Empty: each alone, 1.
        pose_names: columns of its recordings' poses; empty where they have none.
        pose_kinds: what each of these columns is (`poses`); empty: what its name says.
        fps: frames a second of recorded time.
        idle: the move that does nothing; it stands for keys that are let go.
        keys: {key: move} for playing. Keys are letters, digits, and ArrowUp, ArrowDown, ArrowLeft, ArrowRight.
        explorer: (layout or None, random generator) -> an agent that explores; None where it cannot without a layout.
        kinematics: (layout or None, pose, number of a move) -> the pose after it, stopped by the layout's walls.
        full_turn: how the agent turns around.
        recorder: how new episodes are recorded.
        simulator: how agents act in it for real, for `lssvwm plan`.
        format: how its recordings are read, where no other dataset's format does.
    """

    name: str
    title: str
    action_names: tuple[str, ...]
    pose_names: tuple[str, ...]
    fps: float
    idle: str
    keys: Mapping[str, str] = field(default_factory=dict)
    explorer: Callable[[Layout | None, np.random.Generator], Explorer | None] | None = None
    kinematics: Callable[[Layout | None, Pose, int], Pose] | None = None
    pose_kinds: tuple[str, ...] = ()
    full_turn: FullTurn | None = None
    recorder: Recorder | None = None
    simulator: Simulator | None = None
    format: Format | None = None
    action_units: tuple[str, ...] = ()
    moves: Mapping[str, Mapping[str, float]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        columns = {column for move in self.moves.values() for column in move}
        turning = [self.full_turn.move] if self.full_turn else []
        for what, named, known in (
            ("columns", columns, self.action_names),
            ("moves", {self.idle, *self.keys.values(), *turning}, self.move_names),
        ):
            if unknown := sorted(named - set(known)):
                raise ValueError(f"{self.name}: no {what} {', '.join(unknown)}; it has {', '.join(known)}")
        if not self.action_units:
            object.__setattr__(self, "action_units", ("one-hot",) * len(self.action_names))

    @property
    def move_names(self) -> tuple[str, ...]:
        """What can be chosen in a step, in the order of the numbers."""
        return tuple(self.moves) or self.action_names

    @property
    def move_rows(self) -> NDArray[np.float32]:
        """(moves, A) the action of every move."""
        moves = self.moves or {name: {name: 1.0} for name in self.action_names}
        rows = [[move.get(column, 0.0) for column in self.action_names] for move in moves.values()]
        return np.array(rows, np.float32)

    @property
    def plane(self) -> Plane | None:
        """Which columns of a pose tell where the agent stands on the ground and which way it looks; None: not all."""
        return plane_of(self.pose_names, self.pose_kinds)
