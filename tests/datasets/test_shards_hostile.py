"""A shard from anywhere: links, bombs, flipped bits, wrong tables, trouble of the machine, no locks."""

import errno
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest

from lssvwm_datasets.errors import DamagedRecording, LssvwmError
from lssvwm_datasets.index import read_index
from lssvwm_datasets.shard_file import Shard
from lssvwm_datasets.shard_writer import ShardWriter
from lssvwm_datasets.shards import open_shards
from tests.datasets.test_shards import EPISODES, HEADER, LENGTHS, SHARD, encode, write
from tests.faults.faults import Fault, FaultEnvironment

FRAMES = sum(LENGTHS)


def replaced(name: str, make: Callable[[h5py.File], object]) -> Callable[[h5py.File], None]:
    def edit(file: h5py.File) -> None:
        if name in file:
            del file[name]
        make(file)

    return edit


def external(file: h5py.File) -> None:
    file.create_dataset("frames", (FRAMES, 8, 8, 3), "u1", external=[("private", 0, FRAMES * 192)])


def virtual(file: h5py.File) -> None:
    layout = h5py.VirtualLayout((FRAMES, 2), "f4")
    layout[:] = h5py.VirtualSource("other.h5", "actions", (FRAMES, 2))
    file.create_virtual_dataset("actions", layout)


def table(name: str, values: list[int]) -> Callable[[h5py.File], None]:
    return replaced(name, lambda file: file.create_dataset(name, data=np.array(values, np.int64)))


def shared_ids(file: h5py.File) -> None:
    """Ids that all point to one long text."""
    file.create_dataset("episode_id", data=["x" * 20_000] * 2, dtype=h5py.string_dtype())


LEADS_OUT = "lies in other files|is a link to elsewhere"
TOO_LARGE = "declares|chunks larger|expected"
HOSTILE: dict[str, tuple[Callable[[h5py.File], object], str]] = {
    "external storage": (replaced("frames", external), LEADS_OUT),
    "a virtual dataset": (replaced("actions", virtual), LEADS_OUT),
    "an external link": (
        replaced("latents", lambda file: file.__setitem__("latents", h5py.ExternalLink("other.h5", "/latents"))),
        LEADS_OUT,
    ),
    "a soft link": (replaced("poses", lambda file: file.__setitem__("poses", h5py.SoftLink("/actions"))), LEADS_OUT),
    "a link to a link": (replaced("more", lambda file: file.__setitem__("more", h5py.SoftLink("/more"))), LEADS_OUT),
    "a table by an external link": (
        replaced("episode_length", lambda f: f.__setitem__("episode_length", h5py.ExternalLink("other.h5", "/x"))),
        LEADS_OUT,
    ),
    "a group for a dataset": (replaced("latents", lambda file: file.create_group("latents")), "is no dataset"),
    "frames that nobody stored": (lambda file: [file[name].resize(10**8, axis=0) for name in ROWS], TOO_LARGE),
    "one dataset that nobody stored": (lambda file: file["latents"].resize(10**8, axis=0), TOO_LARGE),
    "layouts that nobody stored": (
        replaced("layouts", lambda file: file.create_dataset("layouts", (2, 200_000, 200_000), "u1", chunks=(1, 9, 9))),
        TOO_LARGE,
    ),
    "a compressed bomb": (
        replaced("frames", lambda f: f.create_dataset("frames", (FRAMES, 8, 8, 3), "u1", compression="gzip")),
        "is compressed",
    ),
    "chunks larger than the file": (
        replaced(
            "layouts",
            lambda f: f.create_dataset("layouts", (2, 9, 9), "u1", chunks=(2, 9999, 9999), maxshape=(2, None, None)),
        ),
        TOO_LARGE,
    ),
    "numbers of another type": (
        replaced("actions", lambda file: file.create_dataset("actions", data=np.zeros((FRAMES, 2), "f8"))),
        "expected float32",
    ),
    "long ids": (replaced("episode_id", shared_ids), "more than 4096 characters"),
    "a shifted start": (table("episode_start", [0, 69]), "one after another"),
    "lengths that swap": (table("episode_length", [5, 70]), "one after another"),
    "a length below none": (table("episode_length", [-1, 76]), "frames in all"),
    "lengths that overflow": (table("episode_length", [2**63 - 1, 2**63 - 1]), "frames in all"),
    "names that are numbers": (lambda f: f.attrs.__setitem__("action_names", "[1, 2]"), "action_names"),
    "names nested too deep": (lambda f: f.attrs.__setitem__("action_names", "[" * 9999), "nested too deep"),
    "a thousand texts for one": (lambda f: f.attrs.__setitem__("dataset", ["x"] * 1000), "neither a text"),
    "a text for a number": (lambda f: f.attrs.__setitem__("fps", "4"), "fps"),
    "no frames a second": (lambda f: f.attrs.__setitem__("fps", 0.0), "0.0 Hz"),
    "endless frames a second": (lambda f: f.attrs.__setitem__("fps", np.inf), "finite"),
    "huge frames": (lambda f: f.attrs.__setitem__("frame_size", [2**31, 2**31]), "frames of"),
}
ROWS = ("latents", "actions", "poses", "frames")


@pytest.mark.parametrize(("edit", "message"), HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_shards_are_refused_when_they_are_opened(
    tmp_path: Path, edit: Callable[[h5py.File], object], message: str
) -> None:
    shard = write(tmp_path)
    (tmp_path / "private").write_bytes(b"secret" * 10_000)
    with h5py.File(tmp_path / "other.h5", "w") as other:
        other["actions"] = np.zeros((FRAMES, 2), "f4")
        other["latents"] = np.zeros((FRAMES, 2, 4, 4), "f2")
        other["x"] = np.array(LENGTHS)
    with h5py.File(shard, "a") as file:
        edit(file)
    with pytest.raises(LssvwmError, match=message) as raised:
        open_shards(tmp_path, "train")
    assert str(raised.value).startswith(f"{shard}: ")


def test_many_ids_that_share_one_text_take_no_memory(tmp_path: Path) -> None:
    """64 KB that would be 4 GB: each of 2,000 ids is a reference to the same text of 2 MB."""
    shard = write(tmp_path, episodes=[EPISODES[1]] * 1)
    count, length = 400, LENGTHS[1]
    with h5py.File(shard, "a") as file:
        for name in ("episode_id", "episode_start", "episode_length", "layouts"):
            del file[name]
        ids = file.create_dataset("episode_id", (count,), h5py.string_dtype())
        ids[0] = "x" * 2**21
        file["episode_start"] = np.arange(count) * 0 + np.arange(count).clip(0, 0)
        file["episode_length"] = np.array([0] * (count - 1) + [length])
        place = ids.id.get_offset()
    content = bytearray(shard.read_bytes())
    content[place : place + 16 * count] = content[place : place + 16] * count
    shard.write_bytes(content)
    code = "import sys, resource; from pathlib import Path; from lssvwm_datasets.shard_file import Shard\n"
    code += "resource.setrlimit(resource.RLIMIT_AS, (2**30, 2**30)); Shard(Path(sys.argv[1]))"
    done = subprocess.run([sys.executable, "-c", code, str(shard)], capture_output=True, text=True, check=False)
    assert "more than 4096 characters" in done.stderr
    assert "MemoryError" not in done.stderr


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: path.symlink_to(path)])
def test_what_is_no_regular_file_is_told_at_once(tmp_path: Path, make: Callable[[Path], object]) -> None:
    shard = write(tmp_path)
    shard.unlink()
    make(shard)
    with pytest.raises((LssvwmError, OSError), match=r"not a regular file|Too many levels") as raised:
        open_shards(tmp_path, "train")
    assert str(shard) in str(raised.value)


def rewritten(name: str, place: tuple[int, ...], value: float) -> Callable[[h5py.File], None]:
    def edit(file: h5py.File) -> None:
        rows = file[name][:]
        rows[place] = value
        file[name][:] = rows

    return edit


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("latents", np.nan, "row 71 of latents is not finite"),
        ("latents", -np.inf, "row 71 of latents is not finite"),
        ("actions", np.nan, "row 71 of actions is not finite"),
        ("actions", np.inf, "row 71 of actions is not finite"),
    ],
)
def test_numbers_that_are_not_finite_are_told(tmp_path: Path, name: str, value: float, message: str) -> None:
    with h5py.File(write(tmp_path), "a") as file:
        rewritten(name, (71, 1), value)(file)
    shards = open_shards(tmp_path, "train")
    shards.read(shards.episodes[0], name)
    shards.read(shards.episodes[1], name, 2)
    with pytest.raises(LssvwmError, match=message):
        shards.read(shards.episodes[1], name)


def test_layouts_hold_free_and_wall_alone(tmp_path: Path) -> None:
    with h5py.File(write(tmp_path), "a") as file:
        rewritten("layouts", (1, 2, 3), 7)(file)
    shards = open_shards(tmp_path, "train")
    assert shards.layout(shards.episodes[0]) is not None
    with pytest.raises(LssvwmError, match="layout 1 holds 7, expected 0 and 1"):
        shards.layout(shards.episodes[1])


@pytest.mark.parametrize(
    ("misfit", "message"),
    [
        (replace(EPISODES[0], actions=np.full_like(EPISODES[0].actions, np.nan)), "an action"),
        (replace(EPISODES[0], layout=np.full((9, 9), 2, np.uint8)), "other numbers than 0 and 1"),
    ],
)
def test_none_of_these_is_written(tmp_path: Path, misfit: object, message: str) -> None:
    with ShardWriter(tmp_path / SHARD, HEADER, "train", "plan", keep_frames=False) as writer:
        with pytest.raises(DamagedRecording, match=message):
            writer.add(misfit, encode)  # type: ignore[arg-type]
        with pytest.raises(DamagedRecording, match="not finite"):
            writer.add(EPISODES[0], lambda frames: np.full_like(encode(frames), np.inf))
        assert writer.ids == []


FLIPS = """
import sys
from pathlib import Path
import numpy as np
from lssvwm_datasets.errors import LssvwmError
from lssvwm_datasets.shards import open_shards

def content(folder):
    shards = open_shards(folder, "train")
    rows = [shards.read(each, name) for each in shards.episodes for name in ("latents", "actions", "poses", "frames")]
    return [(each.id, each.start, each.length, shards.layout(each).tobytes()) for each in shards.episodes], [
        None if each is None else each.tobytes() for each in rows
    ]

folder = Path(sys.argv[1])
shard = next(folder.glob("*.h5"))
whole, expected = shard.read_bytes(), content(folder)
rng = np.random.default_rng(int(sys.argv[2]))
told = 0
for place in rng.choice(len(whole), 400, replace=False):
    flipped = bytearray(whole)
    flipped[place] ^= 1 << rng.integers(8)
    shard.unlink()  # HDF5 would show the content it has already, were it the same file
    shard.write_bytes(flipped)
    try:
        assert content(folder) == expected, f"wrong rows without a word: byte {place}"
    except LssvwmError as error:
        assert str(error).startswith(str(shard))
        told += 1
shard.write_bytes(whole)
print(told)
"""


def test_a_flipped_bit_is_told_or_changes_nothing(tmp_path: Path) -> None:
    write(tmp_path)
    done = subprocess.run(
        [sys.executable, "-c", FLIPS, str(tmp_path), "0"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 100


TROUBLE = """
import sys
from pathlib import Path
from lssvwm_datasets.errors import LssvwmError
from lssvwm_datasets.shards import open_shards
try:
    shards = open_shards(Path(sys.argv[1]), "train")
    shards.read(shards.episodes[0], "latents")
except LssvwmError as error:
    print("damage", error)
except OSError as error:
    print("trouble", error.errno, error.filename)
"""


@pytest.mark.parametrize(
    ("kind", "error"),
    [
        ("open", errno.EACCES),
        ("open", errno.ESTALE),
        ("open", errno.EMFILE),
        ("open", errno.EIO),
        ("read", errno.EIO),
        ("read", errno.ESTALE),
        ("stat", errno.EACCES),
    ],
)
def test_trouble_of_the_machine_is_not_damage(
    fault_environment: FaultEnvironment, tmp_path: Path, kind: str, error: int
) -> None:
    shard = write(tmp_path)
    environment = fault_environment(**{kind: Fault(error, SHARD)})
    done = subprocess.run(
        [sys.executable, "-c", TROUBLE, str(tmp_path)], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout == f"trouble {error} {shard}\n"


@pytest.mark.parametrize("error", [errno.ENOLCK, errno.ENOSYS, errno.EAGAIN, errno.EIO])
def test_reading_needs_no_lock(fault_environment: FaultEnvironment, tmp_path: Path, error: int) -> None:
    write(tmp_path)
    environment = fault_environment(flock=error, fcntl=Fault(error, SHARD))
    done = subprocess.run(
        [sys.executable, "-c", TROUBLE, str(tmp_path)], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout == ""


def test_a_shard_that_another_process_has_locked_is_read(tmp_path: Path) -> None:
    fcntl = pytest.importorskip("fcntl")
    with write(tmp_path).open("rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        shards = open_shards(tmp_path, "train")
        assert shards.read(shards.episodes[0], "latents") is not None


def test_a_shard_of_no_episodes_is_one(tmp_path: Path) -> None:
    with Shard(write(tmp_path, episodes=[])) as shard:
        assert (shard.frames, shard.episodes) == (0, [])
    assert read_index(tmp_path).splits == []
