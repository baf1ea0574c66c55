"""Reads the data sets of TECO (Yan et al., 2023): Minecraft (mp4 and npz) and DMLab (npz).

Lengths are 300 or 301 by source; where frames and actions differ, the first min(frames, actions) are read.
"""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lssvwm_datasets import reckoning
from lssvwm_datasets.episode import Episode, null_at_first
from lssvwm_datasets.errors import DamagedRecording
from lssvwm_datasets.format import DEFAULTS, Format, ReaderOptions, find_pairs, find_singles
from lssvwm_datasets.frames import FrameParts
from lssvwm_datasets.npz import integers, load_arrays, npz_keys
from lssvwm_datasets.reckoning import reckoned_poses
from lssvwm_datasets.ticks import stretches
from lssvwm_datasets.video import probe_video, video_frames

MINECRAFT_ACTIONS = ("noop", "forward", "left", "right")  # by id; all but noop jump too, turns are of 20 degrees
TURN = 20.0  # degrees
DMLAB_ACTIONS = ("action_0", "action_1", "action_2")  # what they mean is not published
FPS = 20.0
MINECRAFT_ALIGNMENT = "action[t] led to frame[t]; action[0] is a dummy"
DMLAB_ALIGNMENT = "action[t] and frame[t] are stored together; read as: action[t] led to frame[t]"


def read_minecraft(path: Path, id: str, options: ReaderOptions = DEFAULTS) -> Iterator[Episode]:
    """Yields the episode of an mp4 and the npz beside it, several where frames are missing.

    Raises: DamagedRecording; OSError.
    """
    info = probe_video(path, options.max_memory)
    source = path.with_suffix(".npz")
    actions = _actions(source, load_arrays(source, ("actions",), options.max_memory), MINECRAFT_ACTIONS)
    for stretch in stretches(path, id, info.times, len(actions), FPS):
        taken = null_at_first(actions[stretch.rows])
        yield Episode(
            id=stretch.id,
            frames=video_frames(path, stretch, options).resized(options.size),
            frame_size=options.frame_size(path, info.size),
            actions=taken,
            action_names=MINECRAFT_ACTIONS,
            action_units=("one-hot",) * len(MINECRAFT_ACTIONS),
            source_alignment=MINECRAFT_ALIGNMENT,
            fps=FPS,
            poses=_reckoned(taken),
            pose_names=reckoning.NAMES,
            pose_kinds=reckoning.KINDS,
            notes=stretch.notes,
        )


def _reckoned(actions: NDArray[np.float32]) -> NDArray[np.float32]:
    """Poses of (T, 4) actions: a jump with each, forward or turned by `TURN` degrees."""
    _, forward, left, right = actions.T
    jump = forward + left + right
    return reckoned_poses({"forward": forward, "jump": jump, "camera_yaw": TURN * (right - left)})


def read_dmlab(path: Path, id: str, options: ReaderOptions = DEFAULTS) -> Iterator[Episode]:
    """Yields the one episode of an npz. Raises: DamagedRecording; OSError."""
    arrays = load_arrays(path, ("video", "actions"), options.max_memory)
    if "video" not in arrays:
        raise DamagedRecording(f"{path}: no video: found keys {sorted(npz_keys(path))}, expected video and actions")
    video = arrays["video"]
    if video.ndim != 4 or video.shape[-1] != 3 or video.dtype != np.uint8 or len(video) == 0:
        raise DamagedRecording(
            f"{path}: video is {video.dtype} of shape {video.shape}, expected uint8 RGB frames (T, H, W, 3)"
        )
    actions = _actions(path, arrays, DMLAB_ACTIONS)
    length = min(len(video), len(actions))
    differ = abs(len(video) - len(actions)) > 1
    yield Episode(
        id=id,
        frames=FrameParts.of(video[:length]).resized(options.size),
        frame_size=options.frame_size(path, (video.shape[1], video.shape[2])),
        actions=null_at_first(actions[:length]),
        action_names=DMLAB_ACTIONS,
        action_units=("one-hot",) * len(DMLAB_ACTIONS),
        source_alignment=DMLAB_ALIGNMENT,
        fps=FPS,
        notes=(f"{len(video)} frames, {len(actions)} actions; the first {length} are read",) if differ else (),
    )


def _actions(path: Path, arrays: dict[str, NDArray[Any]], names: tuple[str, ...]) -> NDArray[np.float32]:
    """(T, A) float32 one-hot."""
    if "actions" not in arrays:
        raise DamagedRecording(f"{path}: no actions: found keys {sorted(npz_keys(path))}, expected actions")
    ids = integers(path, "actions", arrays["actions"], arrays["actions"].shape[:1] or (1,), len(names) - 1)
    return np.eye(len(names), dtype=np.float32)[ids]


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
