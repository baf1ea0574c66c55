"""Gathers the examples of both splits of recordings, and shows how far it is."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from lssvwm_cli.console import progress

if TYPE_CHECKING:
    from lssvwm_core.world import World
    from lssvwm_datasets.sources import Recording

T = TypeVar("T")
Gather = Callable[["list[Recording]", str, "World", Callable[[int, str], None]], T]


def gather_splits(source: Path | None, world: "World", doing: str, gather: "Gather[T]") -> list[T]:
    """The examples for training, and those held out.

    Args:
        source: a folder of recordings; None: the samples that ship.
        doing: what is said beside the bar, such as Encoding.
    """
    from lssvwm_datasets.format import ReaderOptions
    from lssvwm_datasets.sources import TRAIN, VALIDATION, find_recordings, sample_recordings

    options = ReaderOptions(size=world.header.frame_size)
    recordings = find_recordings(source or sample_recordings(), world.header.dataset, options)
    splits = []
    for split in (TRAIN, VALIDATION):
        count = sum(recording.split == split for recording in recordings)
        with progress(f"{doing} {split} recordings", count, "recordings") as update:
            splits.append(gather(recordings, split, world, update))
    return splits
