"""Reads the data sets of TECO (Yan et al., 2023): Minecraft (mp4 and npz) and DMLab (npz).

Lengths are 300 or 301 by source; where frames and actions differ, the first min(frames, actions) are read.
"""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lssvwm_datasets.episode import Episode
from lssvwm_datasets.errors import DamagedRecording
from lssvwm_datasets.format import DEFAULTS, Format, ReaderOptions, find_pairs, find_singles
from lssvwm_datasets.frames import FrameParts
from lssvwm_datasets.npz import integers, load_arrays, npz_keys
from lssvwm_datasets.video import probe_video, read_video

MINECRAFT_ACTIONS = ("noop", "forward", "left", "right")  # by id; all but noop jump too, turns are of 20 degrees
DMLAB_ACTIONS = ("action_0", "action_1", "action_2")  # what they mean is not published
FPS = 20.0
MINECRAFT_ALIGNMENT = "action[t] led to frame[t]; action[0] is a dummy"
DMLAB_ALIGNMENT = "action[t] and frame[t] are stored together; read as: action[t] led to frame[t]"


def read_minecraft(path: Path, id: str, options: ReaderOptions = DEFAULTS) -> Iterator[Episode]:
    """Yields the one episode of an mp4 and the npz beside it. Raises: DamagedRecording."""
    info = probe_video(path)
    arrays = path.with_suffix(".npz")
    if not arrays.exists():
        raise DamagedRecording(f"{arrays}: no such file, expected the actions of {path.name}")
    actions, notes = _actions(arrays, load_arrays(arrays, ("actions",)), MINECRAFT_ACTIONS, info.count)
    length = len(actions)
    yield Episode(
        id=id,
        frames=FrameParts(lambda: read_video(path, stop=length), length).resized(options.size),
        frame_size=options.size or info.size,
        actions=actions,
        action_names=MINECRAFT_ACTIONS,
        action_units=("one-hot",) * len(MINECRAFT_ACTIONS),
        source_alignment=MINECRAFT_ALIGNMENT,
        fps=FPS,
        notes=notes,
    )


def read_dmlab(path: Path, id: str, options: ReaderOptions = DEFAULTS) -> Iterator[Episode]:
    """Yields the one episode of an npz. Raises: DamagedRecording."""
    arrays = load_arrays(path, ("video", "actions"))
    if "video" not in arrays:
        raise DamagedRecording(f"{path}: no video: found keys {sorted(npz_keys(path))}, expected video and actions")
    video = arrays["video"]
    if video.ndim != 4 or video.shape[-1] != 3 or video.dtype != np.uint8 or len(video) == 0:
        raise DamagedRecording(
            f"{path}: video is {video.dtype} of shape {video.shape}, expected uint8 RGB frames (T, H, W, 3)"
        )
    actions, notes = _actions(path, arrays, DMLAB_ACTIONS, len(video))
    yield Episode(
        id=id,
        frames=FrameParts.of(video[: len(actions)]).resized(options.size),
        frame_size=options.size or (video.shape[1], video.shape[2]),
        actions=actions,
        action_names=DMLAB_ACTIONS,
        action_units=("one-hot",) * len(DMLAB_ACTIONS),
        source_alignment=DMLAB_ALIGNMENT,
        fps=FPS,
        notes=notes,
    )


def _actions(
    path: Path, arrays: dict[str, NDArray[Any]], names: tuple[str, ...], frames: int
) -> tuple[NDArray[np.float32], tuple[str, ...]]:
    """(T, A) float32 one-hot of the first T = min(frames, actions) steps, null at first; and notes."""
    if "actions" not in arrays:
        raise DamagedRecording(f"{path}: no actions: found keys {sorted(npz_keys(path))}, expected actions")
    ids = integers(path, "actions", arrays["actions"], arrays["actions"].shape[:1] or (1,), len(names) - 1)
    actions = np.eye(len(names), dtype=np.float32)[ids[:frames]]
    actions[0] = 0
    differ = abs(frames - len(ids)) > 1
    return actions, (f"{frames} frames, {len(ids)} actions; the first {len(actions)} are read",) if differ else ()


def _recognises_minecraft(path: Path) -> bool:
    return path.exists() and npz_keys(path.with_suffix(".npz")) == {"actions"}


def _recognises_dmlab(path: Path) -> bool:
    return npz_keys(path) >= {"video", "actions"}


MINECRAFT = Format(
    "teco-minecraft",
    "mp4 files, each with an npz of the same stem that holds actions",
    partial(find_pairs, ".mp4", ".npz"),
    _recognises_minecraft,
    read_minecraft,
)
DMLAB = Format(
    "teco-dmlab",
    "npz files with video and actions",
    partial(find_singles, ".npz"),
    _recognises_dmlab,
    read_dmlab,
)
