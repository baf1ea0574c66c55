"""What every reader yields: one episode, aligned, its frames a part at a time."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from lssvwm_datasets.frames import FrameParts
from lssvwm_datasets.poses import kinds_of
from lssvwm_datasets.streams import STREAMS, check_further, columns_of

ACTION_ALIGNMENT = "action[t] led to frame[t]; action[0] is null"


@dataclass(frozen=True)
class Episode:
    """A recording of T frames in the toolkit's one alignment: `actions[t]` led to frame t; `actions[0]` is null.

    Attributes:
        id: unique within its source: the file's path below it, with `#k` for the k-th of several episodes in one file.
        frames: T frames of `frame_size`, (n, H, W, 3) uint8 RGB at a time; read when iterated.
        frame_size: (H, W) pixels.
        actions: (T, A) float32, one column a name; row 0 all zeros.
        action_units: one a column: `one-hot`, `binary`, `degrees`.
        source_alignment: how the source pairs actions with frames, and what was done about it, in words.
        poses: (T, P) float32 poses, canonical (`poses`), or None where the recording has none.
        pose_kinds: one a column (`poses`); empty: what the names say.
        stream_rows: {stream: (T, columns) float32} of condition streams beside actions and poses (`streams.STREAMS`).
        stream_names: {stream: names of its columns}, of the same streams.
        layout: (N, N) uint8 map, 1 = free, indexed [y, x], or None.
        targets: (K, 2) float32 target positions (x, y), or None.
        rewards: (T,) float32 what the agent got for reaching each frame, or None.
        fps: frames a second of recorded time.
        notes: what was odd about the recording and how it was handled.
    """

    id: str
    frames: FrameParts
    frame_size: tuple[int, int]
    actions: NDArray[np.float32]
    action_names: tuple[str, ...]
    action_units: tuple[str, ...]
    source_alignment: str
    fps: float
    poses: NDArray[np.float32] | None = None
    pose_names: tuple[str, ...] = ()
    pose_kinds: tuple[str, ...] = ()
    stream_rows: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)
    stream_names: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    layout: NDArray[np.uint8] | None = None
    targets: NDArray[np.float32] | None = None
    rewards: NDArray[np.float32] | None = None
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_further(self.stream_names)
        if set(self.stream_rows) != set(self.stream_names):
            raise ValueError(f"rows of {sorted(self.stream_rows)}, names of {sorted(self.stream_names)}")
        if (self.poses is None) != (not self.pose_names):
            raise ValueError("poses and pose_names go together")
        kinds_of(self.pose_names, self.pose_kinds)  # raises where they do not fit
        if len(self.action_units) != len(self.action_names):
            raise ValueError(f"{len(self.action_units)} units for {len(self.action_names)} actions")
        if self.rewards is not None and self.rewards.shape != (self.frames.length,):
            raise ValueError(f"rewards have shape {self.rewards.shape}, expected {(self.frames.length,)}")
        for name, stream in STREAMS.items():
            rows, columns = self.rows(name), len(columns_of(self, name))
            if rows is not None and rows.shape != (self.frames.length, columns):
                raise ValueError(f"{stream.stored} has shape {rows.shape}, expected {(self.frames.length, columns)}")

    def rows(self, stream: str) -> NDArray[np.float32] | None:
        """(T, columns) of a condition stream; None where the recording has none."""
        return {"action": self.actions, "pose": self.poses, **self.stream_rows}.get(stream)

    @property
    def length(self) -> int:
        """T, the number of frames."""
        return len(self.actions)


def null_at_first(actions: NDArray[np.float32]) -> NDArray[np.float32]:
    """A copy of an episode's actions (T, A) in which nothing led to its first frame."""
    actions = actions.copy()
    actions[0] = 0
    return actions
