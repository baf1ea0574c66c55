"""Frames a part at a time, so that a long video never lies in memory."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

PART_FRAMES = 32


@dataclass(frozen=True)
class FrameParts:
    """`length` frames: each iteration reads them anew, (n, H, W, 3) uint8 RGB at a time, in order.

    A part has `PART_FRAMES` frames, the last one what is left, however `read` yields them: what is computed part by
    part is the same every time. Iterating raises DamagedRecording where a video turns out to be damaged or too short.
    """

    read: Callable[[], Iterable[NDArray[np.uint8]]]
    length: int

    @staticmethod
    def of(frames: NDArray[np.uint8]) -> "FrameParts":
        """Parts of (T, H, W, 3) frames in memory; views, not copies."""
        return FrameParts(lambda: [frames], len(frames))

    def __iter__(self) -> Iterator[NDArray[np.uint8]]:
        held: list[NDArray[np.uint8]] = []
        total = 0
        for frames in self.read():
            total += len(frames)
            while len(frames) > 0:
                missing = PART_FRAMES - sum(map(len, held))
                held.append(frames[:missing])
                frames = frames[missing:]
                if len(held[-1]) == missing:
                    yield held[0] if len(held) == 1 else np.concatenate(held)
                    held = []
        if held:
            yield held[0] if len(held) == 1 else np.concatenate(held)
        if total != self.length:
            raise ValueError(f"read {total} frames, expected {self.length}")
