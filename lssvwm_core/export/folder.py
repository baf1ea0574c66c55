"""Writes what `lssvwm prepare folder` reads: a video and tables for each episode, and a `recording.toml` for all."""

import csv
import io
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tomli_w
from numpy.typing import NDArray

from lssvwm_core.export.episodes import Exported
from lssvwm_core.video import video_writer
from lssvwm_datasets.episode import Episode
from lssvwm_datasets.errors import LssvwmError
from lssvwm_datasets.files import write_text
from lssvwm_datasets.poses import kinds_of
from lssvwm_datasets.recording_file import RECORDING_FILE
from lssvwm_datasets.recording_tables import BINARY, LED_TO, ONE_HOT


def write(episodes: Iterable[Exported], out: Path) -> Iterator[Exported]:
    """One recording for each episode, under its split and id. Raises: LssvwmError."""
    said: dict[str, Any] | None = None
    for exported in episodes:
        said = said or about(exported.episode)
        require_same(said, exported.episode)
        target = out / exported.path
        if target.with_name(f"{target.name}.mp4").exists():
            raise LssvwmError(f"{exported.episode.id}: another episode has the name {exported.path} already")
        write_recording(exported.episode, target)
        yield exported
    if said is not None:
        write_text(out / RECORDING_FILE, tomli_w.dumps(said))


def write_recording(episode: Episode, target: Path) -> list[Path]:
    """The files of an episode: `target` with `.mp4`, `.csv`, `.poses.csv` and `.toml` appended; which there are."""
    files = [target.with_name(f"{target.name}{suffix}") for suffix in (".mp4", ".csv", ".poses.csv", ".toml")]
    video, actions, poses, own = files
    with video_writer(video, episode.fps, exact=True) as writer:
        for frames in episode.frames:
            writer.append(frames)
    if episode.action_names:
        whole = [unit in (BINARY, ONE_HOT) for unit in episode.action_units]
        numbers = [[number, *row] for number, row in enumerate(_as_text(episode.actions, whole))]
        write_text(actions, _csv([LED_TO, *episode.action_names], numbers))
    if episode.poses is not None:
        write_text(poses, _csv(list(episode.pose_names), _as_text(episode.poses, [False] * len(episode.pose_names))))
    if episode.layout is not None:
        write_text(own, tomli_w.dumps({"layout": layout_rows(episode.layout)}))
    return [path for path in files if path.exists()]


def about(episode: Episode) -> dict[str, Any]:
    """What `recording.toml` says of episodes like this one."""
    said: dict[str, Any] = {"fps": episode.fps}
    kinds = kinds_of(episode.pose_names, episode.pose_kinds)
    if "pitch" in kinds:
        said["angles"] = "radians"
    if episode.action_names:
        said["actions"] = dict(zip(episode.action_names, episode.action_units, strict=True))
    if kinds:
        said["poses"] = dict(zip(episode.pose_names, kinds, strict=True))
    return said


def require_same(said: dict[str, Any], episode: Episode) -> None:
    """Check that an episode has the actions, poses and frames a second of those before. Raises: LssvwmError if not."""
    if (found := about(episode)) != said:
        key = next(key for key in {**said, **found} if said.get(key) != found.get(key))
        raise LssvwmError(f"{episode.id}: {key} {found.get(key)}, expected {said.get(key)} as in the other episodes")


def layout_rows(layout: NDArray[np.uint8]) -> list[str]:
    """A map as texts, a row each."""
    return ["".join(map(str, row)) for row in layout.tolist()]


def _as_text(rows: NDArray[np.float32], whole: list[bool]) -> list[list[str]]:
    """The shortest digits that give the same float32; whole numbers without a point."""
    return [
        [str(int(cell)) if is_whole else str(cell) for cell, is_whole in zip(row, whole, strict=True)] for row in rows
    ]


def _csv(names: list[str], rows: Iterable[list[Any]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([names, *rows])
    return text.getvalue()
