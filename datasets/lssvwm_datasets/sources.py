"""Recordings on disk: the files of a source folder, their format, and the split each belongs to."""

import hashlib
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from lssvwm_datasets import csgo, lerobot, minerl, own_recordings, reckoning, teco, vpt, worldmem
from lssvwm_datasets.environments import ENVIRONMENTS
from lssvwm_datasets.episode import Episode
from lssvwm_datasets.errors import DamagedRecording, LssvwmError, UnreadableNow, printable
from lssvwm_datasets.folders import Listing, list_folder
from lssvwm_datasets.format import DEFAULTS, Candidate, Format, ReaderOptions
from lssvwm_datasets.frames import FrameParts
from lssvwm_datasets.memory_maze.maze import MAZE
from lssvwm_datasets.opening import opened_recording, reason_of, unreadable

FORMATS = (  # beside the environments' own
    *(minerl.FORMAT, vpt.FORMAT, teco.MINECRAFT, teco.DMLAB, worldmem.FORMAT, csgo.FORMAT),
    *(own_recordings.FORMAT, lerobot.FORMAT),
)

TRAIN, VALIDATION = "train", "validation"
SPLITS = (TRAIN, VALIDATION)
VALIDATION_NAMES = {"eval", "val", "valid", "validation", "test"}
LISTED = 5  # problems in a message
HELD_OUT = 10  # without split folders, one session in ten is held out for validation
LOOKED_INTO = 100  # candidates a folder that detection opens

log = logging.getLogger(__name__)


def all_formats() -> dict[str, Format]:
    """Every format by its name: what the environments bring, then the others."""
    brought = [environment.format for environment in ENVIRONMENTS.values() if environment.format is not None]
    return {format.name: format for format in (*brought, *FORMATS)}


def format_names() -> tuple[str, ...]:
    """What a user may ask for: formats by their families."""
    return tuple(dict.fromkeys(format.family for format in all_formats().values()))


@dataclass(frozen=True)
class Recording:
    """One recording of a source.

    Attributes:
        id: its path below the source, with forward slashes and without suffix; printable.
        bytes: size on disk of its files.
    """

    path: Path
    files: tuple[Path, ...]
    id: str
    split: str
    format: Format
    options: ReaderOptions
    bytes: int

    def episodes(self) -> Iterator[Episode]:
        """Yields the recording's episodes, whose frames are read when iterated.

        Both raise: DamagedRecording, whatever is wrong with it; UnreadableNow when the machine could not read it.
        """
        if name := next((name for name in self.options.skip if name in self.id), None):
            raise DamagedRecording(f"{self.path}: on the skip list ({name})")
        episode = None
        for episode in self._told(lambda: self.format.read(self.path, self.id, self.options)):
            yield replace(_shifted(episode, self.options.action_offset), frames=self._told_frames(episode.frames))
        if episode is None:
            raise DamagedRecording(f"{self.path}: holds no episode")

    def check_access(self) -> None:
        """Check that its files can be opened, not what is in them. Raises: UnreadableNow when one cannot."""
        for path in self.files:
            try:
                with opened_recording(path):
                    pass
            except DamagedRecording:
                continue
            except OSError as error:
                raise unreadable(path, error) from error

    def _told_frames(self, frames: FrameParts) -> FrameParts:
        return FrameParts(lambda: self._told(lambda: frames), frames.length)

    def _told(self, read: Callable[[], Iterable[Any]]) -> Iterator[Any]:
        """What `read` gives; whatever it raises is told as damage of the recording or as trouble of the machine."""
        try:
            yield from read()
        except LssvwmError:
            raise
        except (OSError, MemoryError) as error:
            raise unreadable(self.path, error) from error
        except Exception as error:
            reason = f"{type(error).__name__}: {reason_of(error)}"
            raise DamagedRecording(f"{self.path}: not readable as {self.format.name} ({reason})") from error


def find_recordings(source: Path, format_name: str | None = None, options: ReaderOptions = DEFAULTS) -> list[Recording]:
    """The recordings below `source`, at any depth and through links, sorted by id.

    A recording belongs to the split that a folder on its way names (`train`, `training`, `train-part3`; `eval`, `val`,
    `validation`, `test`). Where no folder names one, a tenth of the sessions, chosen by name, is validation. What is
    passed over is logged as a warning.

    Args:
        format_name: a format or a family of formats; None: any. Several formats are told apart by a look into files.

    Raises: LssvwmError when there is nothing to read, or when there are recordings of several formats; UnreadableNow
    when a folder cannot be looked into.
    """
    if not source.exists():
        raise LssvwmError(f"{source}: no such folder; expected recordings ({format_name or ', '.join(format_names())})")
    root = source if source.is_dir() else source.parent
    listing = list_folder(root, recursive=source.is_dir())
    known = all_formats()
    formats = [format for format in known.values() if format_name in (None, format.name, format.family)]
    found = {format.name: list(format.find(listing.files)) for format in formats}
    if source.is_dir():
        _tell_what_is_passed_over(root, listing, found.values(), options)
    else:
        found = {name: [item for item in items if source in item.files] for name, items in found.items()}
    if len(formats) > 1:
        looks = {name: _look_into(known[name], items) for name, items in found.items()}
        troubles = [look for look in looks.values() if isinstance(look, OSError)]
        if troubles and True not in looks.values():
            raise unreadable(source, troubles[0])
        found = {name: items for name, items in found.items() if looks[name] is True}
    found = {name: items for name, items in found.items() if items}
    if not found:
        looked_for = "; ".join(f"{format.name}: {format.looks_for}" for format in formats)
        raise LssvwmError(f"{source}: no recordings found; expected, at any depth, {looked_for}")
    if len(found) > 1:
        several = ", ".join(f"{name} ({items[0].path.relative_to(root)})" for name, items in found.items())
        raise LssvwmError(f"{source}: recordings of several formats: {several}; name the format, or a folder of one")
    ((name, candidates),) = found.items()
    recordings = [_recording(root, candidate, known[name], options, listing.sizes) for candidate in candidates]
    return sorted(recordings, key=lambda recording: recording.id)


def sample_recordings(name: str = MAZE.name) -> Path:
    """The folder of an environment's real episodes that ship with the package; for some it does not exist."""
    return Path(str(resources.files("lssvwm_datasets") / "samples" / name))


def _tell_what_is_passed_over(
    root: Path, listing: Listing, found: Iterable[Sequence[Candidate]], options: ReaderOptions
) -> None:
    """Raises: UnreadableNow where a folder is not on the skip list and cannot be looked into."""
    of_recordings = {path for candidates in found for candidate in candidates for path in candidate.files}
    passed_over, unreadable = dict(listing.passed_over), {}
    for path, reason in listing.unreadable.items():
        if any(name in path.relative_to(root).as_posix() for name in options.skip):
            passed_over[path] = f"{reason}; on the skip list"
        elif path in of_recordings or path not in listing.sizes:
            unreadable[path] = reason
    if unreadable:
        listed = [f"{path}: cannot be read for now ({reason})" for path, reason in unreadable.items()]
        raise UnreadableNow(
            "\n".join(listed[:LISTED])
            + (f"\n… and {len(listed) - LISTED} more" if len(listed) > LISTED else "")
            + f"\nso the recordings in {root} are not known; mend that, or name it in a --skip-list"
        )
    for path in listing.files:
        if path.is_symlink() and not path.exists() and path not in of_recordings:
            passed_over[path] = f"a link to {path.readlink()}, which does not exist"
    for path, reason in passed_over.items():
        log.warning("%s", printable(f"passed over {path}: {reason}"))


def _look_into(format: Format, candidates: Sequence[Candidate]) -> bool | OSError:
    """Whether one of some candidates of each folder is recognised; if none is, what kept the machine from looking."""
    folders: dict[Path, list[Path]] = {}
    for candidate in candidates:
        folders.setdefault(candidate.path.parent, []).append(candidate.path)
    result: bool | OSError = False
    for path in (path for paths in folders.values() for path in paths[:: -(-len(paths) // LOOKED_INTO)]):
        try:
            if format.recognises(path):
                return True
        except OSError as error:
            result = error
    return result


def _recording(
    root: Path, candidate: Candidate, format: Format, options: ReaderOptions, sizes: dict[Path, int]
) -> Recording:
    path = candidate.path
    relative = path.relative_to(root)
    name = path.name if path.is_dir() else path.stem
    id = _printable_id((relative.parent / name).as_posix())
    split = split_named_by((root.name, *relative.parts[:-1])) or _split_by_hash(format.session(name))
    return Recording(path, candidate.files, id, split, format, options, sum(sizes[path] for path in candidate.files))


def _printable_id(name: str) -> str:
    """The name itself, or where it is not printable, a form of it that is, and that no other name has."""
    if name.isprintable():
        return name
    return f"{printable(name)}~{hashlib.sha256(os.fsencode(name)).hexdigest()[:8]}"


def split_named_by(folders: tuple[str, ...]) -> str | None:
    for folder in reversed(folders):
        if folder.lower() in VALIDATION_NAMES:
            return VALIDATION
        if folder.lower().startswith("train"):
            return TRAIN
    return None


def _split_by_hash(name: str) -> str:
    return VALIDATION if int(hashlib.sha256(os.fsencode(name)).hexdigest(), 16) % HELD_OUT == 0 else TRAIN


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
    poses = episode.poses
    if poses is not None and episode.pose_names == reckoning.NAMES:  # from these actions
        poses = poses[np.clip(np.arange(episode.length) - offset, 0, episode.length - 1)]
    alignment = f"{episode.source_alignment}; taken {offset} frames later (--action-offset)"
    return replace(episode, actions=actions, poses=poses, source_alignment=alignment)
