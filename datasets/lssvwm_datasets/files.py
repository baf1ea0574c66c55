"""Files that appear whole or not at all."""

import contextlib
import hashlib
import io
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any


@contextlib.contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """Yield a hidden temporary path beside `path`; rename it to `path` when the block succeeds, else remove it.

    The temporary name keeps the suffix, since some writers choose their format by it, and holds the process's id, since
    a killed run's last process may still be writing when the next run begins.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.stem}.{os.getpid()}.partial{path.suffix}")
    try:
        yield partial
        with partial.open("rb+") as handle:
            os.fsync(handle.fileno())
        partial.chmod(0o666 & ~_umask())  # some writers make private files
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


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
    with written_whole(path) as partial:
        partial.write_text(json.dumps(content, indent=2) + "\n")


def sha256_of(path: Path) -> str:
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()
