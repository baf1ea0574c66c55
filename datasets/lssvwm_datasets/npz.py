"""Reads npz files that may be damaged."""

import zipfile
from collections.abc import Container
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lssvwm_datasets.errors import DamagedRecording


def load_arrays(path: Path, wanted: Container[str]) -> dict[str, NDArray[Any]]:
    """The arrays of `wanted` that the file has. Raises: DamagedRecording when it is missing or not readable."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {key: archive[key] for key in archive.files if key in wanted}
            if strangers := [key for key, array in arrays.items() if not isinstance(array, np.ndarray)]:
                raise ValueError(f"{', '.join(strangers)}: not an array")
            return arrays
    except Exception as error:  # zipfile, zlib, lzma, tokenize and numpy each have their own for damage
        raise DamagedRecording(f"{path}: not a readable npz file ({error})") from error


def npz_keys(path: Path) -> set[str]:
    """The names of the arrays of an npz file; none when it cannot be read."""
    try:
        with zipfile.ZipFile(path) as archive:
            return {name.removesuffix(".npy") for name in archive.namelist()}
    except Exception:  # as above; reading the file tells
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
