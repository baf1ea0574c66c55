"""Files that appear whole or not at all."""

import contextlib
import errno
import hashlib
import io
import json
import os
import re
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lssvwm_datasets.errors import LssvwmError

FOLDER_SUFFIX = ".folder"
KEPT_BYTES = 220  # of a file's name in its hidden name, which may have 255
SUFFIX_LENGTH = 16  # a longer one tells no writer its format
PROBE_BYTES = 2**20
UNSUPPORTED = {
    errno.EPERM,
    errno.EACCES,
    errno.EINVAL,
    errno.ENOSYS,
    errno.ENOTSUP,
    errno.EOPNOTSUPP,
}  # by a file system


@contextlib.contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """Yield a hidden temporary path beside `path`; rename it to `path` when the block succeeds, else remove it.

    The temporary name keeps the suffix, since some writers choose their format by it, and holds the process's id, since
    a killed run's last process may still be writing when the next run begins. What dead processes left of this file is
    removed. The file is there, empty, when the block begins; others may read it as the umask says.

    Raises: LssvwmError where something is there that is no file; OSError naming `path` and what the system said, also
    where a writer in the block hides that.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists() and not path.is_file():  # a folder, a pipe, a device: nothing to be replaced
        raise LssvwmError(f"{path}: there is something that is no file; choose another name")
    before, after = _partial_name(path)
    partial = path.with_name(f"{before}{os.getpid()}{after}")
    _remove_left_overs(path)
    try:
        with _trouble_told(path, partial):
            os.close(os.open(partial, os.O_CREAT | os.O_TRUNC | os.O_WRONLY, 0o666))
            mode = partial.stat().st_mode
            yield partial
            with partial.open("rb+") as file:
                _flush(file.fileno())
            _make_readable(partial, mode)
            os.replace(partial, path)
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)


@contextlib.contextmanager
def _trouble_told(path: Path, partial: Path) -> Iterator[None]:
    """Turns what went wrong while `partial` was written into an OSError about `path`."""
    try:
        yield
    except LssvwmError:
        raise
    except Exception as error:
        cause = error if isinstance(error, OSError) and error.errno is not None else _cause_of(error, partial)
        if cause is None or cause.filename not in (None, partial, str(partial)):
            raise
        assert cause.errno is not None
        raise OSError(cause.errno, os.strerror(cause.errno), str(path)) from error


def _cause_of(error: Exception, partial: Path) -> OSError | None:
    """What the system said before a writer raised `error`: in its message as Rust puts it, else asked by writing more.

    None where writing works, so that the error is of another kind.
    """
    said = re.search(r"\(os error (\d+)\)", str(error))
    if said is not None:
        return OSError(int(said[1]), os.strerror(int(said[1])))
    try:
        with partial.open("ab", buffering=0) as file:
            file.write(bytes(PROBE_BYTES))
            file.write(b"0")  # a disk that is nearly full takes a part of the first
            _flush(file.fileno())
    except OSError as trouble:
        return trouble
    return None


def _flush(file: int) -> None:
    """To the disk, where the file system can; a write that failed late is told here. Raises: OSError."""
    try:
        os.fsync(file)
    except OSError as error:
        if error.errno not in UNSUPPORTED:
            raise


def _make_readable(file: Path, mode: int) -> None:
    """Give a file the mode that it was made with: some writers make private ones. Raises: OSError."""
    if file.stat().st_mode == mode:
        return
    try:
        file.chmod(stat.S_IMODE(mode))
    except OSError as error:
        if error.errno not in UNSUPPORTED:
            raise


@contextlib.contextmanager
def hidden_folder(partial: Path) -> Iterator[Path]:
    """A folder beside what `written_whole` yields, for writers with temporary files of their own; removed at the end.

    What dead processes left of it is removed with their other left-overs.
    """
    folder = partial.with_name(partial.name + FOLDER_SUFFIX)
    folder.mkdir(exist_ok=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


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
            pid, left = name.removeprefix(before).partition(".")[0], path.with_name(name)
            names = (before + pid + after, before + pid + after + FOLDER_SUFFIX)
            if name in names and pid.isdecimal() and not _lives(int(pid)):
                shutil.rmtree(left) if left.is_dir() else left.unlink()


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
        """Tell what went wrong, if anything did. Raises: OSError, the first that there was."""
        if self.error is not None:
            raise self.error


def write_json(path: Path, content: Any) -> None:
    write_text(path, json.dumps(content, indent=2) + "\n")


def write_text(path: Path, text: str) -> None:
    """A text file, UTF-8 whatever the locale, that appears whole or not at all.

    Raises: OSError; LssvwmError for the name of a file or folder in the text that is no UTF-8.
    """
    try:
        content = text.encode()
    except UnicodeEncodeError as error:
        (line,) = text[: error.end].splitlines()[-1:]
        raise LssvwmError(
            f"{path}: cannot hold a name that is not UTF-8: {line}; rename that file or folder"
        ) from error
    with written_whole(path) as partial:
        partial.write_bytes(content)


def sha256_of(path: Path) -> str:
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()
