"""Reads MineRL's human demonstrations (Guss et al., 2019), data versions 3 and 4.

A stream is a folder of `recording.mp4`, `rendered.npz` and `metadata.json`. Its video was cut at a key frame, so it
starts early; only its end is aligned. The rules here are those of MineRL's own loader.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lssvwm_datasets import reckoning
from lssvwm_datasets.episode import Episode, null_at_first
from lssvwm_datasets.errors import DamagedRecording, LssvwmError
from lssvwm_datasets.format import DEFAULTS, Candidate, Format, ReaderOptions
from lssvwm_datasets.frames import FrameParts
from lssvwm_datasets.npz import integers, load_arrays
from lssvwm_datasets.reckoning import reckoned_poses
from lssvwm_datasets.schema import read_json
from lssvwm_datasets.ticks import stretches
from lssvwm_datasets.video import count_frames, probe_video, video_frames

VIDEO, ARRAYS, METADATA = "recording.mp4", "rendered.npz", "metadata.json"
FPS = 20.0
SOURCE_ALIGNMENT = (
    "action[t] was taken at state t and led to state t + 1; shifted by one; states and video aligned by their ends"
)
BUTTONS = ("forward", "back", "left", "right", "jump", "sneak", "sprint", "attack", "use")
CAMERA = ("camera_pitch", "camera_yaw")  # degrees a tick; + looks down, + turns right
TOOLS = tuple(f"{material}_{tool}" for material in ("wooden", "stone", "iron") for tool in ("axe", "pickaxe"))
OTHER = "other"  # an item that is in none of these lists
ITEMS = {
    "place": ("dirt", "stone", "cobblestone", "crafting_table", "furnace", "torch", OTHER),
    "equip": ("air", *TOOLS, OTHER),
    "craft": ("torch", "stick", "planks", "crafting_table", OTHER),
    "nearbyCraft": (*TOOLS, "furnace", OTHER),
    "nearbySmelt": ("iron_ingot", "coal", OTHER),
}
NONE = "none"
LEFT_OUT = "tempting_capers_shapeshifter-14"  # by MineRL's own loader: long runs of no-ops
KNOWN_BAD = (
    "v3_absolute_grape_changeling-17_418-2303",
    "v3_equal_olive_chimera-9_25021-26077",
    "v3_agonizing_kale_tree_nymph-20_58203-59745",
    "v3_kindly_lemon_mummy-11_2752-6180",
    "v3_juvenile_apple_angel-26_862-2906",
    "v3_right_basil_dragon-15_4328-4804",
    "v3_right_basil_dragon-15_281-899",
    "v3_right_basil_dragon-15_6324-6873",
    "v3_kindly_lemon_mummy-2_59830-60262",
    "v3_absolute_grape_changeling-47_826-1734",
)


@dataclass(frozen=True)
class _Metadata:
    true_video_frame_count: int | None = None


class _Wanted:
    """Actions and rewards; observations other than the video are not read."""

    def __contains__(self, key: object) -> bool:
        return str(key).startswith(("action", "reward"))


def read(path: Path, id: str, options: ReaderOptions = DEFAULTS) -> Iterator[Episode]:
    """Yields the episode of a stream's folder, several where frames are missing. Raises: DamagedRecording; OSError."""
    if LEFT_OUT in path.name:
        raise DamagedRecording(f"{path}: left out by MineRL's own loader (long runs of no-ops)")
    version = re.search(r"(?:^|_)v(\d+)_", path.name)
    if version and int(version[1]) not in (3, 4):
        raise DamagedRecording(f"{path}: data of version {version[1]}, expected 3 or 4")
    arrays = load_arrays(path / ARRAYS, _Wanted(), options.max_memory)
    taken, names, units, notes = _actions(path / ARRAYS, arrays)
    actions = np.concatenate([np.zeros((1, len(names)), np.float32), taken])
    video = path / VIDEO
    info = probe_video(video, options.max_memory)
    times = info.times
    published = _published_count(path / METADATA)
    if published != len(times):  # the container cannot be trusted; what decodes counts
        times = times[: count_frames(video, options.max_memory)]
        if published not in (None, len(times)):
            notes.append(
                f"{len(times)} frames decoded, {METADATA} says {published}; aligned by the end of those decoded"
            )
    for stretch in stretches(video, id, times, len(actions), FPS, from_end=True):
        frames = video_frames(video, stretch, options)
        if stretch.stop == len(times):
            if stretch.length == 1:
                return
            frames = _last_twice(video_frames(video, replace(stretch, stop=stretch.stop - 1), options))
        taken = null_at_first(actions[stretch.rows])
        yield Episode(
            id=stretch.id,
            frames=frames.resized(options.size),
            frame_size=options.frame_size(video, info.size),
            actions=taken,
            action_names=names,
            action_units=units,
            source_alignment=SOURCE_ALIGNMENT,
            fps=FPS,
            poses=reckoned_poses(dict(zip(names, taken.T, strict=True))),
            pose_names=reckoning.NAMES,
            pose_kinds=reckoning.KINDS,
            notes=(*notes, *stretch.notes),
        )
        notes = []


def _last_twice(frames: FrameParts) -> FrameParts:
    """The last frame of a video can be bad: like the loader, show the one before it in its place."""

    def read_and_repeat() -> Iterator[NDArray[np.uint8]]:
        for part in frames:
            yield part
        yield part[-1:]

    return FrameParts(read_and_repeat, frames.length + 1)


def _actions(
    path: Path, arrays: dict[str, NDArray[Any]]
) -> tuple[NDArray[np.float32], tuple[str, ...], tuple[str, ...], list[str]]:
    """(N - 1, A) float32 actions, their names and units, and notes."""
    if "action$vector" in arrays:
        raise DamagedRecording(
            f"{path}: obfuscated actions (action$vector, of a VectorObf environment), which mean nothing; use the "
            "environment of the same name without VectorObf"
        )
    if any(key.startswith("action_") for key in arrays):
        raise DamagedRecording(f"{path}: keys like action_forward, of data before version 3; expected action$forward")
    missing = [key for key in ("reward", "action$camera", "action$forward") if key not in arrays]
    if missing:
        raise DamagedRecording(f"{path}: no {', '.join(missing)}: found {sorted(arrays)}")
    count = len(arrays["reward"]) if arrays["reward"].ndim == 1 else 0
    if count == 0:
        raise DamagedRecording(f"{path}: reward has shape {arrays['reward'].shape}, expected one a step")
    columns: dict[str, tuple[NDArray[np.float32], str]] = {}
    notes = []
    for name in BUTTONS:
        if (key := f"action${name}") in arrays:
            columns[name] = (integers(path, key, arrays[key], (count,), 1).astype(np.float32), "binary")
    camera = arrays["action$camera"]
    if camera.shape != (count, 2) or camera.dtype.kind not in "iuf" or not np.isfinite(camera).all():
        raise DamagedRecording(
            f"{path}: action$camera is {camera.dtype} of shape {camera.shape}, expected finite degrees of {(count, 2)}"
        )
    if (np.abs(camera) > 180).any():
        notes.append(f"{int((np.abs(camera) > 180).sum())} camera angles beyond 180 degrees were cut there")
    for name, angles in zip(CAMERA, camera.clip(-180, 180).astype(np.float32).T, strict=True):
        columns[name] = (angles, "degrees")
    for action, items in ITEMS.items():
        if (key := f"action${action}") not in arrays:
            continue
        chosen = arrays[key]
        if chosen.shape != (count,) or chosen.dtype.kind != "U":
            raise DamagedRecording(
                f"{path}: {key} is {chosen.dtype} of shape {chosen.shape}, expected item names of {(count,)}"
            )
        known = np.isin(chosen, (NONE, *items))
        for item in items:
            of_item = ~known if item == OTHER else chosen == item
            columns[f"{action}_{item}"] = (of_item.astype(np.float32), "one-hot")
        if not known.all():
            notes.append(f"{key}: {', '.join(sorted(set(chosen[~known].tolist())))} read as {action}_{OTHER}")
    values, units = zip(*columns.values(), strict=True)
    return np.stack(values, axis=1), tuple(columns), units, notes


def _published_count(path: Path) -> int | None:
    """How many frames the publisher decoded; None where the metadata do not say. Raises: DamagedRecording; OSError."""
    try:
        return read_json(path, _Metadata).true_video_frame_count
    except FileNotFoundError:
        return None
    except LssvwmError as error:
        raise DamagedRecording(str(error)) from error


def _find(files: Sequence[Path]) -> list[Candidate]:
    streams: dict[Path, list[Path]] = {}
    for path in files:
        if path.name in (VIDEO, ARRAYS, METADATA):
            streams.setdefault(path.parent, []).append(path)
    return [
        Candidate(folder, tuple(paths))
        for folder, paths in streams.items()
        if any(path.name in (VIDEO, ARRAYS) for path in paths)
    ]


def _recognises(path: Path) -> bool:
    return (path / ARRAYS).exists()


def _session(name: str) -> str:
    return name.rpartition("_")[0]  # of v3_<name>-<n>_<first tick>-<last tick>


FORMAT = Format(
    "minerl",
    f"folders with {VIDEO} and {ARRAYS}",
    _find,
    _recognises,
    read,
    session=_session,
    known_bad=KNOWN_BAD,
)
