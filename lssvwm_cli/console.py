"""What commands show: progress, results, errors."""

import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

LINE_EVERY = 10.0  # seconds between plain progress lines


@contextmanager
def progress(what: str, total: int, unit: str, start: int = 0) -> Iterator[Callable[[int, str], None]]:
    """Yield `update(done, note)`: a bar with speed and time left on a terminal, plain lines elsewhere (on stderr).

    `start` units were done before.
    """
    if sys.stderr.isatty() and os.environ.get("RANK", "0") == "0":
        with _bar(what, total, unit, start) as update:
            yield update
        return
    started = shown = time.monotonic()

    def line(done: int, note: str = "") -> None:
        nonlocal shown
        now = time.monotonic()
        if now - shown >= LINE_EVERY or done >= total:
            left = (now - started) / max(done - start, 1) * max(total - done, 0)
            say(f"{what}: {done}/{total} {unit}, {duration(left)} left {note}".rstrip())
            shown = now

    yield line


@contextmanager
def _bar(what: str, total: int, unit: str, start: int) -> Iterator[Callable[[int, str], None]]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(unit),
        TimeRemainingColumn(compact=True),
        TextColumn("[dim]{task.fields[note]}"),
    )
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(what, total=total, completed=start, note="")

        def update(done: int, note: str = "") -> None:
            bar.update(task, completed=done, note=note)

        yield update


def say(text: str) -> None:
    """A line for the user, from the first of several processes; results for programs go to stdout with `show_json`."""
    if os.environ.get("RANK", "0") == "0":
        print(text, file=sys.stderr, flush=True)


def show_json(content: Any) -> None:
    print(json.dumps(content, indent=2))


def duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"


def core_count(jobs: str) -> int:
    """`auto` or a number of processes. Raises: LssvwmError."""
    from lssvwm_datasets.errors import LssvwmError

    if jobs == "auto":
        return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if not jobs.isdigit() or int(jobs) < 1:
        raise LssvwmError(f"--jobs {jobs}: expected auto or a number of processes")
    return int(jobs)
