"""Work units over processes, one a core."""

import itertools
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

from lssvwm_datasets.errors import LssvwmError

Unit = TypeVar("Unit")
Result = TypeVar("Result")

UNITS_PER_PROCESS = 25  # then a fresh process: MuJoCo's renderer gives its memory back only at exit


def run_units(work: Callable[[Unit], Result], units: Iterable[Unit], jobs: int) -> Iterator[Result]:
    """Yield `work(unit)` of every unit as it is done, in any order; with one job, in this process.

    Workers leave Ctrl-C to the parent and end when it ends, even by kill -9. Raises: LssvwmError when a worker dies.
    """
    if jobs == 1:
        yield from map(work, units)
        return
    context = multiprocessing.get_context("spawn")
    remaining = iter(units)
    # a pool a batch: max_tasks_per_child, which should do this, can wait forever (python/cpython#115634)
    while batch := list(itertools.islice(remaining, jobs * UNITS_PER_PROCESS)):
        pool = ProcessPoolExecutor(jobs, context, _start_worker, (os.getpid(),))
        try:
            for future in as_completed([pool.submit(work, unit) for unit in batch]):
                yield future.result()
        except BrokenProcessPool as error:
            raise LssvwmError(
                "a worker process died (out of memory, perhaps); what is finished is kept: run the command again, "
                "with fewer --jobs"
            ) from error
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _start_worker(parent: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(0.2)
    os._exit(1)
