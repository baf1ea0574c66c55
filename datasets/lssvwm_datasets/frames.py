"""Frames a part at a time, so that a long video never lies in memory."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

PART_FRAMES = 32
PART_BYTES = 8 * 2**20  # of frames as they are recorded, which may be large, that a reader takes at once


def part_length(height: int, width: int) -> int:
    """How many frames of a recording a reader takes at once."""
    return min(PART_FRAMES, max(1, PART_BYTES // (3 * height * width)))


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
        """Parts of (T, H, W, 3) frames in memory; views, not copies, where they are contiguous."""
        return FrameParts(
            lambda: (
                np.ascontiguousarray(frames[start : start + PART_FRAMES])
                for start in range(0, len(frames), PART_FRAMES)
            ),
            len(frames),
        )

    def resized(self, size: tuple[int, int] | None) -> "FrameParts":
        """The same frames in (H, W) pixels, stretched where its shape is another: triangle-filtered over the area that
        becomes a pixel (Pillow's bilinear, which is antialiased), channel by channel, in 8 bits."""
        if size is None:
            return self
        return FrameParts(lambda: (_resized(frames, size) for frames in self.read()), self.length)

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


def _resized(frames: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    if frames.shape[1:3] == size:
        return frames
    resized = np.empty((len(frames), *size, 3), np.uint8)
    for picture, frame in zip(resized, frames, strict=True):
        picture[:] = np.asarray(Image.fromarray(frame).resize((size[1], size[0]), Image.Resampling.BILINEAR))
    return resized
