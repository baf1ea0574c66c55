"""Reads video files: PyAV where it is installed, else decord (wheels for x86-64 Linux and Windows); same frames."""

import importlib.util
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lssvwm_datasets.errors import DamagedRecording

READ_FRAMES = 64  # decoded at once


def read_video(path: Path, decoder: str | None = None) -> Iterator[NDArray[np.uint8]]:
    """Yield the frames of a video in order, (n, H, W, 3) uint8 RGB at a time; never the whole video.

    Args:
        decoder: `decord` or `av`; None: whichever is installed, PyAV first (decord is no longer developed).

    Raises: DamagedRecording when the file cannot be opened or decoded.
    """
    if decoder is None:
        decoder = "av" if importlib.util.find_spec("av") else "decord"
    frames = 0
    try:
        for part in (_with_decord if decoder == "decord" else _with_av)(path):
            yield part
            frames += len(part)
        if frames == 0:
            raise ValueError("no frames")
    except (OSError, RuntimeError, ValueError) as error:
        raise DamagedRecording(f"{path}: not a readable video ({str(error).splitlines()[0]})") from error


def _with_decord(path: Path) -> Iterator[NDArray[np.uint8]]:
    import decord

    try:
        with path.open("rb") as file:
            reader = decord.VideoReader(file, num_threads=1)
            if reader[0].shape[-1] != 3:  # it infers the channels from the row's padded size, at 48 pixels wrongly
                raise ValueError("decord cannot read videos of this width; pip install av")
            for first in range(0, len(reader), READ_FRAMES):
                yield reader.get_batch(range(first, min(first + READ_FRAMES, len(reader)))).asnumpy()
    except decord.DECORDError as error:
        raise ValueError(str(error)) from error


def _with_av(path: Path) -> Iterator[NDArray[np.uint8]]:
    import av

    with av.open(str(path)) as container:
        if not container.streams.video:
            raise ValueError("no video stream")
        frames: list[NDArray[np.uint8]] = []
        for frame in container.decode(video=0):
            frames.append(frame.to_ndarray(format="rgb24").astype(np.uint8, copy=False))
            if len(frames) == READ_FRAMES:
                yield np.stack(frames)
                frames = []
        if frames:
            yield np.stack(frames)
