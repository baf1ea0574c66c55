"""How many cores there are, as bindings and containers say."""

import os
from pathlib import Path

import pytest

from lssvwm_datasets.machine import cpu_quota, usable_cores

GROUPS = {  # files of the kernel, and the quota that they mean
    "version 2, in a container": ({"proc/self/cgroup": "0::/", "sys/fs/cgroup/cpu.max": "150000 100000"}, 1.5),
    "version 2, no limit": ({"proc/self/cgroup": "0::/", "sys/fs/cgroup/cpu.max": "max 100000"}, None),
    "version 2, a group above": (
        {
            "proc/self/cgroup": "0::/pod/one",
            "sys/fs/cgroup/pod/cpu.max": "200000 100000",
            "sys/fs/cgroup/pod/one/cpu.max": "max 100000",
        },
        2.0,
    ),
    "version 1": (
        {
            "proc/self/cgroup": "5:memory:/docker/a\n4:cpu,cpuacct:/docker/a\n0::/",
            "sys/fs/cgroup/cpu,cpuacct/docker/a/cpu.cfs_quota_us": "300000",
            "sys/fs/cgroup/cpu,cpuacct/docker/a/cpu.cfs_period_us": "100000",
        },
        3.0,
    ),
    "version 1, in a container": (
        {
            "proc/self/cgroup": "4:cpuset,cpu:/docker/a",
            "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "50000",
            "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000",
        },
        0.5,
    ),
    "version 1, no limit": (
        {
            "proc/self/cgroup": "4:cpu:/",
            "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1",
            "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000",
        },
        None,
    ),
    "other systems": ({}, None),
    "nonsense": ({"proc/self/cgroup": "0::/", "sys/fs/cgroup/cpu.max": "many 0"}, None),
    "no period": ({"proc/self/cgroup": "0::/", "sys/fs/cgroup/cpu.max": "1000 0"}, None),
}


@pytest.mark.parametrize("case", GROUPS)
def test_the_quota_of_a_container_counts(case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files, quota = GROUPS[case]
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n", encoding="utf-8")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)), raising=False)
    assert cpu_quota(tmp_path) == (quota or float("inf"))
    assert usable_cores(tmp_path) == max(1, int(quota or 64))


def test_bindings_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3, 5}, raising=False)
    assert usable_cores(tmp_path) == 2
