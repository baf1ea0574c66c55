"""`dataset.json`, made from the shards alone, whoever wrote them; and whether they are still what it says."""

from collections.abc import Iterator
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lssvwm_core.prepare.plan import SHARDS, shard_name
from lssvwm_datasets.counted import counted
from lssvwm_datasets.errors import LssvwmError
from lssvwm_datasets.files import sha256_of, write_json
from lssvwm_datasets.index import (
    FORMAT,
    FORMAT_VERSION,
    INDEX_FILE,
    EpisodeTable,
    Index,
    Note,
    ShardEntry,
    ShardHeader,
    Skipped,
    Statistics,
    read_index,
)
from lssvwm_datasets.shard_file import Shard
from lssvwm_datasets.sources import SPLITS, TRAIN

LISTED = 5  # missing shards named in a message
MOST_SHARDS = 10**6


def write_index(folder: Path) -> Index:
    """Write and return the index of a folder's shards. Raises: LssvwmError when shards are missing or do not fit."""
    paths = planned_shards(folder)
    header: ShardHeader | None = None
    shards: list[ShardEntry] = []
    skipped: list[Skipped] = []
    notes: list[Note] = []
    tables: dict[str, EpisodeTable] = {}
    actions: dict[str, list[NDArray[np.float32]]] = {}
    reconstructions: list[float] = []
    for path in counted(paths, f"shards of {folder} in the index"):
        with Shard(path) as shard:
            header = header or shard.header
            if shard.header != header:
                raise LssvwmError(f"{path}: of another dataset or autoencoder than {paths[0].name}; prepare it again")
            rows = shard.rows("actions")
            assert rows is not None  # every shard has them
            actions.setdefault(shard.split, []).append(rows)
            skipped += shard.content("skipped", list[Skipped])
            notes += shard.content("notes", list[Note])
            tables[path.name] = EpisodeTable(
                tuple(episode.id for episode in shard.episodes), tuple(episode.length for episode in shard.episodes)
            )
            shards.append(_entry(shard))
            if shard.says("reconstruction_psnr"):
                reconstructions += shard.attribute("reconstruction_psnr", list[float])
    assert header is not None  # there are shards
    counts = sum(np.count_nonzero(rows, axis=0) for parts in actions.values() for rows in parts)
    index = Index(
        **vars(header),
        format=FORMAT,
        format_version=FORMAT_VERSION,
        tool=f"lssvwm {version('lssvwm')}",
        action_counts=dict(zip(header.action_names, np.asarray(counts).tolist(), strict=True)),
        action_statistics=action_statistics(header, actions.get(TRAIN) or next(iter(actions.values()))),
        episodes=sum(len(table.ids) for table in tables.values()),
        frames=sum(sum(table.lengths) for table in tables.values()),
        shards=tuple(shards),
        skipped=tuple(skipped),
        notes=tuple(notes),
        tables=tables,
        reconstruction_psnr=min(reconstructions, default=None),
    )
    write_json(folder / INDEX_FILE, asdict(index))
    return index


def planned_shards(folder: Path) -> list[Path]:
    """The shards of a folder, all that its plan has, in the plan's order. Raises: LssvwmError naming missing ones."""
    found = sorted(folder.glob(SHARDS))
    if not found:
        raise LssvwmError(f"{folder}: no shards; make some with: lssvwm prepare")
    plans = {path: _plan_of(path) for path in counted(found, f"shards of {folder} opened")}
    plan = plans[found[0]]
    if not set(plan) <= set(SPLITS) or sum(plan.values()) > MOST_SHARDS:
        raise LssvwmError(f"{found[0]}: damaged shard: its plan has shards {plan}; delete it and prepare again")
    paths = [folder / shard_name(split, number, count) for split, count in plan.items() for number in range(count)]
    planned = set(paths)
    strangers = [path for path in found if plans[path] != plan or path not in planned]
    if strangers:
        raise LssvwmError(f"{strangers[0]}: a shard of another plan than {found[0].name}; delete one of the two")
    missing = [path.name for path in paths if path not in plans]
    if missing:
        names = ", ".join(missing[:LISTED]) + (" …" if len(missing) > LISTED else "")
        raise LssvwmError(f"{folder}: {len(missing)} of {len(paths)} shards are missing: {names}; prepare their parts")
    return paths


def action_statistics(header: ShardHeader, actions: list[NDArray[np.float32]]) -> dict[str, Statistics]:
    """Mean and standard deviation of the continuous columns, by name."""
    rows = np.concatenate(actions).astype(np.float64)
    return {
        header.action_names[column]: Statistics(float(rows[:, column].mean()), float(rows[:, column].std()))
        for column in header.continuous_actions
        if len(rows)
    }


def damaged_shards(folder: Path) -> Iterator[tuple[str, str | None]]:
    """Yield each shard's name and what is wrong with it, None where its checksums are those of the index."""
    for entry in counted(read_index(folder).shards, f"shards of {folder} compared"):
        path = folder / entry.file
        if not path.is_file():
            yield path.name, "missing"
        else:
            yield path.name, None if sha256_of(path) == entry.sha256 else "its bytes have changed: prepare it again"


def _entry(shard: Shard) -> ShardEntry:
    mean, std = (np.round(shard.attribute(name, list[float]), 4).tolist() for name in ("latent_mean", "latent_std"))
    return ShardEntry(
        file=shard.path.name,
        split=shard.split,
        episodes=len(shard.episodes),
        frames=shard.frames,
        latent_mean=tuple(mean),
        latent_std=tuple(std),
        sha256=sha256_of(shard.path),
    )


def _plan_of(path: Path) -> dict[str, int]:
    """How many shards of each split the plan of this one has."""
    with Shard(path) as shard:
        return dict(shard.content("shards", list[tuple[str, int]]))
