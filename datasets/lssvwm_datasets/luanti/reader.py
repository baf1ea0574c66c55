"""Reads recordings of Luanti: WorldMem's layout, without the actions that nobody takes in them."""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

from lssvwm_datasets import worldmem
from lssvwm_datasets.episode import Episode
from lssvwm_datasets.format import DEFAULTS, Format, ReaderOptions, find_pairs
from lssvwm_datasets.luanti.constants import ACTION_NAMES, ACTION_UNITS, MARK
from lssvwm_datasets.npz import npz_keys

KEPT = [worldmem.ACTION_NAMES.index(name) for name in ACTION_NAMES]


def read(path: Path, id: str, options: ReaderOptions = DEFAULTS) -> Iterator[Episode]:
    """Yields the episode of an mp4 and the npz beside it. Raises: DamagedRecording; OSError."""
    for episode in worldmem.read(path, id, options):
        yield replace(episode, actions=episode.actions[:, KEPT], action_names=ACTION_NAMES, action_units=ACTION_UNITS)


def _recognises(path: Path) -> bool:
    return path.exists() and MARK in npz_keys(path.with_suffix(".npz"))


FORMAT = Format(
    "luanti",
    "mp4 files, each with an npz of the same stem that `lssvwm record luanti` wrote",
    partial(find_pairs, ".mp4", ".npz"),
    _recognises,
    read,
)
