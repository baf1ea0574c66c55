"""Reads LeRobot's data sets, version 3: Parquet and MP4 files that hold many episodes each.

    meta/info.json                                features, frames a second, splits, where files are
    meta/episodes/chunk-000/file-000.parquet      an episode a row: its length, and where its rows and frames lie
    data/chunk-000/file-000.parquet               action, observation.state, episode_index, frame_index
    videos/<camera>/chunk-000/file-000.mp4
    recording.toml                                optional: camera, units of actions, what columns of the state are

An action of row t was taken at frame t. Each episode is a recording of its own. `observation.state` is a pose where its
columns are named as poses are, or `recording.toml` says so; that of robots is not.
"""

import functools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from lssvwm_datasets.episode import Episode, null_at_first
from lssvwm_datasets.errors import DamagedRecording, LssvwmError
from lssvwm_datasets.format import DEFAULTS, Candidate, Format, ReaderOptions
from lssvwm_datasets.opening import opened_recording
from lssvwm_datasets.poses import KINDS
from lssvwm_datasets.recording_file import RecordingFile, about
from lssvwm_datasets.recording_tables import TAKEN_AT, actions_of, poses_of
from lssvwm_datasets.schema import convert, read_json
from lssvwm_datasets.tables import Column, Table, parquet_library, read_parquet, read_table
from lssvwm_datasets.ticks import stretches
from lssvwm_datasets.video import VideoInfo, probe_video, video_frames

INFO = Path("meta/info.json")
ACTION, STATE = "action", "observation.state"
OWN_ID, OWN_LAYOUT = "lssvwm/id", "lssvwm/layout"  # columns of episodes that `lssvwm export` adds
EPISODE_SUFFIX = ".episode"  # of paths that stand for episodes
ALIGNMENT = "row t was taken at frame t and led to frame t + 1; shifted by one"
PLACE = re.compile(r"\{(\w+)(?::0([1-9])d)?\}")
MOST_EPISODES = 10**6
LONGEST_TEXT = 2**16  # letters of an id or a layout


@dataclass(frozen=True)
class Feature:
    dtype: str
    shape: tuple[int, ...]
    names: Any = None

    def columns(self, name: str) -> list[str]:
        """A name for each of its numbers: its own where it has them, else NAME_0, NAME_1 and on."""
        names: Any = next(iter(self.names.values()), None) if isinstance(self.names, dict) else self.names
        count = self.shape[0] if self.shape else 1
        fits = isinstance(names, list) and len(names) == count and all(isinstance(one, str) and one for one in names)
        if fits and len(set(names)) == count:
            return list(names)
        return [name] if count == 1 else [f"{name}_{number}" for number in range(count)]


@dataclass(frozen=True)
class Info:
    codebase_version: str
    fps: float
    features: dict[str, Feature]
    data_path: str
    video_path: str | None = None
    splits: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not 0 < self.fps < 1e6:
            raise ValueError(f"fps is {self.fps}; expected a number above 0")


@dataclass(frozen=True)
class Part:
    """Where an episode lies: `start` is the second of its first frame in the camera's video."""

    index: int
    length: int
    data: Path
    video: Path
    start: float
    layout: str = ""


@dataclass(frozen=True)
class Dataset:
    info: Info
    camera: str
    said: RecordingFile
    episodes: dict[str, Part]  # by their ids


def find(files: Sequence[Path]) -> Iterator[Candidate]:
    """The episodes of every data set. Raises: LssvwmError for one that is damaged, or of another version."""
    known = set(files)
    for path in files:
        if path.parts[-2:] == INFO.parts and "codebase_version" in read_json(path, dict[str, Any]):
            root = path.parents[1]
            for id, part in load(root).episodes.items():
                inside = [file for file in (part.data, part.video) if file in known]
                yield Candidate(root / f"{id}{EPISODE_SUFFIX}", tuple(inside))


def read(path: Path, id: str, options: ReaderOptions = DEFAULTS) -> Iterator[Episode]:
    """Yields an episode, several where frames are missing. Raises: DamagedRecording; OSError; LssvwmError."""
    root = _root_of(path)
    dataset = load(root)
    part = dataset.episodes[path.relative_to(root).as_posix().removesuffix(EPISODE_SUFFIX)]
    info, said = dataset.info, dataset.said
    table = _rows(part, info, options.max_memory)
    actions = actions_of(_named(table, ACTION, info), said, TAKEN_AT, 0) if ACTION in info.features else None
    poses = None
    if STATE in info.features and (said.poses or set(info.features[STATE].columns(STATE)) <= set(KINDS)):
        poses = poses_of(_named(table, STATE, info), said, 0)
    shown = _look_into(part.video, _changed(part.video), options.max_memory)
    first, times = _frames_of(part, shown, info.fps)
    layout = replace(said, layout=tuple(filter(None, part.layout.split("/")))).map
    for stretch in stretches(path, id, times, part.length, info.fps):
        pose_rows, pose_names, pose_kinds = (None, (), ()) if poses is None else poses.canonical(stretch.rows)
        in_file = replace(stretch, start=first + stretch.start, stop=first + stretch.stop)
        rows = actions.rows[stretch.rows] if actions else np.zeros((stretch.length, 0), np.float32)
        yield Episode(
            id=stretch.id,
            frames=video_frames(part.video, in_file, options).resized(options.size),
            frame_size=options.frame_size(part.video, shown.size),
            actions=null_at_first(rows),
            action_names=actions.names if actions else (),
            action_units=actions.units if actions else (),
            source_alignment=ALIGNMENT,
            fps=info.fps,
            poses=pose_rows,
            pose_names=pose_names,
            pose_kinds=pose_kinds,
            layout=layout,
            notes=stretch.notes,
        )


def load(root: Path) -> Dataset:
    """The episodes of a data set, and what is said of them. Raises: LssvwmError naming the file; OSError."""
    return _load(root, (root / INFO).stat().st_mtime_ns)


@functools.lru_cache(maxsize=4)
def _load(root: Path, changed: int) -> Dataset:
    said = about(root)
    content = read_json(root / INFO, dict[str, Any])
    version = str(content.get("codebase_version"))
    if not version.startswith("v3"):
        raise LssvwmError(
            f"{root / INFO}: version {version}; versions v3 are read. Convert it with lerobot's own "
            "convert_dataset_v21_to_v30, or fetch a newer revision"
        )
    info = convert(str(root / INFO), content, Info)
    cameras = [name for name, feature in info.features.items() if feature.dtype == "video"]
    camera = said.camera or next(iter(cameras), "")
    if camera not in cameras or info.video_path is None:
        raise LssvwmError(
            f"{root / INFO}: no video {said.camera or 'at all'}; it has {', '.join(cameras) or 'none'}. Sets of single "
            "images are read once lerobot has written them as videos"
        )
    episodes: dict[str, Part] = {}
    for row in _episode_rows(root, camera):
        index = row["episode_index"]
        data = _path(root, info.data_path, row["data/chunk_index"], row["data/file_index"], camera)
        place = [row[f"videos/{camera}/{name}"] for name in ("chunk_index", "file_index", "from_timestamp")]
        video = _path(root, info.video_path, place[0], place[1], camera)
        id = row.get(OWN_ID) or f"{_split(info, index)}episode_{index:06d}"
        if id in episodes:
            raise LssvwmError(f"{root / INFO.parent}/episodes: {id} is there twice")
        episodes[id] = Part(index, row["length"], data, video, float(place[2]), row.get(OWN_LAYOUT) or "")
    return Dataset(info, camera, said, episodes)


def _episode_rows(root: Path, camera: str) -> Iterator[dict[str, Any]]:
    """Raises: LssvwmError for tables that are damaged; OSError."""
    whole = ["episode_index", "length", "data/chunk_index", "data/file_index"]
    whole += [f"videos/{camera}/{name}" for name in ("chunk_index", "file_index")]
    start = f"videos/{camera}/from_timestamp"
    for path in sorted((root / "meta/episodes").glob("*/*.parquet")):
        with opened_recording(path, "Parquet table") as file:
            names = set(parquet_library().read_schema(file).names)
            own = [name for name in (OWN_ID, OWN_LAYOUT) if name in names]
            content = parquet_library().ParquetFile(file, read_dictionary=own)
            if missing := [name for name in (*whole, start) if name not in names]:
                raise LssvwmError(f"{path}: no column {missing[0]}")
            if content.metadata.num_rows > MOST_EPISODES:
                raise LssvwmError(f"{path}: {content.metadata.num_rows} episodes are too many")
            wanted = [*whole, start, *own]
            table = read_parquet(path, content, wanted, DEFAULTS.max_memory, own)
            columns = [_texts(path, table, name) if name in own else table[name].to_pylist() for name in wanted]
            for number, values in enumerate(zip(*columns, strict=True)):
                row = dict(zip(wanted, values, strict=True))
                fits = all(type(row[name]) is int and 0 <= row[name] < 2**53 for name in whole) and row["length"] > 0
                if not fits or type(row[start]) not in (int, float) or not 0 <= row[start] < 2**53:
                    raise LssvwmError(f"{path}: row {number}: expected numbers from 0 on, found {list(values)}")
                if not _is_inside(row.get(OWN_ID) or "id"):
                    raise LssvwmError(f"{path}: row {number}: {OWN_ID} is {row[OWN_ID][:40]!r}, expected a path below")
                yield row


def _texts(path: Path, table: Any, name: str) -> Iterator[str | None]:
    """What a column of texts says, row by row; a text that is repeated is held once. Raises: LssvwmError."""
    for part in table[name].chunks:
        texts = part.dictionary.to_pylist() if hasattr(part, "dictionary") else [0]
        if not all(isinstance(text, str) and len(text) <= LONGEST_TEXT for text in texts):
            raise LssvwmError(f"{path}: column {name}: expected texts of at most {LONGEST_TEXT} letters")
        yield from (None if number is None else texts[number] for number in part.indices.to_pylist())


def _is_inside(path: str) -> bool:
    """Whether it leads from a folder to what is below it, and is written in the one way."""
    inside = PurePosixPath(path)
    return not inside.is_absolute() and ".." not in inside.parts and inside.as_posix() == path and "\0" not in path


def _path(root: Path, template: str, chunk: int, file: int, camera: str) -> Path:
    """A file of the data set. Raises: LssvwmError for a template that leads elsewhere."""
    values: dict[str, Any] = {"chunk_index": chunk, "file_index": file, "video_key": camera}
    filled = PLACE.sub(
        lambda m: f"{values.get(m[1], m[0]):0{m[2]}d}" if m[2] else str(values.get(m[1], m[0])), template
    )
    if "{" in filled or not _is_inside(filled):
        raise LssvwmError(
            f"{root / INFO}: files at {template!r}; expected a path below the data set, such as "
            "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
        )
    return root / filled


def _split(info: Info, index: int) -> str:
    """The folder that names an episode's split; empty where there is one split alone, so that some are held out."""
    if len(info.splits) < 2:
        return ""
    for name, place in info.splits.items():
        first, _, last = place.partition(":")
        if first.isdecimal() and last.isdecimal() and int(first) <= index < int(last):
            return f"{name.replace('/', '-')}/"
    return ""


def _root_of(path: Path) -> Path:
    return next(folder for folder in path.parents if (folder / INFO).is_file())


def _rows(part: Part, info: Info, max_memory: int) -> Table:
    """The rows of an episode. Raises: DamagedRecording; OSError."""
    wanted = frozenset({"episode_index", "frame_index", *({ACTION, STATE} & set(info.features))})
    table = _read_data(part.data, _changed(part.data), wanted, max_memory)
    table.require(("episode_index", "frame_index"))
    rows = np.flatnonzero(table.columns["episode_index"].values == part.index)
    numbers = table.columns["frame_index"].values[rows]
    if len(rows) != part.length or not np.array_equal(numbers, np.arange(part.length)):
        raise DamagedRecording(
            f"{part.data}: episode {part.index} has {len(rows)} rows; expected {part.length}, of frame_index 0 and on"
        )
    columns = {name: Column(column.values[rows], column.whole) for name, column in table.columns.items()}
    return Table(part.data, columns, part.length)


def _changed(path: Path) -> int:
    """When a file was changed: what was read of it before counts no longer. 0 for none, of which reading tells."""
    return path.stat().st_mtime_ns if path.is_file() else 0


@functools.lru_cache(maxsize=2)
def _read_data(path: Path, changed: int, wanted: frozenset[str], max_memory: int) -> Table:
    return read_table(path, max_memory, lambda name: name not in wanted)


@functools.lru_cache(maxsize=2)
def _look_into(path: Path, changed: int, max_memory: int) -> VideoInfo:
    return probe_video(path, max_memory)


def _named(table: Table, name: str, info: Info) -> Table:
    """The columns of a feature under their own names. Raises: DamagedRecording."""
    names = info.features[name].columns(name)
    stored = [name] if name in table.columns else [f"{name}_{number}" for number in range(len(names))]
    table.require(stored)
    return replace(table, columns={own: table.columns[key] for own, key in zip(names, stored, strict=True)})


def _frames_of(part: Part, shown: VideoInfo, fps: float) -> tuple[int, tuple[float, ...]]:
    """The number of an episode's first frame in its video, and when each of its frames is shown, from 0 on.

    Raises: DamagedRecording where the video has none of them.
    """
    first, last = np.searchsorted(shown.times, [part.start - 0.5 / fps, part.start + (part.length - 0.5) / fps])
    if first == last:
        raise DamagedRecording(
            f"{part.video}: no frames of episode {part.index}, from {part.start:.2f} s on; it ends at "
            f"{shown.times[-1]:.2f} s"
        )
    return int(first), tuple(max(0.0, time - part.start) for time in shown.times[first:last])


def _recognises(path: Path) -> bool:
    return any((folder / INFO).is_file() for folder in path.parents)


FORMAT = Format(
    "lerobot",
    "LeRobot data sets of version 3, with meta/info.json",
    find,
    _recognises,
    read,
)
