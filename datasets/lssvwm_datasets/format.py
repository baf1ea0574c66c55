"""What a reader module provides: how its recordings are found, recognised and read."""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from lssvwm_datasets.episode import Episode
from lssvwm_datasets.errors import DamagedRecording, LssvwmError
from lssvwm_datasets.frames import PART_FRAMES

HELD_FRAMES = 4 * PART_FRAMES  # parts that are decoded ahead, encoded, and written
HELD_RECORDED = 16  # frames as they are recorded: those of a small part, and a decoder's own


@dataclass(frozen=True)
class ReaderOptions:
    """What a user may choose about reading.

    Attributes:
        size: (H, W) that frames are resized to; None: as recorded.
        action_offset: the source's action t led to frame t + `action_offset` of what its format says.
        skip: recordings whose id contains one of these are refused.
        max_memory: bytes that a process may take for what it reads of a recording; what needs more is refused.
    """

    size: tuple[int, int] | None = None
    action_offset: int = 0
    skip: tuple[str, ...] = ()
    max_memory: int = 2 * 10**9

    def frame_size(self, path: Path, recorded: tuple[int, int]) -> tuple[int, int]:
        """(H, W) of the frames that are read. Raises: DamagedRecording when they are too large for the memory."""
        wanted = self.size or recorded
        for (height, width), held in ((recorded, HELD_RECORDED), (wanted, HELD_FRAMES)):
            if 3 * height * width * held > self.max_memory:
                smaller = "" if self.size else "read them smaller with --size, or "
                raise DamagedRecording(
                    f"{path}: frames of {height}x{width} pixels need more than {self.max_memory / 1e9:g} GB of memory; "
                    f"{smaller}raise --max-memory"
                )
        return wanted


DEFAULTS = ReaderOptions()


@dataclass(frozen=True)
class Candidate:
    """The files of one recording; `path` names it: one of them, or the folder they are in."""

    path: Path
    files: tuple[Path, ...]


@dataclass(frozen=True)
class Format:
    """How one dataset is read. Adding a dataset is a module with a `FORMAT` and its name in `sources.FORMATS`.

    Its functions are those of modules (or partial ones), since processes send each other recordings with their format.

    Attributes:
        name: by which `prepare` knows it; what precedes a hyphen names a family of formats.
        looks_for: what its recordings look like, in words.
        find: its candidates among files (sorted), by their names alone.
        recognises: whether the candidate of such a path is of this format, by a quick look into it.
        read: (path, id, options) -> the episodes of a recording, one at a time. Raises: DamagedRecording.
        session: of a recording's name: recordings of one session stay in one split.
        known_bad: names of recordings that people found bad.
    """

    name: str
    looks_for: str
    find: Callable[[Sequence[Path]], Iterable[Candidate]]
    recognises: Callable[[Path], bool]
    read: Callable[[Path, str, ReaderOptions], Iterator[Episode]]
    session: Callable[[str], str] = str
    known_bad: tuple[str, ...] = ()

    @property
    def family(self) -> str:
        return self.name.partition("-")[0]


def parse_size(text: str) -> tuple[int, int]:
    """(H, W) from `64` (a square) or `360x640` (height first). Raises: LssvwmError."""
    numbers = text.lower().split("x")
    if len(numbers) > 2 or not all(re.fullmatch("[1-9][0-9]{0,3}", number) for number in numbers):
        raise LssvwmError(f"size {text!r}: expected pixels: a number, or height x width such as 360x640")
    return int(numbers[0]), int(numbers[-1])


def parse_bytes(text: str) -> int:
    """Bytes from `2GB`, `500MB` or `1.5` (gigabytes). Raises: LssvwmError."""
    found = re.fullmatch(r"([0-9]{1,6}(?:\.[0-9]{1,3})?) ?(MB|GB|TB|)", text.strip().upper())
    if not found or float(found[1]) == 0:
        raise LssvwmError(f"memory {text!r}: expected a number with its unit, such as 2GB or 500MB")
    return int(float(found[1]) * {"MB": 10**6, "GB": 10**9, "TB": 10**12, "": 10**9}[found[2]])


def find_singles(suffix: str, files: Sequence[Path]) -> list[Candidate]:
    """Recordings that are one file each."""
    return [Candidate(path, (path,)) for path in files if path.suffix == suffix]


def find_pairs(video: str, actions: str, files: Sequence[Path]) -> list[Candidate]:
    """Recordings of two files of one stem; one of them may be missing, which reading then tells."""
    stems: dict[Path, list[Path]] = {}
    for path in files:
        if path.suffix in (video, actions):
            stems.setdefault(path.with_suffix(""), []).append(path)
    return [Candidate(stem.with_name(stem.name + video), tuple(paths)) for stem, paths in stems.items()]
