"""One training of a folder at a time, also over machines that share its file system.

The operating system keeps the lock (flock), so that of a process that died is gone with it. The file says in words who
holds it. On file systems without locks these words are all there is: of a process of this machine they tell whether it
still lives; of another machine's nobody can tell, so the user decides.
"""

import contextlib
import errno
import json
import os
import socket
import stat
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from lssvwm_datasets.errors import LssvwmError
from lssvwm_datasets.schema import parse_json

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

LOCK_FILE = ".lock"
_held: set[int] = set()  # descriptors, which a forked process must not keep: the lock would outlive its owner


@dataclass(frozen=True)
class Holder:
    """A process: its machine, its number, and when it began, since numbers come again."""

    host: str
    pid: int
    began: str = ""

    @staticmethod
    def of(pid: int) -> "Holder":
        return Holder(socket.gethostname(), pid, _began(pid))


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the lock of a folder, which is made where it is not there; one that stays empty is removed again.

    Raises: LssvwmError naming the process that holds it already; OSError.
    """
    made = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / LOCK_FILE
    never_elsewhere = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)  # no link's target, no pipe
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | never_elsewhere, 0o666)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise LssvwmError(f"{path}: not a regular file; remove it")
        _take(path, descriptor)
        _held.add(descriptor)
        _write(descriptor, asdict(Holder.of(os.getpid())))
        yield
        _write(descriptor, None)
    finally:
        _held.discard(descriptor)
        os.close(descriptor)
        if made and os.listdir(folder) == [LOCK_FILE]:  # what was to be done there was refused
            path.unlink()
            folder.rmdir()


def _take(path: Path, descriptor: int) -> None:
    """Raises: LssvwmError when another process has it."""
    try:
        if fcntl is not None:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
    except OSError as error:
        if error.errno == errno.EWOULDBLOCK:
            raise _refused(path, _holder(path, descriptor)) from error
    holder = _holder(path, descriptor)  # there are no locks here
    if holder is not None and _may_live(holder):
        raise _refused(path, holder)


def _refused(path: Path, holder: Holder | None) -> LssvwmError:
    who = f"process {holder.pid} on {holder.host}" if holder else "another process"
    stale = "" if holder is None or holder.host == socket.gethostname() else f"; if that one is gone, remove {path}"
    return LssvwmError(f"{path.parent}: {who} is training it already; wait for its end, or choose another name{stale}")


def _holder(path: Path, descriptor: int) -> Holder | None:
    """Who the file says has the lock; None where it names nobody."""
    os.lseek(descriptor, 0, os.SEEK_SET)
    try:
        return parse_json(str(path), os.read(descriptor, 4096).decode("utf-8", "replace"), Holder)
    except LssvwmError:
        return None


def _write(descriptor: int, content: dict[str, object] | None) -> None:
    os.ftruncate(descriptor, 0)
    os.lseek(descriptor, 0, os.SEEK_SET)
    if content is not None:
        os.write(descriptor, json.dumps(content).encode())


def _may_live(holder: Holder) -> bool:
    if holder.host != socket.gethostname():
        return True
    try:
        os.kill(holder.pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:  # somebody else's process
        pass
    return holder.began in ("", _began(holder.pid)) and holder.pid != os.getpid()


def _began(pid: int) -> str:
    """When a process of this machine began, in the system's ticks; empty where the system does not tell."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return ""


def _leave_to_the_parent() -> None:
    while _held:
        os.close(_held.pop())


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_to_the_parent)
