"""Folders of pictures, a picture a frame, in the order of the numbers in their names."""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import pairwise
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
PARTS = re.compile(r"(\d+)")


def in_order(pictures: Sequence[Path]) -> tuple[list[Path], list[int]]:
    """The pictures by the numbers in their names, and which frame each is, from 0 on.

    The last number of a name counts: by ones, or by more where all names are the same before it. One that is left out
    is a frame that is missing. Where that does not hold, as for clock times, all pictures follow each other in the
    order of their names, as people sort them: 9 before 10.
    """
    found = [NUMBER.search(path.stem) for path in pictures]
    numbers = [int(match[0]) for match in found if match is not None]
    if len(set(numbers)) == len(pictures):
        order = sorted(range(len(pictures)), key=numbers.__getitem__)
        steps = [numbers[later] - numbers[place] for place, later in pairwise(order)]
        prefixes = {path.stem[: match.start()] for path, match in zip(pictures, found, strict=True) if match}
        step = Counter(steps).most_common(1)[0][0] if steps and len(prefixes) == 1 else 1
        counts = 2 * steps.count(step) >= len(steps) and not any(one % step for one in steps)
        if counts and (len(prefixes) == 1 or not any(map(NUMBER.search, prefixes))):
            return [pictures[place] for place in order], [(numbers[n] - min(numbers)) // step for n in order]
    return sorted(pictures, key=_as_people_sort), list(range(len(pictures)))


def _as_people_sort(path: Path) -> list[tuple[int, str]]:
    """The key of that order: digits are the number that they stand for."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in PARTS.split(path.name)]


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
