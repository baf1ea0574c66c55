"""What every reader yields: one episode, decoded and aligned."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

ACTION_ALIGNMENT = "action[t] led to frame[t]; action[0] is null"


@dataclass(frozen=True)
class Episode:
    """A recording of T frames in the toolkit's one alignment: `actions[t]` led to `frames[t]`; `actions[0]` is null.

    Attributes:
        id: unique within its source: the file's path below it, with `#k` for the k-th of several episodes in one file.
        frames: (T, H, W, 3) uint8 RGB.
        actions: (T, A) float32, one column a name; row 0 all zeros.
        poses: (T, P) float32 absolute poses, or None where the recording has none.
        layout: (N, N) uint8 map, 1 = free, indexed [y, x], or None.
        targets: (K, 2) float32 target positions (x, y), or None.
        fps: frames a second of recorded time.
    """

    id: str
    frames: NDArray[np.uint8]
    actions: NDArray[np.float32]
    action_names: tuple[str, ...]
    fps: float
    poses: NDArray[np.float32] | None = None
    pose_names: tuple[str, ...] = ()
    layout: NDArray[np.uint8] | None = None
    targets: NDArray[np.float32] | None = None

    def __post_init__(self) -> None:
        rows: dict[str, tuple[Any, int]] = {
            "actions": (self.actions, len(self.action_names)),
            "poses": (self.poses, len(self.pose_names)),
        }
        if (self.poses is None) != (not self.pose_names):
            raise ValueError("poses and pose_names go together")
        for name, (array, columns) in rows.items():
            if array is not None and array.shape != (len(self.frames), columns):
                raise ValueError(f"{name} has shape {array.shape}, expected {(len(self.frames), columns)}")
