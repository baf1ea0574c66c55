"""What this machine, or the container around this process, gives it."""

import contextlib
import os
from pathlib import Path

QUOTAS = {  # of a control group: its file of a version, and the folder that holds the groups of the CPU
    1: ("cpu.cfs_quota_us", ("sys/fs/cgroup/cpu", "sys/fs/cgroup/cpu,cpuacct")),
    2: ("cpu.max", ("sys/fs/cgroup", "sys/fs/cgroup/unified")),
}


def usable_cores(root: Path = Path("/")) -> int:
    """The CPU cores that this process may use: those it is bound to, and no more than its container's quota allows.

    Args:
        root: below it are the files of the kernel, `proc/self/cgroup` and `sys/fs/cgroup`.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, int(min(cores, cpu_quota(root))))


def cpu_quota(root: Path = Path("/")) -> float:
    """The CPU seconds a second that the control groups around this process allow, infinite without any."""
    quotas = [float("inf")]
    for line in _read(root / "proc/self/cgroup").splitlines():
        number, _, path = line.partition(":")
        controllers, _, path = path.partition(":")
        if number != "0" and "cpu" not in controllers.split(","):
            continue
        file, mounts = QUOTAS[2 if number == "0" else 1]
        group = Path(path.lstrip("/"))
        # a limit of any group above counts as well; within a container the group's own path may not be visible
        folders = [root / mount / part for mount in mounts for part in (group, *group.parents)]
        quotas += [_quota(folder, file) for folder in folders]
    return min(quotas)


def _quota(folder: Path, file: str) -> float:
    """Quota and period, in microseconds: `max 100000` in one file (version 2), or in two, where -1 is no limit."""
    words = _read(folder / file).split()
    if file != QUOTAS[2][0]:
        words += _read(folder / "cpu.cfs_period_us").split()
    with contextlib.suppress(ValueError, ZeroDivisionError):
        quota, period = map(int, words)
        if quota > 0:
            return quota / period
    return float("inf")


def _read(path: Path) -> str:
    with contextlib.suppress(OSError, UnicodeDecodeError):
        return path.read_text(encoding="utf-8")
    return ""
