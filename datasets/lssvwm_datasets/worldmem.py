"""Reads the Minecraft data set of WorldMem (Xiao et al., 2025): mp4 and npz of actions and poses, from MineDojo."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lssvwm_datasets.episode import Episode, null_at_first
from lssvwm_datasets.errors import DamagedRecording
from lssvwm_datasets.format import DEFAULTS, Format, ReaderOptions, find_pairs
from lssvwm_datasets.npz import integers, load_arrays, npz_keys
from lssvwm_datasets.poses import HIGHEST_POSE, minecraft_poses
from lssvwm_datasets.ticks import stretches
from lssvwm_datasets.video import probe_video, video_frames

FPS = 10.0
SOURCE_ALIGNMENT = "action[t] led to frame[t]; action[0] is a no-op"
CHOICES = {  # column of MineDojo's multi-discrete action -> what its values from 1 on mean
    0: ("forward", "back"),
    1: ("left", "right"),
    2: ("jump", "sneak", "sprint"),
    5: ("use", "drop", "attack", "craft", "equip", "place", "destroy"),
}
CAMERA = {3: "camera_pitch", 4: "camera_yaw"}
CAMERA_NULL, CAMERA_STEP = 12, 15.0  # the bin of no turn; degrees a bin, MineDojo's default
COLUMNS = 8  # the two not named above are arguments of craft, equip, place and destroy, and are not read
HIGHEST = 1000  # any value of any column
ACTION_NAMES = (*(name for names in CHOICES.values() for name in names), *CAMERA.values())
ACTION_UNITS = tuple("degrees" if name in CAMERA.values() else "binary" for name in ACTION_NAMES)
POSE_COLUMNS = 5  # Minecraft's x, y, z, pitch, yaw


def read(path: Path, id: str, options: ReaderOptions = DEFAULTS) -> Iterator[Episode]:
    """Yields the episode of an mp4 and the npz beside it, several where frames are missing.

    Raises: DamagedRecording; OSError.
    """
    info = probe_video(path, options.max_memory)
    source = path.with_suffix(".npz")
    arrays = load_arrays(source, ("actions", "poses"), options.max_memory)
    if missing := {"actions", "poses"} - set(arrays):
        raise DamagedRecording(f"{source}: no {', '.join(sorted(missing))}: found keys {sorted(npz_keys(source))}")
    actions = _actions(source, arrays["actions"])
    poses = _poses(source, arrays["poses"], len(actions))
    for stretch in stretches(path, id, info.times, len(actions), FPS):
        canonical_poses, pose_names = minecraft_poses(poses[stretch.rows])
        yield Episode(
            id=stretch.id,
            frames=video_frames(path, stretch, options).resized(options.size),
            frame_size=options.frame_size(path, info.size),
            actions=null_at_first(actions[stretch.rows]),
            action_names=ACTION_NAMES,
            action_units=ACTION_UNITS,
            source_alignment=SOURCE_ALIGNMENT,
            fps=FPS,
            poses=canonical_poses,
            pose_names=pose_names,
            notes=stretch.notes,
        )


def _actions(path: Path, stored: NDArray[Any]) -> NDArray[np.float32]:
    """(T, A) float32 from (T, 8) choices."""
    choices = integers(path, "actions", stored, (*stored.shape[:1], COLUMNS), HIGHEST)
    columns = []
    for column, names in CHOICES.items():
        _check_highest(path, choices, column, len(names))
        columns += [choices[:, column] == value for value in range(1, len(names) + 1)]
    for column in CAMERA:
        _check_highest(path, choices, column, 2 * CAMERA_NULL)
        columns.append((choices[:, column] - CAMERA_NULL) * CAMERA_STEP)
    return np.stack(columns, axis=1).astype(np.float32)


def _check_highest(path: Path, choices: NDArray[np.int64], column: int, highest: int) -> None:
    if (choices[:, column] > highest).any():
        row = int((choices[:, column] > highest).argmax())
        raise DamagedRecording(f"{path}: actions[{row}, {column}] is {choices[row, column]}, expected 0..{highest}")


def _poses(path: Path, poses: NDArray[Any], length: int) -> NDArray[np.float64]:
    """(T, 5) in blocks and degrees.

    Like WorldMem's loader, a first row that is missing is the next one, as is the first height.
    """
    if poses.ndim != 2 or poses.dtype.kind not in "iuf" or poses.shape[1] != POSE_COLUMNS:
        raise DamagedRecording(
            f"{path}: poses are {poses.dtype} of shape {poses.shape}, expected {(length, POSE_COLUMNS)}"
        )
    if len(poses) == length - 1 > 0:
        poses = np.concatenate([poses[:1], poses])
    poses = poses.astype(np.float64)
    if len(poses) != length or not (np.abs(poses) <= HIGHEST_POSE).all():
        raise DamagedRecording(
            f"{path}: {len(poses)} poses for {length} actions, expected as many, and finite (to {HIGHEST_POSE:.0e})"
        )
    poses[0, 1] = poses[min(1, length - 1), 1]
    return poses


def _recognises(path: Path) -> bool:
    return path.exists() and npz_keys(path.with_suffix(".npz")) == {"actions", "poses"}


FORMAT = Format(
    "worldmem",
    "mp4 files, each with an npz of the same stem that holds actions and poses",
    partial(find_pairs, ".mp4", ".npz"),
    _recognises,
    read,
)
