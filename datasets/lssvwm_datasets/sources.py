"""Recordings on disk: the files of a source folder and the split each belongs to."""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from lssvwm_datasets.episode import Episode
from lssvwm_datasets.errors import LssvwmError
from lssvwm_datasets.memory_maze import reader as memory_maze_reader

TRAIN, VALIDATION = "train", "validation"
SPLITS = (TRAIN, VALIDATION)
VALIDATION_NAMES = {"eval", "val", "valid", "validation", "test"}
HELD_OUT = 10  # without split folders, one file in ten is held out for validation


@dataclass(frozen=True)
class Format:
    """How one dataset is read. Adding a dataset is a module with `read` and a line in `FORMATS`."""

    name: str
    pattern: str  # files of the source folder that hold episodes
    read: Callable[[Path, str], Iterator[Episode]]  # (file, episode id) -> its episodes, one at a time


FORMATS = {"maze": Format("maze", "*.npz", memory_maze_reader.read)}


@dataclass(frozen=True)
class Recording:
    """One file of a source; `id` is its path below the source, with forward slashes and without suffix."""

    path: Path
    id: str
    split: str
    format: Format

    def episodes(self) -> Iterator[Episode]:
        """Yields the file's episodes. Raises: DamagedRecording."""
        return self.format.read(self.path, self.id)


def find_recordings(source: Path, format_name: str) -> list[Recording]:
    """The recordings below `source`, at any depth, sorted by id.

    A file belongs to the split that a folder on its way names (`train`, `training`, `train-part3`; `eval`, `val`,
    `validation`, `test`). Where no folder names one, a tenth of the files, chosen by their name, is validation.

    Raises: LssvwmError when there is nothing to read.
    """
    if not source.exists():
        raise LssvwmError(f"{source}: no such folder; expected recordings ({format_name})")
    format = FORMATS[format_name]
    root, paths = (source, source.rglob(format.pattern)) if source.is_dir() else (source.parent, [source])
    recordings = []
    for path in paths:
        relative = path.relative_to(root)
        if not any(part.startswith(".") for part in relative.parts):
            folders = (root.name, *relative.parts[:-1])
            id = relative.with_suffix("").as_posix()
            recordings.append(Recording(path, id, _split_named_by(folders) or _split_by_hash(path.stem), format))
    if not recordings:
        raise LssvwmError(f"{source}: no {format_name} recordings found; expected {format.pattern} files, at any depth")
    return sorted(recordings, key=lambda recording: recording.id)


def sample_recordings() -> Path:
    """The folder of real Memory Maze episodes that ships with the package."""
    return Path(str(resources.files("lssvwm_datasets") / "samples" / "maze"))


def _split_named_by(folders: tuple[str, ...]) -> str | None:
    for folder in reversed(folders):
        if folder.lower() in VALIDATION_NAMES:
            return VALIDATION
        if folder.lower().startswith("train"):
            return TRAIN
    return None


def _split_by_hash(stem: str) -> str:
    return VALIDATION if int(hashlib.sha256(stem.encode()).hexdigest(), 16) % HELD_OUT == 0 else TRAIN
