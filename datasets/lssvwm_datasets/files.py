"""Files that appear whole or not at all."""

import contextlib
import hashlib
import io
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

KEPT_BYTES = 220  # of a file's name in its hidden name, which may have 255
SUFFIX_LENGTH = 16  # a longer one tells no writer its format


@contextlib.contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """Yield a hidden temporary path beside `path`; rename it to `path` when the block succeeds, else remove it.

    The temporary name keeps the suffix, since some writers choose their format by it, and holds the process's id, since
    a killed run's last process may still be writing when the next run begins. What dead processes left of this file is
    removed.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    before, after = _partial_name(path)
    partial = path.with_name(f"{before}{os.getpid()}{after}")
    _remove_left_overs(path)
    try:
        yield partial
        with partial.open("rb+") as handle:
            os.fsync(handle.fileno())
        partial.chmod(0o666 & ~_umask())  # some writers make private files
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def _partial_name(path: Path) -> tuple[str, str]:
    """What the hidden name has before and after the process's id; a long name is shortened to leave room for these."""
    suffix = path.suffix if len(path.suffix) <= SUFFIX_LENGTH else ""
    stem = path.name.removesuffix(suffix)
    while len(os.fsencode(stem + suffix)) > KEPT_BYTES:
        stem = stem[:-1]
    return f".{stem}.", f".partial{suffix}"


def _remove_left_overs(path: Path) -> None:
    before, after = _partial_name(path)
    with contextlib.suppress(OSError):  # they are in nobody's way
        for name in os.listdir(path.parent):
            pid = name.removeprefix(before).removesuffix(after)
            if name == before + pid + after and pid.isdecimal() and not _lives(int(pid)):
                path.with_name(name).unlink()


def _lives(pid: int) -> bool:
    """Whether a process of this machine has the number. Windows cannot tell, but lets nobody remove an open file."""
    if os.name == "nt":
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):  # somebody else's; no number of a process
        return True
    return True


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def remove_partial_files(folder: Path, name: str = "*") -> None:
    """Remove what killed runs left below `folder` of files called `name`, without suffix."""
    for partial in folder.rglob(f".{name}.*partial*"):
        partial.unlink(missing_ok=True)


class PatientFile(io.FileIO):
    """A file opened for writing that keeps its first error in `error` and takes whatever comes after as written.

    HDF5 crashes the process when it cannot write while it closes a file; so it is told so afterwards, by `check`.
    """

    error: OSError | None = None

    def write(self, data: Any) -> int:
        rest = memoryview(data).cast("B")
        size = len(rest)
        try:
            while self.error is None and len(rest):
                rest = rest[super().write(rest) :]
        except OSError as error:
            self.error = error
        return size

    def truncate(self, size: int | None = None) -> int:
        try:
            if self.error is None:
                return super().truncate(size)
        except OSError as error:
            self.error = error
        return self.tell() if size is None else size

    def check(self) -> None:
        """Raises: OSError, the first that there was."""
        if self.error is not None:
            raise self.error


def write_json(path: Path, content: Any) -> None:
    write_text(path, json.dumps(content, indent=2) + "\n")


def write_text(path: Path, text: str) -> None:
    """A text file, UTF-8 whatever the locale, that appears whole or not at all."""
    with written_whole(path) as partial:
        partial.write_text(text, encoding="utf-8", newline="\n")


def sha256_of(path: Path) -> str:
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()
