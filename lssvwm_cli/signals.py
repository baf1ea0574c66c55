"""Signals that end long work only after it has saved: Ctrl-C, the end of a shell, what Slurm sends before its time."""

import contextlib
import os
import signal
import stat
import sys
import time
from types import FrameType
from typing import Any

import typer

SAVING = ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2")  # not on every system
SAME_EVENT = 0.5  # seconds: a shell that ends, and torchrun, pass on what the system has sent already


class Signals:
    """As a context: notes the signals instead of dying of them; a second one ends the process at once.

    Called, gives the name of the first that arrived, or None. SIGHUP stays ignored where `nohup` has it ignored.
    """

    def __init__(self) -> None:
        self._number: int | None = None
        self._arrived = 0.0
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> "Signals":
        for name in SAVING:
            number = getattr(signal, name, None)
            if number is not None and not (name == "SIGHUP" and signal.getsignal(number) is signal.SIG_IGN):
                self._previous[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def __call__(self) -> str | None:
        return None if self._number is None else signal.Signals(self._number).name

    def exit_if_any(self) -> None:
        """End the command where a signal came. Raises: typer.Exit with 128 + the signal's number, as shells have it."""
        if self._number is not None:
            raise typer.Exit(128 + self._number)

    def _note(self, number: int, _: FrameType | None) -> None:
        if self._number is None:
            self._number, self._arrived = number, time.monotonic()
            _leave_lost_terminal()
        elif time.monotonic() - self._arrived > SAME_EVENT:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)


def _leave_lost_terminal() -> None:
    """Write to nowhere when the terminal is gone (the end of an ssh session): writing to it would be an error."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            descriptor = stream.fileno()
            if stat.S_ISCHR(os.fstat(descriptor).st_mode) and not os.isatty(descriptor):
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, descriptor)
                os.close(nowhere)
