"""`dataset.json`, made from the shards alone, whoever wrote them; and whether they are still what it says."""

import json
from collections.abc import Iterator
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

from lssvwm_core.prepare.plan import SHARDS, shard_name
from lssvwm_datasets.errors import LssvwmError
from lssvwm_datasets.files import sha256_of, write_json
from lssvwm_datasets.index import (
    FORMAT,
    FORMAT_VERSION,
    INDEX_FILE,
    Index,
    Note,
    ShardEntry,
    ShardHeader,
    Skipped,
    Statistics,
    read_index,
)
from lssvwm_datasets.schema import convert
from lssvwm_datasets.shards import opened, read_shard_table
from lssvwm_datasets.sources import TRAIN

LISTED = 5  # missing shards named in a message


def write_index(folder: Path) -> Index:
    """Write and return the index of a folder's shards. Raises: LssvwmError when shards are missing or do not fit."""
    paths = planned_shards(folder)
    headers = [read_shard_table(path)[0] for path in paths]
    for path, header in zip(paths, headers, strict=True):
        if header != headers[0]:
            raise LssvwmError(f"{path}: of another dataset or autoencoder than {paths[0].name}; prepare it again")
    shards: list[ShardEntry] = []
    skipped: list[Skipped] = []
    notes: list[Note] = []
    actions: dict[str, list[NDArray[np.float32]]] = {}
    for path in paths:
        with opened(path) as file:
            split = str(file.attrs["split"])
            actions.setdefault(split, []).append(file["actions"][:])
            skipped += convert(str(path), json.loads(file.attrs["skipped"]), list[Skipped])
            notes += convert(str(path), json.loads(file.attrs["notes"]), list[Note])
            shards.append(_entry(path, split, file))
    counts = sum(np.count_nonzero(rows, axis=0) for parts in actions.values() for rows in parts)
    index = Index(
        **vars(headers[0]),
        format=FORMAT,
        format_version=FORMAT_VERSION,
        tool=f"lssvwm {version('lssvwm')}",
        action_counts=dict(zip(headers[0].action_names, np.asarray(counts).tolist(), strict=True)),
        action_statistics=action_statistics(headers[0], actions.get(TRAIN) or next(iter(actions.values()))),
        episodes=sum(shard.episodes for shard in shards),
        frames=sum(shard.frames for shard in shards),
        shards=tuple(shards),
        skipped=tuple(skipped),
        notes=tuple(notes),
    )
    write_json(folder / INDEX_FILE, asdict(index))
    return index


def planned_shards(folder: Path) -> list[Path]:
    """The shards of a folder, all that its plan has, in the plan's order. Raises: LssvwmError naming missing ones."""
    found = sorted(folder.glob(SHARDS))
    if not found:
        raise LssvwmError(f"{folder}: no shards; make some with: lssvwm prepare")
    plans = {path: _plan_of(path) for path in found}
    plan = plans[found[0]]
    paths = [folder / shard_name(split, number, count) for split, count in plan.items() for number in range(count)]
    strangers = [path for path in found if plans[path] != plan or path not in paths]
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
    """Yield each shard's name and what is wrong with it, None where its bytes are those that the index tells."""
    for entry in read_index(folder).shards:
        path = folder / entry.file
        if not path.is_file():
            yield path.name, "missing"
        else:
            yield path.name, None if sha256_of(path) == entry.sha256 else "its bytes have changed: prepare it again"


def _entry(path: Path, split: str, file: h5py.File) -> ShardEntry:
    return ShardEntry(
        file=path.name,
        split=split,
        episodes=len(file["episode_length"]),
        frames=len(file["latents"]),
        latent_mean=tuple(np.round(file.attrs["latent_mean"], 4).tolist()),
        latent_std=tuple(np.round(file.attrs["latent_std"], 4).tolist()),
        sha256=sha256_of(path),
    )


def _plan_of(path: Path) -> dict[str, int]:
    """How many shards of each split the plan of this one has."""
    with opened(path) as file:
        return dict(json.loads(file.attrs["shards"]))
