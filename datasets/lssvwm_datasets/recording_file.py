"""`recording.toml`: what a folder of recordings cannot tell by itself.

The nearest one at or above a recording counts; what `NAME.toml` beside a recording `NAME` says counts for it alone.

    fps = 20                       # of pictures; videos have their own
    alignment = "taken_at"         # or "led_to": what a row of actions belongs to, where no column is called so
    angles = "degrees"             # or "radians": of headings and pitches
    unit = 1.0                     # how many of the recording's units of length are one cell or block
    relative = true                # positions count from the first frame
    camera = "observation.images.top"    # of a LeRobot set that has several

    [actions]                      # without it, every column is an action
    forward = "binary"             # 0 or 1; one-hot, degrees, or any other unit
    action = ["noop", "left"]      # a number 0, 1, ...: becomes a column for each name, one of them 1

    [poses]                        # what a column is (`poses`), with a minus where it counts the other way
    px = "x"
    yaw = "-heading"
"""

from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from lssvwm_datasets.errors import LssvwmError
from lssvwm_datasets.poses import HEADING, KINDS, OTHER
from lssvwm_datasets.schema import convert, read_toml

RECORDING_FILE = "recording.toml"
Alignment = Literal["led_to", "taken_at"]
ANGLES = (HEADING, "pitch")


@dataclass(frozen=True)
class RecordingFile:
    """What is said of a recording; see the module for the keys.

    Attributes:
        layout: map of the place, a text a row with the bottom row first, 1 = free.
    """

    fps: float | None = None
    alignment: Alignment | None = None
    angles: Literal["degrees", "radians"] | None = None
    unit: float = 1.0
    relative: bool = False
    camera: str = ""
    actions: dict[str, str | tuple[str, ...]] | None = None
    poses: dict[str, str] = field(default_factory=dict)
    layout: tuple[str, ...] = ()

    @property
    def map(self) -> NDArray[np.uint8] | None:
        """(N, N) the layout as numbers; None where there is none."""
        return np.array([[int(cell) for cell in row] for row in self.layout], np.uint8) if self.layout else None

    def __post_init__(self) -> None:
        if (self.fps is not None and not 0 < self.fps < 1e6) or not 0 < self.unit < 1e9:
            raise ValueError(f"fps is {self.fps}, unit is {self.unit}; expected numbers above 0")
        kinds = [kind.removeprefix("-") for kind in self.poses.values()]
        for name, kind in zip(self.poses, kinds, strict=True):
            if kind not in (*KINDS, HEADING, OTHER):
                raise ValueError(f"pose {name} is {kind!r}; expected one of {', '.join((*KINDS, HEADING, OTHER))}")
        if self.angles is None and set(kinds) & set(ANGLES):
            raise ValueError('the unit of headings and pitches is missing: angles = "degrees" or "radians"')
        if any(not names for names in (self.actions or {}).values()):
            raise ValueError("an action has neither a unit nor names")
        if self.layout and not all(len(row) == len(self.layout) and set(row) <= {"0", "1"} for row in self.layout):
            raise ValueError("layout: expected a square of rows of 0 and 1")


def about(recording: Path) -> RecordingFile:
    """What is said of a recording, a video or a folder. Raises: LssvwmError naming the file and what is wrong in it."""
    files = [path for path in files_about(recording) if path.is_file()]
    said: dict[str, Any] = {}
    for path in files:
        content = read_toml(path)
        known = [each.name for each in fields(RecordingFile)]
        if unknown := sorted(set(content) - set(known)):
            raise LssvwmError(f"{path}: unknown key {unknown[0]}; expected some of {', '.join(known)}")
        said |= content
    return convert(" and ".join(map(str, files)) or RECORDING_FILE, said, RecordingFile)


def files_about(recording: Path) -> list[Path]:
    """The nearest recording.toml, where there is one, and then the file about this recording alone."""
    name = recording.name if recording.is_dir() else recording.stem
    folders = [recording, *recording.absolute().parents] if recording.is_dir() else recording.absolute().parents
    nearest = next((folder / RECORDING_FILE for folder in folders if (folder / RECORDING_FILE).is_file()), None)
    return [*([nearest] if nearest else []), recording.with_name(f"{name}.toml")]
