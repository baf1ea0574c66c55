"""What ends a training before its last step: a signal, the time given, another process that died."""

import contextlib
import signal
import time
from collections.abc import Iterator
from types import FrameType

import torch
from accelerate import Accelerator

from lssvwm_core.training.run.folder import Run
from lssvwm_datasets.errors import LssvwmError

LOST = ("connection closed by peer", "connection reset by peer", "broken pipe", "connection refused", "timed out")
"""Words of a collective operation that found another process gone; gloo has no type of error for it."""


@contextlib.contextmanager
def noted_signals() -> Iterator[list[str]]:
    """The names of SIGINT and SIGTERM as they arrive, instead of dying of them."""
    received: list[str] = []

    def note(number: int, _: FrameType | None) -> None:
        received.append(signal.Signals(number).name)

    previous = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield received
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def lost_processes_told(run: Run, accelerator: Accelerator) -> Iterator[None]:
    """Raises: LssvwmError with what to do, where another process of this training has died."""
    try:
        yield
    except RuntimeError as error:
        lost = isinstance(error, torch.distributed.DistError) or any(words in str(error).lower() for words in LOST)
        if accelerator.num_processes == 1 or not lost:
            raise
        raise LssvwmError(
            f"process {accelerator.process_index} of {accelerator.num_processes} has lost another one, whose own "
            f"messages tell why. The last checkpoint is {run.last or 'none yet'}; the same command goes on from it, "
            f"with any number of processes ({str(error).partition('. ')[0]})"
        ) from error


def stop_reason(received: list[str], minutes: float | None, started: float) -> str | None:
    """A signal's name, `minutes`, or None: go on."""
    if received:
        return received[0]
    return "minutes" if minutes is not None and time.monotonic() - started > 60 * minutes else None


def agreed(stop: bool, accelerator: Accelerator) -> bool:
    """True on every process as soon as one wants to stop."""
    if accelerator.num_processes == 1:
        return stop
    return bool(accelerator.reduce(torch.tensor(float(stop), device=accelerator.device)).item() > 0)
