"""Reads recordings of one's own: videos or folders of pictures, with a table of actions and perhaps one of poses.

    walk1.mp4   walk1.csv   walk1.poses.csv     or .jsonl, .parquet, .npz, and .avi, .mkv, .mov, .webm
    walk2/000000.png …      walk2.csv           or inside the folder: actions.csv, poses.csv
    walk3/film.mp4          walk3/actions.csv   where a folder has one video
    recording.toml          what cannot be guessed (`recording_file`); walk1.toml: for walk1 alone

Without a table of actions a recording is unlabelled video. How rows belong to frames: `recording_tables`.
"""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from lssvwm_datasets import pictures
from lssvwm_datasets.episode import Episode, null_at_first
from lssvwm_datasets.errors import DamagedRecording
from lssvwm_datasets.format import DEFAULTS, Candidate, Format, ReaderOptions
from lssvwm_datasets.recording_file import RECORDING_FILE, about, files_about
from lssvwm_datasets.recording_tables import LED_TO, TAKEN_AT, Actions, read_conditions
from lssvwm_datasets.tables import SUFFIXES, column_names
from lssvwm_datasets.ticks import stretches
from lssvwm_datasets.video import probe_video, video_frames

VIDEOS = (".mp4", ".avi", ".mkv", ".mov", ".webm")
ACTIONS, POSES = "actions", "poses"
ALIGNMENT = "every action with the frame that it led to; a row taken at frame t is the action of frame t + 1"
LEROBOT_INFO = "meta/info.json"


def find(files: Sequence[Path]) -> Iterator[Candidate]:
    """Videos, and folders of pictures that have no video, with the tables and files about them."""
    folders: dict[Path, list[Path]] = {}
    for path in files:
        folders.setdefault(path.parent, []).append(path)
    known = set(files)
    for folder, inside in folders.items():
        videos = [path for path in inside if path.suffix.lower() in VIDEOS]
        shown = [path for path in inside if path.suffix.lower() in pictures.SUFFIXES]
        for recording in videos or ([folder] if shown else []):
            beside = [*_tables(recording, ACTIONS, videos), *_tables(recording, POSES, videos), *files_about(recording)]
            yield Candidate(
                recording, (*([recording] if videos else shown), *(path for path in beside if path in known))
            )


def read(path: Path, id: str, options: ReaderOptions = DEFAULTS) -> Iterator[Episode]:
    """Yields the episode of a video or a folder of pictures, several where frames are missing.

    Raises: DamagedRecording naming the file, row and column; OSError; LssvwmError for a `recording.toml` that is wrong.
    """
    said = about(path)
    if path.is_dir():
        inside = [path / name for name in os.listdir(path) if not name.startswith(".")]
        shown, numbers = pictures.in_order([one for one in inside if one.suffix.lower() in pictures.SUFFIXES])
        if said.fps is None:
            raise DamagedRecording(
                f"{path}: pictures do not tell how many make a second: write fps = 20 into {RECORDING_FILE}"
            )
        size, fps = pictures.picture_size(shown[0], options), said.fps
        times = tuple(number / fps for number in numbers)
    else:
        info = probe_video(path, options.max_memory)
        size, times = info.size, info.times
        fps = said.fps or _usual_rate(times) or info.fps
    actions, poses = read_conditions(_table_of(path, ACTIONS), _table_of(path, POSES), said, options.max_memory)
    if actions is None and said.actions:
        raise DamagedRecording(
            f"{path}: no table of actions beside it; {RECORDING_FILE} names {', '.join(said.actions)}"
        )
    rows = min([len(part.rows) for part in (actions, poses) if part is not None], default=round(times[-1] * fps) + 1)
    actions = actions or Actions(np.zeros((rows, 0), np.float32), (), ())
    for stretch in stretches(path, id, times, rows, fps):
        pose_rows, pose_names, pose_kinds = (None, (), ()) if poses is None else poses.canonical(stretch.rows)
        if path.is_dir():
            frames = pictures.picture_frames(shown[stretch.start : stretch.stop], size)
        else:
            frames = video_frames(path, stretch, options)
        yield Episode(
            id=stretch.id,
            frames=frames.resized(options.size),
            frame_size=options.frame_size(path, size),
            actions=null_at_first(actions.rows[stretch.rows]),
            action_names=actions.names,
            action_units=actions.units,
            source_alignment=ALIGNMENT,
            fps=fps,
            poses=pose_rows,
            pose_names=pose_names,
            pose_kinds=pose_kinds,
            layout=said.map,
            notes=stretch.notes,
        )


def _tables(recording: Path, what: str, videos: Sequence[Path]) -> list[Path]:
    """Where the table of a recording's actions or poses may lie; `videos` are those of its folder."""
    name, inside = (recording.name, recording) if not videos else (recording.stem, recording.parent)
    own = name if what == ACTIONS else f"{name}.{what}"
    return [
        path
        for suffix in SUFFIXES
        for path in (recording.with_name(own + suffix), *([inside / (what + suffix)] if len(videos) < 2 else []))
    ]


def _table_of(recording: Path, what: str) -> Path | None:
    """The table of a recording's actions or poses; None where there is none. Raises: DamagedRecording where two are."""
    found = [path for path in _tables(recording, what, _videos_beside(recording)) if path.is_file()]
    if len(found) > 1:
        raise DamagedRecording(f"{found[0]} and {found[1]}: two tables of {what} for one recording; remove one")
    return found[0] if found else None


def _videos_beside(recording: Path) -> list[Path]:
    """The videos of a recording's folder, itself among them; none for a folder of pictures."""
    inside = [] if recording.is_dir() else os.listdir(recording.parent)
    return [recording.with_name(name) for name in inside if Path(name).suffix.lower() in VIDEOS]


def _usual_rate(times: tuple[float, ...]) -> float:
    """Frames a second by the usual step, so that missing frames do not count; 0 for a single frame."""
    step = float(np.median(np.diff(times))) if len(times) > 1 else 0.0
    return round(1 / step, 2) if step > 0 else 0.0


def _recognises(path: Path) -> bool:
    """Whether something says that it is a recording of one's own: a file about it, or a column of frame numbers."""
    if not path.exists() or any((folder / LEROBOT_INFO).is_file() for folder in path.parents):
        return False
    tables = [table for table in _tables(path, ACTIONS, _videos_beside(path)) if table.is_file()]
    says = any(column_names(table) & {LED_TO, TAKEN_AT} for table in tables)
    return says or any(file.is_file() for file in files_about(path))


FORMAT = Format(
    "folder",
    "videos or folders of pictures, with a table of actions that has a column led_to or taken_at or a recording.toml",
    find,
    _recognises,
    read,
)
