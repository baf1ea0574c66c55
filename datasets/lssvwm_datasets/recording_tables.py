"""The actions and poses of a recording from the tables beside it, brought to one row a frame.

A row of actions belongs to a frame: its column `led_to` names the frame that the action led to, or `taken_at` the one
at which it was taken, to lead to the next. Without such a column `recording.toml` says it, and row 0 is of frame 0.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lssvwm_datasets.errors import DamagedRecording
from lssvwm_datasets.poses import HEADING, KINDS, OTHER, canonical
from lssvwm_datasets.recording_file import ANGLES, RECORDING_FILE, RecordingFile
from lssvwm_datasets.tables import Table, read_table

LED_TO, TAKEN_AT, FRAME = "led_to", "taken_at", "frame"
CLOCKS = ("time", "timestamp")  # columns that are never actions
BINARY, ONE_HOT, NUMBER = "binary", "one-hot", "number"


@dataclass(frozen=True)
class Actions:
    """`rows[t]` (A,) is the action that led to frame t; a unit a column."""

    rows: NDArray[np.float32]
    names: tuple[str, ...]
    units: tuple[str, ...]


@dataclass(frozen=True)
class Poses:
    """`rows[t]` (P,) is the pose at frame t, as recorded; `names` and `kinds` are of its columns."""

    rows: NDArray[np.float64]
    names: tuple[str, ...]
    kinds: tuple[str, ...]
    said: RecordingFile

    def canonical(self, rows: slice) -> tuple[NDArray[np.float32], tuple[str, ...], tuple[str, ...]]:
        """(T, P) canonical poses of some frames, the names of their columns, and their kinds where names do not say it.

        Poses that are canonical already, or hold columns of another kind, stay as they are.
        """
        degrees = self.said.angles == "degrees"
        as_they_are = HEADING not in self.kinds and not degrees and self.said.unit == 1 and not self.said.relative
        if as_they_are or OTHER in self.kinds:
            return self.rows[rows].astype(np.float32), self.names, self.kinds if self.names != self.kinds else ()
        poses, names = canonical(
            self.rows[rows], self.kinds, degrees=degrees, unit=self.said.unit, relative=self.said.relative
        )
        return poses, names, ()


def read_conditions(
    actions_file: Path | None, poses_file: Path | None, said: RecordingFile, max_memory: int
) -> tuple[Actions | None, Poses | None]:
    """The actions and poses of a recording, each None where it has none. Poses may be columns of the actions' table.

    Raises: DamagedRecording naming the file, row and column; OSError.
    """
    poses = None
    if poses_file is not None:
        table = read_table(poses_file, max_memory, lambda name: not _is_wanted(name, set(said.poses) or None))
        poses = poses_of(table, said, _first_frame(table, FRAME))
    if actions_file is None:
        return None, poses
    wanted = None if said.actions is None else {*said.actions, *said.poses, LED_TO, TAKEN_AT}
    table = read_table(actions_file, max_memory, lambda name: not _is_wanted(name, wanted))
    alignment, first = _alignment(table, said)
    if poses is None and said.poses:
        poses = poses_of(table, said, first)
    return actions_of(table, said, alignment, first), poses


def _is_wanted(name: str, wanted: set[str] | None) -> bool:
    """A list is wanted by the name of any of its columns `NAME_0`, `NAME_1`, …"""
    if wanted is None:
        return name not in CLOCKS
    return name == FRAME or name in wanted or any(one.rpartition("_")[0] == name for one in wanted)


def _alignment(table: Table, said: RecordingFile) -> tuple[str, int]:
    """What rows belong to, and the frame of row 0. Raises: DamagedRecording."""
    named = [name for name in (LED_TO, TAKEN_AT) if name in table.columns]
    if len(named) == 2 or not (named or said.alignment):
        raise DamagedRecording(
            f"{table.path}: does not say whether an action led to the frame of its row or was taken at it: call the "
            f'column of frame numbers led_to or taken_at, or write alignment = "taken_at" into {RECORDING_FILE}'
        )
    alignment = named[0] if named else str(said.alignment)
    column = alignment if named else FRAME
    first = _first_frame(table, column)
    latest = 1 if alignment == LED_TO else 0
    if first > latest:
        raise DamagedRecording(
            f"{table.place(0, column)}: found {first}, expected {'0 or 1' if latest else '0'}: every frame has a row"
        )
    return alignment, first


def _first_frame(table: Table, column: str) -> int:
    """The frame of row 0; 0 where there is no such column. Raises: DamagedRecording where rows do not go on by one."""
    if column not in table.columns:
        return 0
    numbers = table.columns[column].values
    expected = max(0, int(numbers[0])) + np.arange(table.length)
    wrong = np.flatnonzero(numbers != expected)
    if len(wrong):
        row = int(wrong[0])
        what = f"{expected[row]}, as the row before says {expected[row] - 1}" if row else "the number of a frame"
        raise DamagedRecording(f"{table.place(row, column)}: found {numbers[row]:g}, expected {what}")
    return int(numbers[0])


def actions_of(table: Table, said: RecordingFile, alignment: str, first: int) -> Actions:
    """The actions in a table. Raises: DamagedRecording naming row and column of a value that its unit does not have."""
    own = (LED_TO, TAKEN_AT, FRAME, *said.poses)
    units = {name: "" for name in table.columns if name not in own} if said.actions is None else said.actions
    table.require(units)
    columns: list[NDArray[np.float64]] = []
    names: list[str] = []
    kinds: list[str] = []
    for name, unit in units.items():
        if isinstance(unit, tuple):
            columns += list(np.eye(len(unit))[_whole_numbers(table, name, len(unit) - 1)].T)
            names += unit
            kinds += [ONE_HOT] * len(unit)
            continue
        kind = unit or _guessed_unit(table, name)
        if kind in (BINARY, ONE_HOT):
            _whole_numbers(table, name, 1)
        columns.append(table.columns[name].values)
        names.append(name)
        kinds.append(kind)
    if len(set(names)) < len(names):
        raise DamagedRecording(f"{table.path}: actions {', '.join(names)}: a name occurs twice")
    before = first + (alignment == TAKEN_AT)  # frames that nothing led to
    rows = np.zeros((before + table.length, len(names)), np.float32)
    if columns:
        rows[before:] = np.stack(columns, axis=1)
    return Actions(rows, tuple(names), tuple(kinds))


def _guessed_unit(table: Table, name: str) -> str:
    """What the numbers are, by how they are written. Raises: DamagedRecording where that does not tell."""
    column = table.columns[name]
    if not column.whole:
        return NUMBER
    pressed = np.isin(column.values, (0, 1))
    if pressed.all():
        return BINARY
    row = int(np.argmin(pressed))
    raise DamagedRecording(
        f"{table.place(row, name)}: {column.values[row]:g} may be an amount or the number of a choice: write into "
        f'{RECORDING_FILE}, under [actions], {name} = "number", or {name} = ["the", "choices", "by", "name"]'
    )


def _whole_numbers(table: Table, name: str, highest: int) -> NDArray[np.int64]:
    """A column as whole numbers from 0 to `highest`. Raises: DamagedRecording."""
    values = table.columns[name].values
    fits = np.isin(values, np.arange(highest + 1))
    if not fits.all():
        row = int(np.argmin(fits))
        raise DamagedRecording(f"{table.place(row, name)}: found {values[row]:g}, expected a whole number 0..{highest}")
    return values.astype(np.int64)


def poses_of(table: Table, said: RecordingFile, first: int) -> Poses:
    """The poses in a table.

    Raises: DamagedRecording where nothing says what the columns are, or the first frame has no pose.
    """
    columns = said.poses or {name: name for name in table.columns if name != FRAME}
    table.require(columns)
    signs = [-1.0 if kind.startswith("-") else 1.0 for kind in columns.values()]
    kinds = tuple(kind.removeprefix("-") for kind in columns.values())
    advice = (
        f'write into {RECORDING_FILE}, for example: angles = "degrees", and under [poses]: px = "x", yaw = "heading"'
    )
    if not set(kinds) <= {*KINDS, HEADING, OTHER}:
        raise DamagedRecording(f"{table.path}: nothing says what the columns {', '.join(columns)} are; {advice}")
    if said.angles is None and set(kinds) & set(ANGLES):
        raise DamagedRecording(f"{table.path}: nothing says whether angles are in degrees or radians; {advice}")
    if first:
        raise DamagedRecording(f"{table.path}: the first row is of frame {first}; poses begin with frame 0")
    rows = np.stack([table.columns[name].values for name in columns], axis=1) * signs
    return Poses(rows, tuple(columns), kinds, said)
