"""What ends a training before its last step: whoever asks it to stop, the time given, another process that died."""

import contextlib
import time
from collections.abc import Callable, Iterator

import torch
from accelerate import Accelerator

from lssvwm_core.training.run.folder import Run
from lssvwm_datasets.errors import LssvwmError

Stop = Callable[[], str | None]
"""Asked between steps: None to go on, else why to stop, such as a signal's name."""

LOST = ("connection closed by peer", "connection reset by peer", "broken pipe", "connection refused", "timed out")
"""Words of a collective operation that found another process gone; gloo has no type of error for it."""


def never() -> None:
    """A training that goes on to its last step."""


@contextlib.contextmanager
def lost_processes_told(run: Run, accelerator: Accelerator) -> Iterator[None]:
    """A context that tells when another process of this training dies. Raises: LssvwmError with what to do then."""
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


def stop_reason(stop: Stop, minutes: float | None, started: float, accelerator: Accelerator) -> str | None:
    """Why to stop, on every process as soon as one wants to; None: go on. Every process must call it."""
    reason = stop()
    if reason is None and minutes is not None and time.monotonic() - started > 60 * minutes:
        reason = "minutes"
    if accelerator.num_processes == 1:
        return reason
    wanted = accelerator.reduce(torch.tensor(float(reason is not None), device=accelerator.device)).item() > 0
    return reason or ("another process" if wanted else None)
