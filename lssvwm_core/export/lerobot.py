"""Writes LeRobot's data sets, version 3, which `lssvwm_datasets.lerobot` describes and reads.

Episodes lie one after another in Parquet and MP4 files of about `FILE_FRAMES` frames. The action of row t is the one
that led to frame t + 1; that of an episode's last row is null. Poses are `observation.state`.
"""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tomli_w
from numpy.typing import NDArray

from lssvwm_core.export.episodes import Exported
from lssvwm_core.export.folder import about, layout_rows, require_same
from lssvwm_core.video import video_writer
from lssvwm_datasets.episode import Episode
from lssvwm_datasets.errors import LssvwmError
from lssvwm_datasets.files import write_json, write_text, written_whole
from lssvwm_datasets.lerobot import ACTION, INFO, OWN_ID, OWN_LAYOUT, STATE
from lssvwm_datasets.recording_file import RECORDING_FILE
from lssvwm_datasets.tables import parquet_library

CAMERA = "observation.image"
FILE_FRAMES = 20_000
CHUNK_FILES = 1000  # files of a folder
TASK = "walk around"
FILE = "chunk-{chunk_index:03d}/file-{file_index:03d}"
DATA_PATH, VIDEO_PATH = f"data/{FILE}.parquet", f"videos/{{video_key}}/{FILE}.mp4"
COUNTERS = ("frame_index", "episode_index", "index", "task_index")


class Statistics:
    """Least, greatest, mean and deviation of each column, over all rows that were added."""

    def __init__(self) -> None:
        self.count = 0
        self.least = self.greatest = self.total = self.squares = np.zeros(0)

    def add(self, rows: NDArray[np.floating]) -> None:
        """(n, columns)"""
        rows = rows.astype(np.float64)
        least, greatest = rows.min(axis=0), rows.max(axis=0)
        self.least = np.minimum(self.least, least) if self.count else least
        self.greatest = np.maximum(self.greatest, greatest) if self.count else greatest
        self.total = rows.sum(axis=0) + (self.total if self.count else 0.0)
        self.squares = np.square(rows).sum(axis=0) + (self.squares if self.count else 0.0)
        self.count += len(rows)

    def content(self, shape: tuple[int, ...]) -> dict[str, Any]:
        mean = self.total / self.count
        deviation = np.sqrt(np.maximum(self.squares / self.count - mean**2, 0))
        values = {"min": self.least, "max": self.greatest, "mean": mean, "std": deviation}
        return {**{key: value.reshape(shape).tolist() for key, value in values.items()}, "count": [self.count]}


def write(episodes: Iterable[Exported], out: Path) -> Iterator[Exported]:
    """Write a data set of version 3.

    Raises: LssvwmError for episodes that differ in their columns, and where pyarrow is not installed.
    """
    parquet_library()
    remaining = iter(episodes)
    exported = next(remaining, None)
    if exported is None:
        return
    first, said = exported.episode, about(exported.episode)
    statistics = {name: Statistics() for name in _features(first)}
    listed: list[dict[str, Any]] = []
    number = 0
    while exported is not None:
        place = {"chunk_index": number // CHUNK_FILES, "file_index": number % CHUNK_FILES}
        rows: list[dict[str, NDArray[Any]]] = []
        inside = 0  # frames in this file
        with video_writer(out / VIDEO_PATH.format(video_key=CAMERA, **place), first.fps, exact=True) as video:
            while exported is not None and inside < FILE_FRAMES:
                episode = exported.episode
                require_same(said, episode)
                if episode.frame_size != first.frame_size:
                    raise LssvwmError(f"{episode.id}: frames of {episode.frame_size}, expected {first.frame_size}")
                for frames in episode.frames:
                    video.append(frames)
                    statistics[CAMERA].add(frames.reshape(-1, 3) / 255)
                listed.append(_listing(exported, place, len(listed), inside, listed[-1] if listed else None))
                rows.append(_rows(episode, listed[-1]))
                for name, values in rows[-1].items():
                    statistics[name].add(values)
                inside += episode.length
                yield exported
                exported = next(remaining, None)
        _write_data(out / DATA_PATH.format(**place), rows)
        number += 1
    _write_table(out / f"meta/episodes/{FILE.format(chunk_index=0, file_index=0)}.parquet", _columns_of(listed))
    _write_table(out / "meta/tasks.parquet", {"task_index": [0], "task": [TASK]}, _index_by("task"))
    content = {
        name: statistic.content((-1, 1, 1) if name == CAMERA else (-1,)) for name, statistic in statistics.items()
    }
    write_json(out / "meta/stats.json", content)
    write_text(out / RECORDING_FILE, tomli_w.dumps(said))
    write_json(out / INFO, _info(first, listed))


def _features(episode: Episode) -> dict[str, dict[str, Any]]:
    """What `info.json` says of each column that an episode has."""
    height, width = episode.frame_size
    video = {"height": height, "width": width, "codec": "h264", "pix_fmt": "gbrp", "fps": _rate(episode), "channels": 3}
    features: dict[str, dict[str, Any]] = {
        CAMERA: {
            "dtype": "video",
            "shape": [height, width, 3],
            "names": ["height", "width", "channels"],
            "info": {**{f"video.{key}": value for key, value in video.items()}, "has_audio": False},
        }
    }
    for name, columns in ((ACTION, episode.action_names), (STATE, episode.pose_names)):
        if columns:
            features[name] = {"dtype": "float32", "shape": [len(columns)], "names": list(columns)}
    features["timestamp"] = {"dtype": "float32", "shape": [1], "names": None}
    return features | {name: {"dtype": "int64", "shape": [1], "names": None} for name in COUNTERS}


def _info(first: Episode, listed: list[dict[str, Any]]) -> dict[str, Any]:
    splits = [entry["split"] for entry in listed]
    return {
        "codebase_version": "v3.0",
        "robot_type": None,
        "total_episodes": len(listed),
        "total_frames": listed[-1]["dataset_to_index"],
        "total_tasks": 1,
        "chunks_size": CHUNK_FILES,
        "data_files_size_in_mb": 100,
        "video_files_size_in_mb": 500,
        "fps": _rate(first),
        "splits": {  # episodes come split by split
            name: f"{splits.index(name)}:{splits.index(name) + splits.count(name)}" for name in dict.fromkeys(splits)
        },
        "data_path": DATA_PATH,
        "video_path": VIDEO_PATH,
        "features": _features(first),
    }


def _rate(episode: Episode) -> int | float:
    """LeRobot wants a whole number where it is one."""
    return int(episode.fps) if episode.fps == int(episode.fps) else episode.fps


def _listing(
    exported: Exported, place: dict[str, int], index: int, inside: int, before: dict[str, Any] | None
) -> dict[str, Any]:
    """The row of an episode that begins `inside` frames after the beginning of its file."""
    episode = exported.episode
    start = before["dataset_to_index"] if before else 0
    places = {f"{key}/{name}": value for key in ("data", f"videos/{CAMERA}") for name, value in place.items()}
    return {
        "episode_index": index,
        "tasks": [TASK],
        "length": episode.length,
        "dataset_from_index": start,
        "dataset_to_index": start + episode.length,
        **places,
        f"videos/{CAMERA}/from_timestamp": inside / episode.fps,
        f"videos/{CAMERA}/to_timestamp": (inside + episode.length) / episode.fps,
        "meta/episodes/chunk_index": 0,
        "meta/episodes/file_index": 0,
        "split": exported.split,
        OWN_ID: exported.path.as_posix(),
        OWN_LAYOUT: "" if episode.layout is None else "/".join(layout_rows(episode.layout)),
    }


def _rows(episode: Episode, listing: dict[str, Any]) -> dict[str, NDArray[Any]]:
    """(T, columns) of each feature but the video."""
    steps = np.arange(episode.length, dtype=np.int64)
    rows: dict[str, NDArray[Any]] = {}
    if episode.action_names:
        rows[ACTION] = np.concatenate([episode.actions[1:], np.zeros_like(episode.actions[:1])])
    if episode.poses is not None:
        rows[STATE] = episode.poses
    rows["timestamp"] = (steps / episode.fps).astype(np.float32)[:, None]
    index = listing["episode_index"]
    counters = (steps, np.full_like(steps, index), listing["dataset_from_index"] + steps, np.zeros_like(steps))
    return rows | {name: values[:, None] for name, values in zip(COUNTERS, counters, strict=True)}


def _write_data(path: Path, parts: list[dict[str, NDArray[Any]]]) -> None:
    import pyarrow

    columns: dict[str, Any] = {}
    for name in parts[0]:
        rows = np.concatenate([part[name] for part in parts])
        flat = pyarrow.array(rows.reshape(-1))
        columns[name] = flat if rows.shape[1] == 1 else pyarrow.FixedSizeListArray.from_arrays(flat, rows.shape[1])
    _write_table(path, columns)


def _write_table(path: Path, columns: dict[str, Any], metadata: dict[str, str] | None = None) -> None:
    import pyarrow

    with written_whole(path) as partial:
        table = pyarrow.table(columns)
        parquet_library().write_table(table.replace_schema_metadata(metadata) if metadata else table, partial)


def _columns_of(rows: list[dict[str, Any]]) -> dict[str, list[Any]]:
    return {name: [row[name] for row in rows] for name in rows[0]}


def _index_by(name: str) -> dict[str, str]:
    """Lets pandas take a column of texts for the table's index, as LeRobot has its tasks."""
    text = {"pandas_type": "unicode", "numpy_type": "object", "metadata": None}
    columns = [
        {
            "name": "task_index",
            "field_name": "task_index",
            "pandas_type": "int64",
            "numpy_type": "int64",
            "metadata": None,
        },
        {"name": name, "field_name": name, **text},
    ]
    content = {"index_columns": [name], "column_indexes": [], "columns": columns, "pandas_version": "2.0.0"}
    return {"pandas": json.dumps(content)}
