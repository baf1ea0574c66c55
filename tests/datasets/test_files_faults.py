"""Writers whose system calls fail: the old file stays, nothing is left over, the error names file and cause."""

import errno
import json
import os
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from lssvwm_datasets.files import write_text, written_whole
from tests.faults.faults import Fault, FaultEnvironment

PROGRAM = """
import json, sys
from pathlib import Path
import h5py, numpy, safetensors.numpy, torch
from PIL import Image
from lssvwm_datasets.files import PatientFile, write_json, write_text, written_whole

numbers = numpy.random.default_rng(0).random(500_000)

def shard(path):
    file = PatientFile(path, "w+")
    with h5py.File(file, "w") as shard:
        shard["x"] = numbers
    file.close()
    file.check()

WRITERS = {
    "a.txt": lambda path: path.write_text("x" * 10**6),
    "a.npz": lambda path: numpy.savez(path, numbers=numbers),
    "a.npy": lambda path: numpy.save(path, numbers),
    "a.safetensors": lambda path: safetensors.numpy.save_file({"x": numbers}, path),
    "a.pt": lambda path: torch.save({"x": torch.from_numpy(numbers)}, path),
    "a.png": lambda path: Image.fromarray((255 * numbers).astype(numpy.uint8).reshape(500, -1)).save(path),
    "a.h5": shard,
}
outcomes = {}
for name, write in WRITERS.items():
    path = Path(sys.argv[1], name)
    try:
        with written_whole(path) as partial:
            write(partial)
    except Exception as error:
        outcomes[name] = [type(error).__name__, getattr(error, "errno", 0), str(error)]
    else:
        outcomes[name] = oct(path.stat().st_mode & 0o777)
print(json.dumps(outcomes))
"""
NAMES = ("a.txt", "a.npz", "a.npy", "a.safetensors", "a.pt", "a.png", "a.h5")


def outcomes(folder: Path, environment: dict[str, str], before: str = "") -> dict[str, list[object] | str]:
    done = subprocess.run(
        [sys.executable, "-c", before + PROGRAM, str(folder)],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
        preexec_fn=lambda: os.umask(0o027),
    )
    found = json.loads(done.stdout)
    assert set(found) == set(NAMES)
    return found


@pytest.mark.parametrize(
    ("kind", "fault"),
    [
        ("write", Fault(errno.ENOSPC, "test_what_fails")),
        ("write", Fault(errno.EDQUOT, "test_what_fails")),
        ("fsync", Fault(errno.EIO)),
        ("rename", Fault(errno.ESTALE)),
        ("open", Fault(errno.EROFS, ".partial")),
    ],
)
def test_what_fails_is_named_and_the_old_file_stays(
    fault_environment: FaultEnvironment, tmp_path: Path, kind: str, fault: Fault
) -> None:
    for name in NAMES:
        (tmp_path / name).write_text("old")
    for name, outcome in outcomes(tmp_path, fault_environment(**{kind: fault})).items():
        assert outcome[2] == f"[Errno {fault.error}] {os.strerror(fault.error)}: '{tmp_path / name}'"
        assert (tmp_path / name).read_text() == "old"
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(NAMES)


LIMIT = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))\n"


def test_a_full_disk_is_named_whatever_a_writer_makes_of_it(tmp_path: Path) -> None:
    """A limit on the size of files stands in for the disk: safetensors and torch raise errors of their own."""
    for name, outcome in outcomes(tmp_path, dict(os.environ), LIMIT).items():
        assert outcome[2] == f"[Errno {errno.EFBIG}] File too large: '{tmp_path / name}'"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "faults",
    [
        {"chmod": errno.EPERM, "fsync": errno.EINVAL},
        {"chmod": errno.ENOTSUP, "fsync": errno.ENOTSUP},
        {"chmod": errno.ENOSYS, "fsync": errno.ENOSYS, "flock": errno.ENOLCK, "symlink": errno.EPERM},
    ],
)
def test_file_systems_that_lack_something_will_do(
    fault_environment: FaultEnvironment, tmp_path: Path, faults: dict[str, int]
) -> None:
    assert set(outcomes(tmp_path, fault_environment(**faults)).values()) <= {"0o640", "0o600"}


def test_others_may_read_every_writers_file_as_the_umask_says(tmp_path: Path) -> None:
    assert set(outcomes(tmp_path, dict(os.environ)).values()) == {"0o640"}


def test_writing_leaves_the_umask_alone_also_between_threads(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        stop, seen = threading.Event(), set()

        def look() -> None:
            number = 0
            while not stop.is_set():
                number += 1
                (tmp_path / f"seen{number % 9}").unlink(missing_ok=True)
                (tmp_path / f"seen{number % 9}").touch()
                seen.add(stat.S_IMODE((tmp_path / f"seen{number % 9}").stat().st_mode))

        thread = threading.Thread(target=look)
        thread.start()
        for _ in range(200):
            with written_whole(tmp_path / "a") as partial:
                partial.unlink()
                partial.touch(mode=0o400)
                partial.chmod(0o644)
        stop.set()
        thread.join()
        assert seen == {0o600}
        assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o600
    finally:
        assert os.umask(before) == 0o077


def test_trouble_of_another_file_keeps_its_name(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="source"), written_whole(tmp_path / "a"):
        (tmp_path / "source").read_text()
    with pytest.raises(ZeroDivisionError), written_whole(tmp_path / "a") as partial:
        partial.write_text(str(1 // 0))
    assert list(tmp_path.iterdir()) == []


def test_text_is_utf8(tmp_path: Path) -> None:
    write_text(tmp_path / "a", "Ł → ∞\n")
    assert (tmp_path / "a").read_bytes() == "Ł → ∞\n".encode()
