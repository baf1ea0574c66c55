"""Reads recordings of Counter-Strike (Pearce and Zhu, 2021), which DIAMOND was trained on: HDF5, 1000 frames a file.

For frame i: `frame_i_x` (150, 280, 3) BGR, and `frame_i_y` (51,), flags of what was done at it. `frame_i_xaux` (what
was done before, health, ammunition, team) and `frame_i_helperarr` (kill, death) are not read.
"""

import contextlib
import math
import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from h5py import h5d, h5l, h5o
from numpy.typing import NDArray

from lssvwm_datasets.episode import Episode, null_at_first
from lssvwm_datasets.errors import DamagedRecording
from lssvwm_datasets.format import DEFAULTS, Format, ReaderOptions, find_singles
from lssvwm_datasets.frames import FrameParts, part_length
from lssvwm_datasets.opening import opened_recording

FPS = 16.0
SOURCE_ALIGNMENT = "frame_i_y was done at frame i and led to frame i + 1; shifted by one"
KEYS = (  # w, a, s, d, space, ctrl, shift, 1, 2, 3, r
    *("forward", "left", "back", "right", "jump", "crouch", "walk"),
    *("weapon1", "weapon2", "weapon3", "reload"),
)
CLICKS = ("fire", "zoom")  # the left and the right button
MOUSE_X = (-1000, -500, -300, -200, -100, -60, -30, -20, -10, -4, -2, 0, 2, 4, 10, 20, 30, 60, 100, 200, 300, 500, 1000)
MOUSE_Y = (-200, -100, -50, -20, -10, -4, -2, 0, 2, 4, 10, 20, 50, 100, 200)
CAMERA = ("camera_x", "camera_y")  # + turns right, + looks down, in the mouse's own steps
ACTION_NAMES = (*KEYS, *CLICKS, *CAMERA)
ACTION_UNITS = (*("binary",) * len(KEYS + CLICKS), *("mouse steps",) * len(CAMERA))
FLAGS = len(KEYS) + len(CLICKS) + len(MOUSE_X) + len(MOUSE_Y)
NAME = re.compile(r"frame_(0|[1-9][0-9]{0,6})_x")


def read(path: Path, id: str, options: ReaderOptions = DEFAULTS) -> Iterator[Episode]:
    """Yields the one episode of a file. Raises: DamagedRecording; OSError."""
    with _opened(path) as file:
        numbers = [int(match[1]) for name in file.id if (match := NAME.fullmatch(name.decode("utf-8", "replace")))]
        length = len(numbers)
        if not length or max(numbers) != length - 1:
            expected = (
                "frame_0_x, frame_1_x, …" if not length else f"frame_0_x to frame_{max(numbers)}_x, not all are there"
            )
            raise DamagedRecording(f"{path}: {length} frames found; expected {expected}")
        height, width = _dataset(path, file, "frame_0_x", np.uint8, (None, None, 3)).shape[:2]
        size = options.frame_size(path, (height, width))
        taken = [_read(path, file, f"frame_{number}_y", np.number, (FLAGS,)) for number in range(length)]
    actions = np.zeros((length, len(ACTION_NAMES)), np.float32)
    actions[1:] = _actions(path, np.stack(taken))[:-1]
    yield Episode(
        id=id,
        frames=FrameParts(lambda: _frames(path, length, (height, width)), length).resized(options.size),
        frame_size=size,
        actions=null_at_first(actions),
        action_names=ACTION_NAMES,
        action_units=ACTION_UNITS,
        source_alignment=SOURCE_ALIGNMENT,
        fps=FPS,
    )


def _actions(path: Path, flags: NDArray[Any]) -> NDArray[np.float32]:
    """(N, A) from rows of flags. Raises: DamagedRecording."""
    if not np.isin(flags, (0, 1)).all():
        row, column = (int(place) for place in np.argwhere(~np.isin(flags, (0, 1)))[0])
        raise DamagedRecording(f"{path}: frame_{row}_y[{column}] is {flags[row, column]}, expected 0 or 1")
    pressed, x, y = np.split(flags, np.cumsum([len(KEYS + CLICKS), len(MOUSE_X)]), axis=1)
    for part, name in ((x, "x"), (y, "y")):
        if (wrong := part.sum(axis=1) != 1).any():
            raise DamagedRecording(
                f"{path}: frame_{int(wrong.argmax())}_y names no step of the mouse along {name}, or two"
            )
    moved = [np.array(steps)[part.argmax(axis=1)] for part, steps in ((x, MOUSE_X), (y, MOUSE_Y))]
    return np.concatenate([pressed, np.stack(moved, axis=1)], axis=1).astype(np.float32)


def _frames(path: Path, length: int, size: tuple[int, int]) -> Iterator[NDArray[np.uint8]]:
    with _opened(path) as file:
        taken = part_length(*size)
        for start in range(0, length, taken):
            numbers = range(start, min(start + taken, length))
            part = [_read(path, file, f"frame_{number}_x", np.uint8, (*size, 3)) for number in numbers]
            yield np.stack(part)[..., ::-1]  # RGB


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[h5py.File]:
    """Raises: DamagedRecording for whatever is wrong with the file; OSError."""
    with opened_recording(path, "HDF5 file") as content, h5py.File(content, "r") as file:
        yield file


def _read(path: Path, file: h5py.File, name: str, kind: Any, shape: tuple[int | None, ...]) -> NDArray[Any]:
    found = _dataset(path, file, name, kind, shape)
    rows = np.empty(found.shape, found.dtype)
    found.read(h5py.h5s.ALL, h5py.h5s.ALL, rows)
    return rows


def _dataset(path: Path, file: h5py.File, name: str, kind: Any, shape: tuple[int | None, ...]) -> h5d.DatasetID:
    """Numbers of a shape that lie in the file itself, not in others that it names. Raises: DamagedRecording."""
    key = name.encode()
    if key not in file.id or file.id.links.get_info(key).type != h5l.TYPE_HARD:
        raise DamagedRecording(f"{path}: no {name}")
    found = h5o.open(file.id, key)
    if not isinstance(found, h5d.DatasetID) or not np.issubdtype(found.dtype, kind):
        raise DamagedRecording(f"{path}: {name} is no array of {np.dtype(kind) if kind is np.uint8 else 'numbers'}")
    plan = found.get_create_plist()
    fits = len(found.shape) == len(shape) and all(
        want in (None, has) for want, has in zip(shape, found.shape, strict=True)
    )
    if not fits or plan.get_external_count() or plan.get_layout() == h5d.VIRTUAL:
        wanted = "x".join("any" if want is None else str(want) for want in shape)
        raise DamagedRecording(f"{path}: {name} has shape {found.shape}, expected {wanted}, in the file itself")
    if plan.get_layout() == h5d.CHUNKED and math.prod(plan.get_chunk()) > math.prod(found.shape):  # read whole
        raise DamagedRecording(f"{path}: {name} has shape {found.shape} and larger chunks, of {plan.get_chunk()}")
    return found


def _recognises(path: Path) -> bool:
    try:
        with _opened(path) as file:
            return b"frame_0_x" in file.id and b"frame_0_y" in file.id
    except DamagedRecording:
        return False


FORMAT = Format(
    "csgo",
    "hdf5 files with frame_0_x, frame_0_y and on",
    partial(find_singles, ".hdf5"),
    _recognises,
    read,
)
