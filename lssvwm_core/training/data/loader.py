"""Reads a run's batches, in the training process or in others.

The others send arrays through pipes and not through shared memory, of which containers often have too little. What goes
wrong in them is sent too, and raised in the training process as it is.
"""

import signal
from collections.abc import Iterator
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset, SequentialSampler, Subset

from lssvwm_core.conditions import Conditions
from lssvwm_core.model.config import ModelConfig
from lssvwm_core.training.data.clips import Batch, ClipDataset
from lssvwm_core.training.run.config import RunConfig
from lssvwm_datasets.errors import LssvwmError
from lssvwm_datasets.shards import ShardSet

STOPPING = ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2")  # not on every system


def dataset_of(shards: ShardSet, model: ModelConfig, config: RunConfig, process: int) -> ClipDataset:
    """The batches of one of the processes of a run. Raises: LssvwmError for clips longer than the recordings."""
    accumulate = config.train.accumulate
    shapes = [(end * accumulate, stage.batch_size, stage.frames) for end, stage in config.train.stage_ends()]
    return ClipDataset(shards, tuple(model.streams), config.sampling, shapes, config.train.seed, process)


def batches_from(dataset: ClipDataset, first: int, workers: int) -> Iterator[Batch]:
    """The batches of a dataset from number `first` on, in order.

    Args:
        workers: processes that read them; 0: this one.

    Raises: LssvwmError and OSError as the dataset; LssvwmError when a process cannot be started, or dies.
    """
    if workers == 0:
        yield from (dataset[number] for number in range(first, len(dataset)))
        return
    rest = Subset(_Sendable(dataset), range(first, len(dataset)))
    loader = DataLoader(
        rest,
        batch_size=None,
        sampler=SequentialSampler(rest),
        num_workers=workers,
        collate_fn=_as_it_is,  # arrays would become tensors, which are sent through shared memory
        worker_init_fn=_leave_signals_to_the_parent,
        generator=torch.Generator(),
    )
    advice = f"fewer processes that read clips may help: --set train.workers=0 (now {workers})"
    try:
        received = iter(loader)
    except OSError as error:
        raise LssvwmError(f"no processes can be started to read clips ({error}); {advice}") from error
    while True:
        try:
            found = next(received, None)
        except RuntimeError as error:  # DataLoader's word for a process that died
            raise LssvwmError(
                f"a process that reads clips has died ({str(error).splitlines()[0]}); {advice}"
            ) from error
        if found is None:
            return
        if isinstance(found, Exception):
            raise found
        yield _received(found)


class _Sendable(Dataset[Any]):
    """The batches as arrays, and errors that users understand as values."""

    def __init__(self, dataset: ClipDataset) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, number: int) -> Any:
        try:
            batch = self.dataset[number]
        except (LssvwmError, OSError) as error:
            return error
        conditions = {name: rows.numpy() for name, rows in batch["conditions"].items()}
        return {"latents": batch["latents"].numpy(), "numbers": batch["numbers"].numpy(), "conditions": conditions}


def _received(arrays: dict[str, Any]) -> Batch:
    return {
        "latents": torch.from_numpy(arrays["latents"]),
        "conditions": Conditions(arrays["conditions"]),
        "numbers": torch.from_numpy(arrays["numbers"]),
    }


def _as_it_is(item: Any) -> Any:
    return item


def _leave_signals_to_the_parent(_: int) -> None:
    """Ctrl-C and Slurm reach all processes; the parent saves first, and ends these then."""
    for name in STOPPING:
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
