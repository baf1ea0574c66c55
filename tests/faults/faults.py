"""Faults at the level of system calls: full disks, lost locks, file systems that lack something, rights taken away.

    def test_…(fault_environment, tmp_path):
        environment = fault_environment(fsync=errno.EIO, open=Fault(errno.EACCES, path="train-00001"))
        lssvwm(tmp_path, "prepare", …, environment=environment, fails=True)

Each keyword is a kind of call, its value an errno or a `Fault`. The process that is started with the environment, and
all that it starts, meet the faults; this process does not.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

SOURCE = Path(__file__).with_name("fsfault.c")
KINDS = (
    *("open", "opendir", "read", "write", "fsync", "truncate", "rename", "unlink", "mkdir"),
    *("flock", "symlink", "link", "chmod", "stat", "fcntl", "setpipe"),  # setpipe: a pipe's enlargement by fcntl
)


@dataclass(frozen=True)
class Fault:
    """A kind of call gives `error`, an errno, on files whose path contains `path`, after so many that go well."""

    error: int
    path: str = ""
    after: int = 0


FaultEnvironment = Callable[..., dict[str, str]]


@pytest.fixture(scope="session")
def fault_environment(tmp_path_factory: pytest.TempPathFactory) -> FaultEnvironment:
    """`fault_environment(**faults)`: the environment of a process whose system calls fail as told."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None or sys.platform != "linux":
        pytest.skip("injecting faults needs Linux and a C compiler")
    library = tmp_path_factory.mktemp("faults") / "fsfault.so"
    built = [compiler, "-shared", "-fPIC", "-O1", "-Wall", "-o", str(library), str(SOURCE), "-ldl"]
    subprocess.run(built, check=True)

    def environment(**faults: int | Fault) -> dict[str, str]:
        unknown = set(faults) - set(KINDS)
        if unknown:
            raise ValueError(f"no such kind of call: {', '.join(unknown)}; expected some of {', '.join(KINDS)}")
        variables = {}
        for name, fault in faults.items():
            fault = Fault(fault) if isinstance(fault, int) else fault
            variables[f"FAULT_{name.upper()}"] = f"{fault.error}:{fault.after}:{fault.path}"
        return {**os.environ, "LD_PRELOAD": str(library), **variables}

    return environment
