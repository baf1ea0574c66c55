"""Opens recordings so that the machine's trouble is told apart from damage.

Whatever a parser raises on a file's content is damage of the recording. What opening or reading the file raises
(EACCES, EIO, ESTALE, EMFILE, …) is trouble of the machine, also where a parser hides it behind an error of its own.
"""

import contextlib
import errno
import io
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lssvwm_datasets.errors import DamagedRecording, LssvwmError, UnreadableNow

MISSING = {errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG}  # a file of such a name is not there
NO_FILE = {errno.EISDIR, errno.ENXIO}  # a folder, a socket


class RecordingFile(io.FileIO):
    """A file opened for reading that keeps in `trouble` what the machine could not read."""

    trouble: OSError | None = None

    def readinto(self, buffer: Any) -> int | None:
        try:
            return super().readinto(buffer)
        except OSError as error:
            self.trouble = error
            raise

    def readall(self) -> bytes:
        try:
            return super().readall()
        except OSError as error:
            self.trouble = error
            raise


@contextlib.contextmanager
def opened_recording(path: Path, kind: str = "file") -> Iterator[io.BufferedReader]:
    """A recording's file to read from; a named pipe or a device is not waited for.

    Args:
        kind: what it should be, for the message: a video, an npz file.

    Raises: DamagedRecording when it is missing, is no regular file, or when the block raises anything about what is in
    it; OSError and MemoryError when the machine could not read it.
    """
    with _opened(path) as raw:
        try:
            yield io.BufferedReader(raw)
        except (LssvwmError, MemoryError):
            raise
        except Exception as error:  # zipfile, zlib, tokenize, numpy, json and PyAV each have their own for damage
            if raw.trouble is not None:
                raise raw.trouble from error
            raise DamagedRecording(f"{path}: not a readable {kind} ({reason_of(error)})") from error


def reason_of(error: BaseException) -> str:
    """What an exception says, in one line."""
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return (text or type(error).__name__).splitlines()[0]


def unreadable(path: Path, error: OSError | MemoryError) -> UnreadableNow:
    """The exception for a recording that the machine could not read, naming the file where it is known."""
    file = getattr(error, "filename", None)
    return UnreadableNow(f"{os.fsdecode(file) if file else path}: cannot be read for now ({reason_of(error)})")


def _opened(path: Path) -> RecordingFile:
    try:
        raw = RecordingFile(path, opener=_open_without_waiting)
    except OSError as error:
        if error.errno in MISSING:
            missing = f"a link to {os.readlink(path)}, which does not exist" if os.path.islink(path) else "no such file"
            raise DamagedRecording(f"{path}: {missing}") from error
        if error.errno in NO_FILE:
            raise DamagedRecording(f"{path}: not a regular file") from error
        raise
    if not stat.S_ISREG(os.fstat(raw.fileno()).st_mode):
        raw.close()
        raise DamagedRecording(f"{path}: not a regular file")
    return raw


def _open_without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))
