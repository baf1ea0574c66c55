"""What reading a clip from shards costs against its frames."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

from lssvwm_core.bench.costs import Point
from lssvwm_core.bench.timing import Measure, Timing
from lssvwm_core.training.data.clips import ClipDataset, ClipSampling
from lssvwm_datasets.shards import open_shards
from lssvwm_datasets.sources import TRAIN
from lssvwm_datasets.streams import STREAMS, columns_of


def bench_data(folder: Path, frames: Sequence[int], timing: Timing) -> Iterator[Point]:
    """Reading one random clip of so many frames; longer ones than the episodes are left out. Raises: LssvwmError."""
    shards = open_shards(folder, TRAIN)
    streams = tuple(name for name in STREAMS if columns_of(shards.header, name))
    longest = max(episode.length for episode in shards.episodes)
    measures = {}
    for count in frames:
        if count <= longest:
            dataset = ClipDataset(shards, streams, ClipSampling(), [(10_000, 1, count)], seed=0)
            measures[count] = _reading(dataset)
    for count, seconds in timing.medians(measures, torch.device("cpu")):
        yield Point("clip", count, seconds)


def _reading(dataset: ClipDataset) -> Measure:
    items = iter(range(len(dataset)))
    return lambda: dataset[next(items)] and None
