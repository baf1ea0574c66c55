"""Folders of pictures, a picture a frame, in the order of the numbers in their names."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lssvwm_datasets.errors import DamagedRecording
from lssvwm_datasets.format import ReaderOptions
from lssvwm_datasets.frames import FrameParts, part_length
from lssvwm_datasets.opening import opened_recording

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
FORMATS = ("PNG", "JPEG", "WEBP", "BMP")
NUMBER = re.compile(r"\d+(?=\D*$)")  # the last one of a name


def in_order(pictures: Sequence[Path]) -> tuple[list[Path], list[int]]:
    """The pictures by the numbers in their names, and which frame each is, from 0 on.

    A number that is left out is a frame that is missing. Where not every name has a number of its own, or most numbers
    do not follow each other, as those of clock times, the pictures are counted in the order of their names.
    """
    found = [NUMBER.search(path.stem) for path in pictures]
    numbers = [int(match[0]) for match in found if match is not None]
    if len(set(numbers)) == len(pictures):
        order = np.argsort(numbers)
        steps = np.diff(np.array(numbers, dtype=object)[order])
        if 2 * sum(step == 1 for step in steps) >= len(steps):
            return [pictures[place] for place in order], [numbers[place] - min(numbers) for place in order]
    return sorted(pictures), list(range(len(pictures)))


def picture_size(path: Path, options: ReaderOptions) -> tuple[int, int]:
    """(H, W) pixels. Raises: DamagedRecording, also for a picture too large for the memory; OSError."""
    with opened_recording(path, "picture") as file, Image.open(file, formats=FORMATS) as picture:
        size = (picture.height, picture.width)
    options.frame_size(path, size)
    return size


def picture_frames(paths: Sequence[Path], size: tuple[int, int]) -> FrameParts:
    """The frames, read when iterated; (H, W) is the size of each. Iterating raises: DamagedRecording; OSError."""
    return FrameParts(lambda: _read(paths, size), len(paths))


def _read(paths: Sequence[Path], size: tuple[int, int]) -> Iterator[NDArray[np.uint8]]:
    length = part_length(*size)
    for start in range(0, len(paths), length):
        yield np.stack([_picture(path, size) for path in paths[start : start + length]])


def _picture(path: Path, size: tuple[int, int]) -> NDArray[np.uint8]:
    with opened_recording(path, "picture") as file, Image.open(file, formats=FORMATS) as picture:
        if (picture.height, picture.width) != size:
            raise DamagedRecording(
                f"{path}: {picture.height}x{picture.width} pixels, expected {size[0]}x{size[1]} as the first picture"
            )
        return np.asarray(picture.convert("RGB"))
