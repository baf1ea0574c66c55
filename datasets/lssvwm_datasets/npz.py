"""Reads npz files that may be damaged."""

import io
import math
import zipfile
from collections.abc import Container
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from lssvwm_datasets.errors import DamagedRecording
from lssvwm_datasets.format import DEFAULTS
from lssvwm_datasets.opening import opened_recording

SUFFIX = ".npy"  # of an archive's members
LONGEST_HEADER = 2**14  # bytes; numpy itself takes no longer ones


def load_arrays(
    path: Path,
    wanted: Container[str],
    max_memory: int = DEFAULTS.max_memory,
    remedy: str = "to read them, raise --max-memory",
) -> dict[str, NDArray[Any]]:
    """The arrays of `wanted` that the file has, none of them of objects; sizes are known before memory is taken.

    Args:
        remedy: what to do, for the message, when they need more than `max_memory` bytes.

    Raises: DamagedRecording when the file is missing, is not readable, or needs more than `max_memory` bytes; OSError.
    """
    with opened_recording(path, "npz file") as file, zipfile.ZipFile(file) as archive:
        members = {name.removesuffix(SUFFIX): name for name in archive.namelist()}
        members = {key: name for key, name in members.items() if key in wanted}
        size = sum(_stated_bytes(archive, name) for name in members.values())
        if size > max_memory:
            raise DamagedRecording(
                f"{path}: {', '.join(members)} need {size / 1e9:.1f} GB of memory, and a process may take "
                f"{max_memory / 1e9:g} GB; {remedy}"
            )
        arrays = {}
        for key, name in members.items():
            with archive.open(name) as member:
                arrays[key] = npy.read_array(member, allow_pickle=False)
        return arrays


def npz_keys(path: Path) -> set[str]:
    """The names of the arrays of an npz file; none when it is damaged, as reading it tells. Raises: OSError."""
    try:
        with opened_recording(path) as file, zipfile.ZipFile(file) as archive:
            return {name.removesuffix(SUFFIX) for name in archive.namelist()}
    except DamagedRecording:
        return set()


def integers(path: Path, key: str, array: NDArray[Any], shape: tuple[int, ...], highest: int) -> NDArray[np.int64]:
    """The array as integers from 0 to `highest`, whatever its dtype. Raises: DamagedRecording."""
    if array.shape != shape or array.dtype.kind not in "iufb" or array.size == 0:
        raise DamagedRecording(f"{path}: {key} is {array.dtype} of shape {array.shape}, expected numbers of {shape}")
    bad = ~((array >= 0) & (array <= highest) & (array == np.floor(array)))
    if bad.any():
        place = tuple(np.argwhere(bad)[0].tolist())
        raise DamagedRecording(f"{path}: {key}{list(place)} is {array[place]}, expected whole numbers 0..{highest}")
    return array.astype(np.int64)


def _stated_bytes(archive: zipfile.ZipFile, name: str) -> int:
    """What an array takes in memory, by its header, which is short: one may be declared that fills the memory."""
    with archive.open(name) as member:
        start = io.BytesIO(member.read(LONGEST_HEADER))
    read_header = npy.read_array_header_1_0 if npy.read_magic(start) == (1, 0) else npy.read_array_header_2_0
    shape, _, dtype = read_header(start)
    if any(length < 0 for length in shape):
        raise ValueError(f"{name} has shape {shape}")
    return math.prod(shape) * dtype.itemsize
