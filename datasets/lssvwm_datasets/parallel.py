"""Work units over processes, one a core, or over a Ray cluster; and work ahead in a thread."""

import contextlib
import itertools
import logging
import multiprocessing
import os
import queue
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


def run_units(
    work: Callable[[Unit], Result],
    units: Iterable[Unit],
    jobs: int,
    set_up_process: Callable[[], None] | None = None,
) -> Iterator[Result]:
    """Yield `work(unit)` of every unit as it is done, in any order; with one job, in this process.

    `set_up_process` is called first in each worker process, never in this one, which is not for a library to change.
    Workers leave Ctrl-C to the parent and end when it ends, even by kill -9. Raises: LssvwmError when a worker dies.
    """
    if jobs == 1:
        yield from map(work, units)
        return
    context = multiprocessing.get_context("spawn")
    remaining = iter(units)
    # a pool a batch: max_tasks_per_child, which should do this, can wait forever (python/cpython#115634)
    while batch := list(itertools.islice(remaining, jobs * UNITS_PER_PROCESS)):
        pool = ProcessPoolExecutor(jobs, context, _start_worker, (os.getpid(), set_up_process))
        try:
            with _nothing_from_the_working_folder():
                futures = [pool.submit(work, unit) for unit in batch]  # starts the processes
            for future in as_completed(futures):
                yield future.result()
        except BrokenProcessPool as error:
            raise LssvwmError(
                "a worker process died (out of memory, perhaps); what is finished is kept: run the command again, "
                "with fewer --jobs"
            ) from error
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def run_units_on_ray(
    work: Callable[[Unit], Result],
    units: Iterable[Unit],
    gpus: float = 0.0,
    set_up_process: Callable[[], None] | None = None,
) -> Iterator[Result]:
    """As `run_units`, over the Ray cluster that there is (`RAY_ADDRESS`), else one on this machine; a core a unit.

    Every node must see the same files under the same names, and have the package installed. Units of a node that is
    lost are done again elsewhere. Raises: LssvwmError when Ray is not installed, or gives up.
    """
    try:
        import ray
    except ImportError as error:
        raise LssvwmError("the ray executor needs Ray; install the extra: pip install 'lssvwm[ray]'") from error
    started = not ray.is_initialized()
    if started:
        ray.init(logging_level=logging.WARNING, log_to_driver=False)

    def set_up_and_work(unit: Unit) -> Result:
        if set_up_process is not None:
            set_up_process()
        return work(unit)

    remote = ray.remote(num_cpus=1, num_gpus=gpus)(set_up_and_work)
    try:
        pending = [remote.remote(unit) for unit in units]
        while pending:
            done, pending = ray.wait(pending)
            yield from ray.get(done)
    except ray.exceptions.RayTaskError as error:
        raise error.cause from error
    except ray.exceptions.RayError as error:
        raise LssvwmError(f"Ray gave up ({error}); what is finished is kept: run the command again") from error
    finally:
        if started:
            ray.shutdown()


def ahead(items: Iterable[Unit], depth: int) -> Iterator[Unit]:
    """Iterate in a thread, at most `depth` items ahead. What iterating raises is raised here, in its place."""
    results: queue.Queue[tuple[list[Unit], BaseException | None]] = queue.Queue(depth)
    stopped = threading.Event()

    def produce() -> None:
        try:
            for item in items:
                results.put(([item], None))
                if stopped.is_set():
                    return
            results.put(([], None))
        except BaseException as error:
            results.put(([], error))

    thread = threading.Thread(target=produce, daemon=True)
    thread.start()
    try:
        while True:
            item, error = results.get()
            if error is not None:
                raise error
            if not item:
                return
            yield item[0]
    finally:
        stopped.set()
        while thread.is_alive():
            with contextlib.suppress(queue.Empty):
                results.get(timeout=0.01)


@contextlib.contextmanager
def _nothing_from_the_working_folder() -> Iterator[None]:
    """Processes started within import no module from there: to some, a user's json.py would be Python's own."""
    before = os.environ.get("PYTHONSAFEPATH")
    os.environ["PYTHONSAFEPATH"] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ["PYTHONSAFEPATH"]
        else:
            os.environ["PYTHONSAFEPATH"] = before


def _start_worker(parent: int, set_up_process: Callable[[], None] | None) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    if set_up_process is not None:
        set_up_process()


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(0.2)
    os._exit(1)
