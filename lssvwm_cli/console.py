"""What commands show: lines, tables, progress. The only place that writes to the terminal.

Names from files are shown as they are, but for what could change the terminal: control characters come as escapes, and
brackets are no markup. A character that the terminal's encoding lacks is replaced by another.
"""

import codecs
import json
import logging
import os
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lssvwm_datasets.errors import LssvwmError, printable

LINE_EVERY = 10.0  # seconds between plain progress lines
TRACEBACK = "LSSVWM_TRACEBACK"  # set to 1: errors are shown with their traceback
PLAIN = {
    "×": "x",
    "→": "->",
    "…": "...",
    "—": "-",
    "–": "-",
    "█": "#",
    "·": "*",
    "↑": "^",
    "↓": "v",
    "←": "<-",
    "▀": "~",
    "≥": ">=",
    "≤": "<=",
}


def prepare_streams() -> None:
    """Let stdout and stderr take any character, and log messages be as safe to show as everything else."""
    codecs.register_error("lssvwm.plain", _plain)
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # closed by whoever started the command
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
        elif hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="lssvwm.plain")


def prepare_logging(verbose: bool) -> None:
    """Log messages go to stderr: warnings, and with `verbose` also what is chosen and why."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(LogLine("%(message)s"))
    logging.basicConfig(level=logging.INFO if verbose else logging.WARNING, handlers=[handler])


class LogLine(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return safe(super().format(record))

    def formatException(self, info: Any) -> str:  # noqa: N802
        return super().formatException(info) if wants_traceback() else one_line(f"{info[0].__name__}: {info[1]}")


def _plain(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeEncodeError)
    missing = error.object[error.start : error.end]
    shown = (PLAIN.get(letter) or letter.encode("ascii", "backslashreplace").decode() for letter in missing)
    return "".join(shown), error.end


def wants_traceback() -> bool:
    return os.environ.get(TRACEBACK, "0") not in ("", "0")


def safe(text: str) -> str:
    """The text with control characters as escapes; only its ends of lines are kept."""
    return "\n".join(map(printable, text.split("\n")))


def one_line(text: str) -> str:
    """The text as a single line that is safe to show."""
    return printable("; ".join(filter(None, map(str.strip, text.splitlines()))))


def say(text: str) -> None:
    """Lines for the user, on stderr, from the first of several processes."""
    if os.environ.get("RANK", "0") == "0":
        print(safe(text), file=sys.stderr, flush=True)


def say_error(text: str, error: BaseException) -> None:
    """One line on stderr, from any process; before it the traceback where the user asked for it."""
    if wants_traceback():
        print(safe("".join(traceback.format_exception(error))), file=sys.stderr)
    print(one_line(f"error: {text}"), file=sys.stderr, flush=True)


def say_made(*found: Path) -> None:
    """Name the pictures and videos that a command has made; those that are not there are left out."""
    for path in found:
        if path.exists():
            say(f"look at {path}")


def show(text: str) -> None:
    """Lines of a command's result, on stdout."""
    print(safe(text), flush=True)


def show_json(content: Any) -> None:
    """A command's result for programs, on stdout; names are exact."""
    print(json.dumps(content, indent=2), flush=True)


def show_table(columns: Iterable[str], rows: Iterable[Iterable[object]]) -> None:
    """A table on stdout; its cells are text, never markup."""
    from rich.console import Console
    from rich.table import Column, Table
    from rich.text import Text

    table = Table(*(Column(Text(printable(name))) for name in columns))
    for row in rows:
        table.add_row(*(Text(printable(str(cell))) for cell in row))
    console = Console()
    with console.capture() as capture:
        console.print(table)
    print(capture.get(), end="", flush=True)


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
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(unit, markup=False),
        TimeRemainingColumn(compact=True),
        TextColumn("{task.fields[note]}", "dim", markup=False),
    )
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(printable(what), total=total, completed=start, note="")

        def update(done: int, note: str = "") -> None:
            bar.update(task, completed=done, note=printable(note))

        yield update


def duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"


def core_count(jobs: str) -> int:
    """`auto`, the cores that this process may use, or a number of processes. Raises: LssvwmError."""
    from lssvwm_datasets.machine import usable_cores

    if jobs == "auto":
        return usable_cores()
    if not (jobs.isascii() and jobs.isdigit()) or int(jobs) < 1:
        raise LssvwmError(f"--jobs {jobs}: expected auto or a number of processes")
    return int(jobs)
