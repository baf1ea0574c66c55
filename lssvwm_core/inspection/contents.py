"""What recordings, shards or a video hold: counts, lengths, actions, statistics, and a contact sheet."""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lssvwm_core.video import Frames, action_sheet, contact_sheet
from lssvwm_datasets.errors import DamagedRecording, LssvwmError
from lssvwm_datasets.index import INDEX_FILE, read_index
from lssvwm_datasets.poses import places_of
from lssvwm_datasets.shards import open_shards
from lssvwm_datasets.sources import find_recordings
from lssvwm_datasets.video import read_video

SHEET_COLUMNS, SHEET_ROWS = 8, 4
VIDEO_COLUMNS, VIDEO_ROWS = 4, 5
VIDEO_SUFFIXES = (".mp4", ".avi", ".mkv", ".webm", ".mov")


@dataclass
class Inspection:
    """Figures of a folder, ready for JSON, and the picture."""

    kind: str
    path: str
    splits: dict[str, dict[str, Any]] = field(default_factory=dict)  # episodes, frames, lengths
    action_counts: dict[str, int] = field(default_factory=dict)  # frames in which a column is not zero
    details: dict[str, Any] = field(default_factory=dict)
    skipped: list[dict[str, str]] = field(default_factory=list)
    sheet: Image.Image | None = None


def inspect_path(path: Path) -> Inspection:
    """Inspect a video file, shards where there is an index, recordings elsewhere. Raises: LssvwmError."""
    if is_video(path):
        return _inspect_video(path)
    return _inspect_shards(path) if (path / INDEX_FILE).exists() else _inspect_recordings(path)


def is_video(path: Path) -> bool:
    return path.suffix.lower() in VIDEO_SUFFIXES


def _inspect_recordings(path: Path) -> Inspection:
    inspection = Inspection("recordings", str(path))
    lengths: dict[str, list[int]] = {}
    counts: dict[str, int] = {}
    tracks: list[NDArray[np.floating]] = []  # where the agent went, (T, 2) an episode
    for recording in find_recordings(path):
        try:
            for episode in recording.episodes():
                lengths.setdefault(recording.split, []).append(episode.length)
                for name, count in zip(episode.action_names, np.count_nonzero(episode.actions, axis=0), strict=True):
                    counts[name] = counts.get(name, 0) + int(count)
                if episode.poses is not None:
                    places = places_of(episode.poses, episode.pose_names, episode.pose_kinds)
                    tracks += [] if places is None else [places]
                if inspection.sheet is None:
                    inspection.details = {
                        "dataset": recording.format.name,
                        "frame_size": list(episode.frame_size),
                        "fps": episode.fps,
                        "poses": list(episode.pose_names),
                        "map": None if episode.layout is None else list(episode.layout.shape),
                    }
                    first = next(iter(episode.frames))
                    inspection.sheet = _sheet(first, episode.actions, episode.action_names)
        except DamagedRecording as error:
            inspection.skipped.append({"id": recording.id, "reason": str(error)})
    if not lengths:
        raise LssvwmError(f"{path}: none of its recordings can be read; the first: {inspection.skipped[0]['reason']}")
    if tracks:
        steps = np.concatenate([np.linalg.norm(np.diff(track, axis=0), axis=1) for track in tracks])
        inspection.details["cells_per_step"] = round(float(steps.mean()), 4)
    inspection.splits = {split: _figures(np.array(numbers)) for split, numbers in sorted(lengths.items())}
    inspection.action_counts = counts
    return inspection


def _inspect_shards(path: Path) -> Inspection:
    index = read_index(path)
    skipped = [asdict(entry) for entry in index.skipped]
    inspection = Inspection("shards", str(path), skipped=skipped, action_counts=index.action_counts)
    keys = ("dataset", "frame_size", "fps", "pose_names", "autoencoder", "latent_shape")
    inspection.details = {key: getattr(index, key) for key in keys} | {"shards": len(index.shards)}
    for split in index.splits:
        shards = open_shards(path, split)
        inspection.splits[split] = _figures(np.array([episode.length for episode in shards.episodes]))
        stds = [std for entry in index.shards if entry.split == split and entry.episodes for std in entry.latent_std]
        inspection.splits[split]["latent_std"] = round(float(np.mean(stds)), 3)
        first = shards.episodes[0]
        frames, actions = shards.read(first, "frames"), shards.read(first, "actions")
        if frames is not None and actions is not None:
            inspection.sheet = _sheet(frames, actions, shards.header.action_names)
    return inspection


def _inspect_video(path: Path) -> Inspection:
    """Reads the video twice, to spread the sheet's frames evenly without keeping the whole of it."""
    if not path.exists():
        raise LssvwmError(f"{path}: no such file")
    if not path.is_file():
        raise LssvwmError(f"{path}: not a regular file; expected a video")
    count = sum(len(part) for part in read_video(path))
    wanted = np.linspace(0, count - 1, min(count, VIDEO_COLUMNS * VIDEO_ROWS)).astype(int)
    chosen, start = [], 0
    for part in read_video(path):
        chosen.append(part[wanted[(wanted >= start) & (wanted < start + len(part))] - start])
        start += len(part)
    frames = np.concatenate(chosen)
    sheet = contact_sheet(frames, [f"frame {number}" for number in wanted], VIDEO_COLUMNS, 1)
    figures = {"video": {"frames": count, "height": frames.shape[1], "width": frames.shape[2]}}
    return Inspection("video", str(path), splits=figures, sheet=sheet)


def _figures(lengths: NDArray[np.integer]) -> dict[str, Any]:
    return {
        "episodes": len(lengths),
        "frames": int(lengths.sum()),
        "shortest": int(lengths.min()),
        "median": int(np.median(lengths)),
        "longest": int(lengths.max()),
    }


def _sheet(frames: Frames, actions: NDArray[np.float32], names: tuple[str, ...]) -> Image.Image:
    """The first frames, so that alignment can be checked by eye."""
    count = min(len(frames), SHEET_COLUMNS * SHEET_ROWS)
    return action_sheet(frames[:count], actions[:count], names, 0, SHEET_COLUMNS)
