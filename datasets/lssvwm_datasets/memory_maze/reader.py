"""Reads episodes of Memory Maze: the offline dataset, what our recorder writes, and pydreamer's variants.

One `.npz` holds one episode (`image` (T, H, W, 3)) or, from pydreamer, several (`image_t` (H, W, 3, T), split where
`reset` is true). Stored dtypes vary between releases, so everything but the image is cast.
"""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lssvwm_datasets.episode import Episode, null_at_first
from lssvwm_datasets.errors import DamagedRecording
from lssvwm_datasets.format import DEFAULTS, Format, ReaderOptions, find_singles
from lssvwm_datasets.frames import FrameParts
from lssvwm_datasets.memory_maze.constants import ACTION_NAMES, FPS, POSE_NAMES, SOURCE_ALIGNMENT
from lssvwm_datasets.npz import load_arrays, npz_keys

IMAGE_KEYS = ("image", "image_t", "obs")
WANTED = (*IMAGE_KEYS, "action", "agent_pos", "agent_dir", "maze_layout", "targets_pos", "reward", "reset")


def read(path: Path, id: str, options: ReaderOptions = DEFAULTS) -> Iterator[Episode]:
    """Yields the episodes of one file. Raises: DamagedRecording; OSError."""
    arrays = load_arrays(path, WANTED, options.max_memory)
    frames = _frames(path, arrays)
    length = len(frames)
    actions = _actions(path, arrays, length)
    poses = _poses(path, arrays, length)
    layout = _map(path, arrays, "maze_layout", length)
    targets = _map(path, arrays, "targets_pos", length)
    rewards = _rewards(path, arrays, length)
    starts = _episode_starts(path, arrays, length)
    for index, (start, stop) in enumerate(zip(starts, [*starts[1:], length], strict=True)):
        rows = slice(start, stop)
        yield Episode(
            id=id if len(starts) == 1 else f"{id}#{index}",
            frames=FrameParts.of(frames[rows]).resized(options.size),
            frame_size=options.frame_size(path, (frames.shape[1], frames.shape[2])),
            actions=null_at_first(actions[rows]),
            action_names=ACTION_NAMES,
            action_units=("one-hot",) * len(ACTION_NAMES),
            source_alignment=SOURCE_ALIGNMENT,
            fps=FPS,
            poses=None if poses is None else poses[rows],
            pose_names=() if poses is None else POSE_NAMES,
            layout=None if layout is None else _constant(layout, start, 2).astype(np.uint8),
            targets=None if targets is None else _constant(targets, start, 2).astype(np.float32),
            rewards=None if rewards is None else rewards[rows],
        )


def _frames(path: Path, arrays: dict[str, NDArray[Any]]) -> NDArray[np.uint8]:
    key = next((key for key in IMAGE_KEYS if key in arrays), None)
    if key is None:
        raise DamagedRecording(f"{path}: no frames: found keys {sorted(arrays)}, expected one of {IMAGE_KEYS}")
    image = arrays[key]
    if key == "image_t" and image.ndim == 4:
        image = image.transpose(3, 0, 1, 2)  # HWCT -> THWC
    if image.ndim != 4 or image.shape[-1] != 3 or image.dtype != np.uint8 or len(image) == 0:
        raise DamagedRecording(
            f"{path}: {key} is {image.dtype} of shape {arrays[key].shape}, expected uint8 RGB frames "
            f"{'(H, W, 3, T)' if key == 'image_t' else '(T, H, W, 3)'}"
        )
    return image


def _actions(path: Path, arrays: dict[str, NDArray[Any]], length: int) -> NDArray[np.float32]:
    """(T, 6) float32 one-hot from one-hot or integer actions."""
    if "action" not in arrays:
        raise DamagedRecording(f"{path}: no actions: found keys {sorted(arrays)}, expected 'action'")
    action = arrays["action"]
    if action.shape == (length, len(ACTION_NAMES)):
        bad = ~((action == 0) | (action == 1)).all(axis=1) | (action.sum(axis=1) > 1)
        if bad.any():
            row = int(bad.argmax())
            raise DamagedRecording(f"{path}: action of frame {row} is {action[row].tolist()}, expected one-hot")
        ids = action.argmax(axis=1)
    elif action.shape == (length,) and np.isin(action, np.arange(len(ACTION_NAMES))).all():
        ids = action.astype(np.int64)
    else:
        raise DamagedRecording(
            f"{path}: action has shape {action.shape}, expected one-hot {(length, len(ACTION_NAMES))} "
            f"or ids 0..{len(ACTION_NAMES) - 1} of shape {(length,)} for {length} frames"
        )
    return np.eye(len(ACTION_NAMES), dtype=np.float32)[ids]


def _poses(path: Path, arrays: dict[str, NDArray[Any]], length: int) -> NDArray[np.float32] | None:
    """(T, 4) float32 x, y in cells, cosine and sine of the heading; None where a file has no poses."""
    if "agent_pos" not in arrays or "agent_dir" not in arrays:
        return None
    for key in ("agent_pos", "agent_dir"):
        if arrays[key].shape != (length, 2):
            raise DamagedRecording(f"{path}: {key} has shape {arrays[key].shape}, expected {(length, 2)}")
    poses = np.concatenate([arrays["agent_pos"], arrays["agent_dir"]], axis=1).astype(np.float32)
    if not np.isfinite(poses).all():
        bad = int(np.argwhere(~np.isfinite(poses))[0, 0])
        raise DamagedRecording(f"{path}: pose of frame {bad} is {poses[bad].tolist()}, expected finite numbers")
    return poses


def _rewards(path: Path, arrays: dict[str, NDArray[Any]], length: int) -> NDArray[np.float32] | None:
    """(T,) float32; None where a file has no rewards."""
    reward = arrays.get("reward")
    if reward is None:
        return None
    if reward.shape != (length,) or not np.isfinite(reward).all():
        raise DamagedRecording(
            f"{path}: reward has shape {reward.shape}, expected a finite number for each of {length} frames"
        )
    return reward.astype(np.float32)


def _episode_starts(path: Path, arrays: dict[str, NDArray[Any]], length: int) -> list[int]:
    reset = arrays.get("reset")
    if reset is None:
        return [0]
    if reset.shape != (length,):
        raise DamagedRecording(f"{path}: reset has shape {reset.shape}, expected {(length,)}")
    return sorted({0, *np.flatnonzero(reset).tolist()})


def _map(path: Path, arrays: dict[str, NDArray[Any]], key: str, length: int) -> NDArray[Any] | None:
    array = arrays.get(key)
    if array is not None and not (array.ndim == 2 or (array.ndim == 3 and len(array) == length)):
        raise DamagedRecording(
            f"{path}: {key} has shape {array.shape}, expected one table, or one for each of {length} frames"
        )
    return array


def _constant(array: NDArray[Any], start: int, ndim: int) -> NDArray[Any]:
    """The value of a quantity that is constant in an episode, whether it was stored for each step or once."""
    return array[start] if array.ndim > ndim else array


def _recognises(path: Path) -> bool:
    keys = npz_keys(path)
    return "action" in keys and not keys.isdisjoint(IMAGE_KEYS)


FORMAT = Format(
    "maze", "npz files with image (or image_t, obs) and action", partial(find_singles, ".npz"), _recognises, read
)
