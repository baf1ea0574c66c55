"""The shard format: latents, actions and poses of many episodes in HDF5 files, with an index.

    <folder>/<split>-00000-of-000NN.h5      /latents (N, C, h, w) f2   /actions (N, A) f4   /poses (N, P) f4 (optional)
                                            /frames (N, H, W, 3) u1 (optional)   /layouts (E, n, n) u1 (optional)
                                            further condition streams (N, columns) f4, by the names in `streams.STREAMS`
                                            /episode_start, /episode_length (E,) i8   /episode_id (E,) str
    <folder>/dataset.json                   the index, written last

The episodes of a shard lie one after another. A shard names its own format version, action alignment and autoencoder,
and lists its sources and what was skipped, so the index can be made from the shards alone.
"""

import logging
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lssvwm_datasets.counted import counted
from lssvwm_datasets.errors import LssvwmError
from lssvwm_datasets.index import INDEX_FILE, Index, ShardEntry, ShardHeader, read_index
from lssvwm_datasets.shard_file import OpenShards, Shard, StoredEpisode

__all__ = ["INDEX_FILE", "Index", "ShardHeader", "ShardSet", "StoredEpisode", "open_shards", "read_index"]

log = logging.getLogger(__name__)

MANY = 500  # shards, which take seconds to open
CHUNK_FRAMES = 64  # rows of an HDF5 chunk of latents


@dataclass(frozen=True)
class ShardSet:
    """The shards of one split of a prepared folder; each is opened, and held against the index, when it is read."""

    folder: Path
    split: str
    header: ShardHeader
    episodes: tuple[StoredEpisode, ...]
    files: OpenShards = field(default_factory=OpenShards, compare=False, repr=False)

    @property
    def frames(self) -> int:
        return sum(episode.length for episode in self.episodes)

    def read(self, episode: StoredEpisode, name: str, start: int = 0, stop: int | None = None) -> NDArray[Any] | None:
        """Rows `start:stop` of an episode from `latents`, `frames` or a stream's data set; None where not kept.

        Raises: OSError when the machine cannot read the shard now; LssvwmError when it is damaged or another one.
        """
        stop = episode.length if stop is None else stop
        if not 0 <= start <= stop <= episode.length:
            raise ValueError(f"rows {start}:{stop} of {episode.id}, which has {episode.length}")
        return self._shard_of(episode).rows(name, episode.start + start, episode.start + stop)

    def layout(self, episode: StoredEpisode) -> NDArray[np.uint8] | None:
        """The map (n, n) of an episode, 1 = free; None where there is none. Raises: as `read`."""
        return self._shard_of(episode).layout(episode.number)

    def _shard_of(self, episode: StoredEpisode) -> Shard:
        shard = self.files.get(episode.shard)
        _check_belongs(shard, self.header, self.split)
        if shard.episodes[episode.number : episode.number + 1] != [episode]:
            raise LssvwmError(
                f"{shard.path}: does not hold episode {episode.id} as {INDEX_FILE} says; make the index anew: "
                f"lssvwm index {self.folder}"
            )
        return shard


def open_shards(folder: Path, split: str) -> ShardSet:
    """Open a prepared folder. Raises: OSError; LssvwmError when it is missing, damaged, incomplete or not this format.

    Shards are opened here only where the index does not say which episodes they hold.
    """
    index = read_index(folder)
    unlisted = sum(entry.split == split and index.table(entry) is None for entry in index.shards)
    if unlisted > MANY:
        log.warning(
            "%s: the index is of an earlier version and does not list the episodes of %d shards, so all of them are "
            "opened; the start is quicker after: lssvwm index %s",
            folder,
            unlisted,
            folder,
        )
    episodes = [
        stored
        for entry in counted([entry for entry in index.shards if entry.split == split], f"shards of {folder} opened")
        for stored in _listed_episodes(folder, index, entry) or _read_episodes(folder, index, entry)
    ]
    if not episodes:
        has = ", ".join(index.splits) or "no episodes at all"
        raise LssvwmError(f"{folder}: no episodes in the {split} split; it has {has}")
    return ShardSet(folder, split, index.header, tuple(episodes))


def _listed_episodes(folder: Path, index: Index, entry: ShardEntry) -> list[StoredEpisode]:
    """The episodes of a shard by the index alone; none where it does not list them."""
    table, path = index.table(entry), folder / entry.file
    if table is None:
        return []
    if not path.is_file():
        raise LssvwmError(f"{path}: no such shard; prepare again")
    starts = accumulate(table.lengths, initial=0)
    rows = zip(table.ids, starts, table.lengths, strict=False)
    return [StoredEpisode(path, number, id, start, length) for number, (id, start, length) in enumerate(rows)]


def _read_episodes(folder: Path, index: Index, entry: ShardEntry) -> list[StoredEpisode]:
    with Shard(folder / entry.file) as shard:
        _check_belongs(shard, index.header, entry.split)
        for what, found, expected in (
            ("episodes", len(shard.episodes), entry.episodes),
            ("frames", shard.frames, shard.frames if entry.frames is None else entry.frames),
        ):
            if found != expected:
                raise LssvwmError(f"{shard.path}: holds {found} {what}, {INDEX_FILE} says {expected}; prepare again")
        return shard.episodes


def _check_belongs(shard: Shard, header: ShardHeader, split: str) -> None:
    """Raises: LssvwmError where a shard is not of the data set and the split that the index names."""
    if shard.header != header:
        raise LssvwmError(
            f"{shard.path}: of another dataset or autoencoder than {INDEX_FILE} says; a folder cannot hold shards of "
            "different datasets or autoencoders: prepare them into folders of their own"
        )
    if shard.split != split:
        raise LssvwmError(f"{shard.path}: of the {shard.split} split, {INDEX_FILE} says {split}; prepare again")
