"""The faults that other tests inject: each kind of call fails where it should, and nowhere else."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.faults.faults import KINDS, Fault, FaultEnvironment

CALLS = {
    "open": "os.close(os.open(path, os.O_RDONLY))",
    "opendir": "list(os.scandir(folder))",
    "read": "os.read(fd, 1)",
    "write": "os.write(fd, b'1')",
    "fsync": "os.fsync(fd)",
    "truncate": "os.ftruncate(fd, 0)",
    "rename": "os.replace(path, path)",
    "unlink": "os.unlink(path)",
    "mkdir": "os.mkdir(path + '.folder')",
    "flock": "fcntl.flock(fd, fcntl.LOCK_SH)",
    "symlink": "os.symlink(path, path + '.link')",
    "link": "os.link(path, path + '.link')",
    "chmod": "os.chmod(path, 0o600)",
    "stat": "os.stat(path)",
    "fcntl": "fcntl.fcntl(fd, fcntl.F_GETFL)",
    "setpipe": "fcntl.fcntl(os.pipe()[1], 1031, 2**17)",
}
PROGRAM = """
import errno, fcntl, os, sys
path, folder = sys.argv[1], os.path.dirname(sys.argv[1])
fd = os.open(path, os.O_RDWR)
try:
    exec(sys.argv[2])
except OSError as error:
    sys.exit(error.errno)
"""


def outcome(path: Path, call: str, environment: dict[str, str]) -> int:
    """The errno that a call gives, 0 when it goes well."""
    path.write_text("content")
    return subprocess.run([sys.executable, "-c", PROGRAM, str(path), call], env=environment, check=False).returncode


def test_every_kind_has_a_call_here() -> None:
    assert set(CALLS) == set(KINDS)


@pytest.mark.parametrize("kind", CALLS)
def test_a_call_fails_as_told(fault_environment: FaultEnvironment, tmp_path: Path, kind: str) -> None:
    where = "pipe" if kind == "setpipe" else tmp_path.name
    after = int(kind == "open")  # the program has opened the file itself
    faulty = fault_environment(**{kind: Fault(errno.ESTALE, where, after)})
    assert outcome(tmp_path / "file", CALLS[kind], faulty) == errno.ESTALE
    elsewhere = fault_environment(**{kind: Fault(errno.ESTALE, path="elsewhere")})
    assert outcome(tmp_path / "file", CALLS[kind], elsewhere) == 0


def test_a_call_fails_after_those_that_go_well(fault_environment: FaultEnvironment, tmp_path: Path) -> None:
    environment = fault_environment(write=Fault(errno.ENOSPC, path="file", after=2))
    path = tmp_path / "file"
    assert outcome(path, "for _ in range(9): os.write(fd, b'12')", environment) == errno.ENOSPC
    assert path.read_bytes() == b"1212ent"


def test_this_process_meets_no_faults(fault_environment: FaultEnvironment) -> None:
    fault_environment(fsync=errno.EIO)
    assert "LD_PRELOAD" not in os.environ
    with pytest.raises(ValueError, match="no such kind of call"):
        fault_environment(sync=errno.EIO)
