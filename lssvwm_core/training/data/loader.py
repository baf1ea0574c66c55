"""Reads a run's batches, in the training process or in others.

The others send arrays through pipes and not through shared memory, of which containers often have too little. What goes
wrong in them is sent too, and raised in the training process as it is.
"""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType
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
    except (OSError, RuntimeError) as error:
        raise LssvwmError(f"no processes can be started to read clips ({error}); {advice}") from error
    with _deaths_told_on_reading() as reading:
        while True:
            try:
                with reading():
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


@contextlib.contextmanager
def _deaths_told_on_reading() -> Iterator[Callable[[], contextlib.AbstractContextManager[None]]]:
    """Keeps what DataLoader says of a process that died until the next batch is read.

    DataLoader tells it by an exception from a signal handler, which would otherwise come out of whatever the training
    is doing at that moment: a step, a sample, a checkpoint half written. Yields a context in which a batch is read.
    """
    told = signal.getsignal(signal.SIGCHLD) if hasattr(signal, "SIGCHLD") else None
    if not callable(told) or threading.current_thread() is not threading.main_thread():
        yield contextlib.nullcontext  # no handler, or none that could be exchanged from here
        return
    deaths: list[RuntimeError] = []
    is_reading = False

    def handler(number: int, frame: FrameType | None) -> None:
        try:
            told(number, frame)
        except RuntimeError as error:
            if is_reading:
                raise
            deaths.append(error)

    @contextlib.contextmanager
    def reading() -> Iterator[None]:
        nonlocal is_reading
        is_reading = True
        try:
            if deaths:
                raise deaths[0]
            yield
        finally:
            is_reading = False

    signal.signal(signal.SIGCHLD, handler)
    try:
        yield reading
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGCHLD, told)


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
        return {
            "latents": batch["latents"].numpy(),
            "numbers": batch["numbers"].numpy(),
            "conditions": {name: rows.numpy() for name, rows in batch["conditions"].items()},
            "whole": {name: rows.numpy() for name, rows in batch["whole"].items()},
        }


def _received(arrays: dict[str, Any]) -> Batch:
    return {
        "latents": torch.from_numpy(arrays["latents"]),
        "conditions": Conditions(arrays["conditions"]),
        "whole": Conditions(arrays["whole"]),
        "numbers": torch.from_numpy(arrays["numbers"]),
    }


def _as_it_is(item: Any) -> Any:
    return item


def _leave_signals_to_the_parent(_: int) -> None:
    """Ctrl-C and Slurm reach all processes; the parent saves first, and ends these then."""
    for name in STOPPING:
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
