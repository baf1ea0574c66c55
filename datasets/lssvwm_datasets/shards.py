"""The shard format: latents, actions and poses of many episodes in HDF5 files, with an index.

    <folder>/<split>-00000-of-000NN.h5      /latents (N, C, h, w) f2   /actions (N, A) f4   /poses (N, P) f4 (optional)
                                            /frames (N, H, W, 3) u1 (optional)   /layouts (E, n, n) u1 (optional)
                                            further condition streams (N, columns) f4, by the names in `streams.STREAMS`
                                            /episode_start, /episode_length (E,) i8   /episode_id (E,) str
    <folder>/dataset.json                   the index, written last

The episodes of a shard lie one after another. A shard names its own format version, action alignment and autoencoder,
and lists its sources and what was skipped, so the index can be made from the shards alone.
"""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from lssvwm_datasets.episode import ACTION_ALIGNMENT
from lssvwm_datasets.errors import LssvwmError
from lssvwm_datasets.index import FORMAT, FORMAT_VERSION, INDEX_FILE, Index, ShardHeader, read_index
from lssvwm_datasets.streams import stored_streams

__all__ = [
    "INDEX_FILE",
    "Index",
    "ShardHeader",
    "ShardSet",
    "StoredEpisode",
    "open_shards",
    "opened",
    "read_index",
    "read_shard_table",
]

CHUNK_FRAMES = 64  # rows of an HDF5 chunk of latents


@dataclass(frozen=True)
class StoredEpisode:
    """Where an episode lies: rows `start .. start + length` of a shard."""

    shard: Path
    number: int  # within the shard
    id: str
    start: int
    length: int


@dataclass(frozen=True)
class ShardSet:
    """The shards of one split of a prepared folder, opened for reading."""

    folder: Path
    split: str
    header: ShardHeader
    episodes: tuple[StoredEpisode, ...]

    @property
    def frames(self) -> int:
        return sum(episode.length for episode in self.episodes)

    def read(self, episode: StoredEpisode, name: str, start: int = 0, stop: int | None = None) -> NDArray[Any] | None:
        """Rows `start:stop` of an episode from `latents`, `frames` or a stream's data set; None where not kept."""
        stop = episode.length if stop is None else stop
        if not 0 <= start <= stop <= episode.length:
            raise ValueError(f"rows {start}:{stop} of {episode.id}, which has {episode.length}")
        with opened(episode.shard) as file:
            if name not in file:
                return None
            return file[name][episode.start + start : episode.start + stop]

    def layout(self, episode: StoredEpisode) -> NDArray[np.uint8] | None:
        with opened(episode.shard) as file:
            return file["layouts"][episode.number] if "layouts" in file else None


def open_shards(folder: Path, split: str) -> ShardSet:
    """Open a prepared folder. Raises: LssvwmError when it is missing, damaged, incomplete or of another format."""
    index = read_index(folder)
    shards = [entry for entry in index.shards if entry.split == split]
    headers, episodes = [], []
    for entry in shards:
        path = folder / entry.file
        header, stored = read_shard_table(path)
        if len(stored) != entry.episodes:
            raise LssvwmError(
                f"{path}: holds {len(stored)} episodes, {INDEX_FILE} says {entry.episodes}; prepare again"
            )
        headers.append(header)
        episodes += stored
    if not episodes:
        raise LssvwmError(
            f"{folder}: no episodes in the {split} split; it has {', '.join(index.splits) or 'no episodes at all'}"
        )
    if any(header != headers[0] for header in headers):
        raise LssvwmError(
            f"{folder}: shards of different datasets or autoencoders; prepare them into folders of their own"
        )
    return ShardSet(folder, split, headers[0], tuple(episodes))


def read_shard_table(path: Path) -> tuple[ShardHeader, list[StoredEpisode]]:
    """The header and the episodes of one shard. Raises: LssvwmError."""
    with opened(path) as file:
        attributes = file.attrs
        if attributes.get("format") != FORMAT or attributes.get("format_version") != FORMAT_VERSION:
            raise LssvwmError(f"{path}: not a {FORMAT} of version {FORMAT_VERSION}; prepare again with this release")
        if attributes.get("action_alignment") != ACTION_ALIGNMENT:
            raise LssvwmError(
                f"{path}: actions are aligned as {attributes.get('action_alignment')!r}, expected {ACTION_ALIGNMENT!r}"
            )
        try:
            header = ShardHeader.from_attributes(attributes)
            starts, lengths = file["episode_start"][:], file["episode_length"][:]
            ids = file["episode_id"].asstr()[:]
            streams = [stream.stored for stream in stored_streams(header)]
            optional = ["frames"] if "frames" in file else []
            rows = {name: len(file[name]) for name in ("latents", *streams, *optional)}
        except (KeyError, ValueError) as error:
            raise LssvwmError(f"{path}: damaged shard: {error}") from error
        if set(rows.values()) != {int(lengths.sum())} or not len(ids) == len(starts) == len(lengths):
            raise LssvwmError(
                f"{path}: damaged shard: {len(ids)} ids and {len(lengths)} lengths of episodes, "
                f"{lengths.sum()} frames in all; rows stored: {rows}"
            )
    table = zip(ids, starts.tolist(), lengths.tolist(), strict=True)
    return header, [StoredEpisode(path, k, str(id), start, length) for k, (id, start, length) in enumerate(table)]


@contextlib.contextmanager
def opened(path: Path) -> Iterator[h5py.File]:
    """A shard opened for reading. Raises: LssvwmError when the file is missing or damaged."""
    try:
        file = h5py.File(path, "r")
    except FileNotFoundError as error:
        raise LssvwmError(f"{path}: no such shard; prepare again") from error
    except OSError as error:
        raise LssvwmError(f"{path}: damaged or not an HDF5 file ({error}); delete it and prepare again") from error
    with file:
        try:
            yield file
        except (OSError, KeyError) as error:  # data that h5py reads lazily
            raise LssvwmError(f"{path}: damaged shard ({error}); delete it and prepare again") from error
