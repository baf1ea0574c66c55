"""One shard, opened for reading once its structure is checked; and a bounded number of shards that are kept open.

Reading takes no lock: a finished shard never changes, and many file systems have none. Trouble of the machine is an
OSError; only what a checksum or the format says is called damage.
"""

import contextlib
import os
import stat
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import h5py
import numpy as np
from numpy.typing import NDArray

from lssvwm_datasets.episode import ACTION_ALIGNMENT
from lssvwm_datasets.errors import LssvwmError
from lssvwm_datasets.index import FORMAT, FORMAT_VERSION, ShardHeader
from lssvwm_datasets.schema import convert, parse_json
from lssvwm_datasets.shard_structure import attribute, check_structure, read_tables

MOST_OPEN = 64  # shards a process keeps open; macOS lets it open 256 files, Linux 1,024
ADVICE = "delete it and prepare again"
FINITE = ("latents", "actions")

FORM = ("format", "format_version", "action_alignment")

T = TypeVar("T")


@dataclass(frozen=True)
class StoredEpisode:
    """Where an episode lies: rows `start .. start + length` of a shard."""

    shard: Path
    number: int  # within the shard
    id: str
    start: int
    length: int


class Shard:
    """A shard that is open for reading.

    Attributes:
        header: what it has in common with the other shards of its folder.
        split: what it is a part of.
        frames, episodes: how many rows it has, and whose they are; the episodes lie one after another.

    Raises: OSError when the machine cannot read it now; LssvwmError when it is missing, damaged, not of this format,
    or when anything in it leads out of its file or is larger than it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with _trouble_told(path, "damaged or not an HDF5 file"):
            found = path.stat()
            if not stat.S_ISREG(found.st_mode):  # opening a pipe would wait for ever
                raise LssvwmError(f"{path}: not a regular file, expected a shard")
            self._file = h5py.File(path, "r", locking=False)
        try:
            with _trouble_told(path):
                self.header, self.split = self._read_header(), self.attribute("split", str)
                check_structure(self._file, self.header, found.st_size)
                self.frames = len(self._file["actions"])
                tables = read_tables(self._file, self.frames)
            self.episodes = [StoredEpisode(path, number, *row) for number, row in enumerate(tables)]
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> "Shard":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._file.close()

    def rows(self, name: str, start: int = 0, stop: int | None = None) -> NDArray[Any] | None:
        """Rows `start:stop` of `latents`, `frames` or a stream's data set; None where they are not kept.

        Raises: OSError; LssvwmError where a checksum says damage, or latents or actions are not finite.
        """
        with _trouble_told(self.path):
            if name not in self._file:
                return None
            rows = self._file[name][start:stop]
        finite = np.isfinite(rows).all(axis=tuple(range(1, rows.ndim))) if name in FINITE else np.ones(1)
        if not finite.all():
            row = start + int(np.argmin(finite))
            raise LssvwmError(f"{self.path}: row {row} of {name} is not finite (NaN or infinite); {ADVICE}")
        return rows

    def layout(self, number: int) -> NDArray[np.uint8] | None:
        """The map (n, n) of an episode, 1 = free; None where there is none. Raises: OSError; LssvwmError."""
        with _trouble_told(self.path):
            if "layouts" not in self._file:
                return None
            layout = self._file["layouts"][number]
        if layout.max(initial=0) > 1:
            raise LssvwmError(f"{self.path}: layout {number} holds {layout.max()}, expected 0 and 1; {ADVICE}")
        return layout

    def says(self, name: str) -> bool:
        """Whether it has an attribute, as shards of earlier versions lack some."""
        return name in self._file.attrs

    def attribute(self, name: str, shape: type[T]) -> T:
        """A text or a list of numbers. Raises: OSError; LssvwmError where it is missing or something else."""
        with _trouble_told(self.path):
            return convert(f"{self.path}: {name}", attribute(self._file, name), shape, ADVICE)

    def content(self, name: str, shape: type[T]) -> T:
        """What an attribute holds as JSON. Raises: OSError; LssvwmError."""
        return parse_json(f"{self.path}: {name}", self.attribute(name, str), shape, ADVICE)

    def _read_header(self) -> ShardHeader:
        form = tuple(attribute(self._file, name) if name in self._file.attrs else None for name in FORM)
        if form[:2] != (FORMAT, [FORMAT_VERSION]):
            raise LssvwmError(
                f"{self.path}: not a {FORMAT} of version {FORMAT_VERSION}; prepare again with this release"
            )
        if form[2] != ACTION_ALIGNMENT:
            raise LssvwmError(f"{self.path}: actions are aligned as {form[2]!r}, expected {ACTION_ALIGNMENT!r}")
        names = {name: self.content(name, list[str]) for name in ("action_names", "pose_names", "action_units")}
        if "pose_kinds" in self._file.attrs:  # shards from before poses had kinds have none
            names["pose_kinds"] = self.content("pose_kinds", list[str])
        further = "stream_names" in self._file.attrs  # nor any further streams
        streams = self.content("stream_names", dict[str, list[str]]) if further else {}
        texts = ("dataset", "autoencoder", "autoencoder_sha256", "source_alignment")
        numbers = {name: self.attribute(name, list[int]) for name in ("frame_size", "latent_shape")}
        fields = {
            **{name: self.attribute(name, str) for name in texts},
            **names,
            **numbers,
            "fps": self.attribute("fps", tuple[float])[0],
            "stream_names": streams,
        }
        return convert(str(self.path), fields, ShardHeader, ADVICE)


class OpenShards:
    """The shards that were read last, kept open; a process that was forked, or got this by pickle, opens its own.

    For one thread at a time.
    """

    def __init__(self, most: int = MOST_OPEN) -> None:
        self._most = most
        self._process = os.getpid()
        self._open: OrderedDict[Path, Shard] = OrderedDict()

    def get(self, path: Path) -> Shard:
        """A shard, open until enough others were read. Raises: as `Shard`."""
        if self._process != os.getpid():
            self._process, self._open = os.getpid(), OrderedDict()
        if path not in self._open:
            while len(self._open) >= self._most:
                self._open.popitem(last=False)[1].close()
            self._open[path] = Shard(path)
        self._open.move_to_end(path)
        return self._open[path]

    def close(self) -> None:
        """Close them all; they are opened again when they are read."""
        while self._open:
            self._open.popitem()[1].close()

    def __reduce__(self) -> tuple[Any, ...]:
        return OpenShards, (self._most,)


@contextlib.contextmanager
def _trouble_told(path: Path, damage: str = "damaged shard") -> Iterator[None]:
    """Tells trouble of the machine, an OSError with a number, from damage, which HDF5 and the checks find."""
    try:
        yield
    except FileNotFoundError as error:
        raise LssvwmError(f"{path}: no such shard; prepare again") from error
    except (OSError, KeyError, ValueError, RuntimeError, TypeError, OverflowError) as error:
        if isinstance(error, OSError) and error.errno:
            raise OSError(error.errno, os.strerror(error.errno), str(path)) from error
        words = error.args[0] if isinstance(error, KeyError) and error.args else error
        raise LssvwmError(f"{path}: {damage} ({words}); {ADVICE}") from error
