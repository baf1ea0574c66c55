"""Recordings on disk: the files of a source folder, their format, and the split each belongs to."""

import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path

import numpy as np

from lssvwm_datasets import minerl, teco, vpt, worldmem
from lssvwm_datasets.environments import ENVIRONMENTS
from lssvwm_datasets.episode import Episode
from lssvwm_datasets.errors import DamagedRecording, LssvwmError
from lssvwm_datasets.format import DEFAULTS, Candidate, Format, ReaderOptions

FORMATS = (minerl.FORMAT, vpt.FORMAT, teco.MINECRAFT, teco.DMLAB, worldmem.FORMAT)  # beside the environments' own

TRAIN, VALIDATION = "train", "validation"
SPLITS = (TRAIN, VALIDATION)
VALIDATION_NAMES = {"eval", "val", "valid", "validation", "test"}
HELD_OUT = 10  # without split folders, one session in ten is held out for validation
LOOKED_INTO = 100  # candidates a folder that detection opens


def all_formats() -> dict[str, Format]:
    """Every format by its name: what the environments bring, then the others."""
    brought = [environment.format for environment in ENVIRONMENTS.values() if environment.format is not None]
    return {format.name: format for format in (*brought, *FORMATS)}


def format_names() -> tuple[str, ...]:
    """What a user may ask for: formats by their families."""
    return tuple(dict.fromkeys(format.family for format in all_formats().values()))


@dataclass(frozen=True)
class Recording:
    """One recording of a source; `id` is its path below the source, with forward slashes and without suffix."""

    path: Path
    files: tuple[Path, ...]
    id: str
    split: str
    format: Format
    options: ReaderOptions

    @property
    def bytes(self) -> int:
        """Size on disk."""
        return sum(path.stat().st_size for path in self.files)

    def episodes(self) -> Iterator[Episode]:
        """Yields the recording's episodes. Raises: DamagedRecording."""
        if name := next((name for name in self.options.skip if name in self.id), None):
            raise DamagedRecording(f"{self.path}: on the skip list ({name})")
        for episode in self.format.read(self.path, self.id, self.options):
            yield _shifted(episode, self.options.action_offset)


def find_recordings(source: Path, format_name: str | None = None, options: ReaderOptions = DEFAULTS) -> list[Recording]:
    """The recordings below `source`, at any depth, sorted by id.

    A recording belongs to the split that a folder on its way names (`train`, `training`, `train-part3`; `eval`, `val`,
    `validation`, `test`). Where no folder names one, a tenth of the sessions, chosen by name, is validation.

    Args:
        format_name: a format or a family of formats; None: any. Several formats are told apart by a look into files.

    Raises: LssvwmError when there is nothing to read, or when there are recordings of several formats.
    """
    if not source.exists():
        raise LssvwmError(f"{source}: no such folder; expected recordings ({format_name or ', '.join(format_names())})")
    root = source if source.is_dir() else source.parent
    files = sorted(_files_below(source) if source.is_dir() else root.iterdir())
    known = all_formats()
    formats = [format for format in known.values() if format_name in (None, format.name, format.family)]
    found = {format.name: list(format.find(files)) for format in formats}
    if not source.is_dir():
        found = {name: [item for item in items if source in item.files] for name, items in found.items()}
    if len(formats) > 1:
        found = {name: items for name, items in found.items() if _any_recognised(known[name], items)}
    found = {name: items for name, items in found.items() if items}
    if not found:
        looked_for = "; ".join(f"{format.name}: {format.looks_for}" for format in formats)
        raise LssvwmError(f"{source}: no recordings found; expected, at any depth, {looked_for}")
    if len(found) > 1:
        several = ", ".join(f"{name} ({items[0].path.relative_to(root)})" for name, items in found.items())
        raise LssvwmError(f"{source}: recordings of several formats: {several}; name the format, or a folder of one")
    ((name, candidates),) = found.items()
    recordings = [_recording(root, candidate, known[name], options) for candidate in candidates]
    return sorted(recordings, key=lambda recording: recording.id)


def sample_recordings() -> Path:
    """The folder of real Memory Maze episodes that ships with the package."""
    return Path(str(resources.files("lssvwm_datasets") / "samples" / "maze"))


def _files_below(folder: Path) -> Iterator[Path]:
    for path, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield from (Path(path, name) for name in names if not name.startswith("."))


def _any_recognised(format: Format, candidates: Sequence[Candidate]) -> bool:
    """Looks into some candidates of each folder."""
    folders: dict[Path, list[Path]] = {}
    for candidate in candidates:
        folders.setdefault(candidate.path.parent, []).append(candidate.path)
    chosen = (path for paths in folders.values() for path in paths[:: -(-len(paths) // LOOKED_INTO)])
    return any(map(format.recognises, chosen))


def _recording(root: Path, candidate: Candidate, format: Format, options: ReaderOptions) -> Recording:
    path = candidate.path
    relative = path.relative_to(root)
    name = path.name if path.is_dir() else path.stem
    id = (relative.parent / name).as_posix()
    split = _split_named_by((root.name, *relative.parts[:-1])) or _split_by_hash(format.session(name))
    return Recording(path, candidate.files, id, split, format, options)


def _split_named_by(folders: tuple[str, ...]) -> str | None:
    for folder in reversed(folders):
        if folder.lower() in VALIDATION_NAMES:
            return VALIDATION
        if folder.lower().startswith("train"):
            return TRAIN
    return None


def _split_by_hash(name: str) -> str:
    return VALIDATION if int(hashlib.sha256(name.encode()).hexdigest(), 16) % HELD_OUT == 0 else TRAIN


def _shifted(episode: Episode, offset: int) -> Episode:
    """The episode with every action `offset` frames later; null actions where none is known."""
    if offset == 0:
        return episode
    actions = np.zeros_like(episode.actions)
    if 0 < offset < episode.length:
        actions[offset:] = episode.actions[:-offset]
    elif -episode.length < offset < 0:
        actions[:offset] = episode.actions[-offset:]
    actions[0] = 0
    alignment = f"{episode.source_alignment}; taken {offset} frames later (--action-offset)"
    return replace(episode, actions=actions, source_alignment=alignment)
