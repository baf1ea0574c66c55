"""Shards: what goes in comes out; what is damaged or foreign is refused in words."""

import errno
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from numpy.typing import NDArray

from lssvwm_datasets.episode import Episode
from lssvwm_datasets.errors import DamagedRecording, LssvwmError
from lssvwm_datasets.frames import PART_FRAMES, FrameParts
from lssvwm_datasets.index import FORMAT, FORMAT_VERSION, ShardHeader, read_index
from lssvwm_datasets.poses import kinds_of
from lssvwm_datasets.shard_writer import ShardWriter
from lssvwm_datasets.shards import open_shards

UNITS = ("one-hot", "one-hot")
HEADER = ShardHeader(
    "maze", 4.0, (8, 8), ("noop", "go"), ("x", "y"), "small", "abc", (2, 4, 4), ("one-hot",) * 2, "in step"
)
LENGTHS = (70, 5)
SHARD = "train-00000-of-00001.h5"


def episode(id: str, length: int) -> Episode:
    rng = np.random.default_rng(length)
    return Episode(
        id=id,
        frames=FrameParts.of(rng.integers(0, 256, (length, 8, 8, 3), dtype=np.uint8)),
        frame_size=(8, 8),
        actions=rng.random((length, 2), dtype=np.float32),
        action_names=HEADER.action_names,
        action_units=HEADER.action_units,
        source_alignment=HEADER.source_alignment,
        fps=4.0,
        poses=rng.random((length, 2), dtype=np.float32),
        pose_names=HEADER.pose_names,
        layout=rng.integers(0, 2, (9, 9), dtype=np.uint8),
    )


EPISODES = [episode(f"e{length}", length) for length in LENGTHS]


def encode(frames: NDArray[np.uint8]) -> NDArray[np.float16]:
    """(n, 8, 8, 3) -> (n, 2, 4, 4) latents, every one of its own frame."""
    return (frames[:, ::2, ::2, :2].transpose(0, 3, 1, 2) / 16).astype(np.float16)


def all_frames(one: Episode) -> NDArray[np.uint8]:
    return np.concatenate(list(one.frames))


LATENTS = [encode(all_frames(one)) for one in EPISODES]


def index(header: ShardHeader = HEADER, **content: Any) -> bytes:
    """A `dataset.json`."""
    return json.dumps({"format": FORMAT, "format_version": FORMAT_VERSION, **asdict(header), **content}).encode()


def write(
    folder: Path,
    header: ShardHeader = HEADER,
    name: str = SHARD,
    episodes: Sequence[Episode] = EPISODES,
    keep_frames: bool = True,
) -> Path:
    """A shard of `episodes`, and the index of all shards in `folder`."""
    folder.mkdir(exist_ok=True)
    writer = ShardWriter(folder / name, header, "train", "plan", keep_frames)
    for one in episodes:
        writer.add(one, encode)
    writer.skip("bad", "because")
    writer.close()
    shards = [{"file": path.name, "split": "train", "episodes": len(episodes)} for path in sorted(folder.glob("*.h5"))]
    (folder / "dataset.json").write_bytes(index(header, shards=shards))
    return folder / name


def test_round_trip(tmp_path: Path) -> None:
    write(tmp_path)
    shards = open_shards(tmp_path, "train")
    assert shards.header == HEADER
    assert shards.frames == sum(LENGTHS)
    assert [stored.id for stored in shards.episodes] == ["e70", "e5"]
    for stored, one, latents in zip(shards.episodes, EPISODES, LATENTS, strict=True):
        rows = {"latents": latents, "actions": one.actions, "poses": one.poses, "frames": all_frames(one)}
        for name, expected in rows.items():
            found = shards.read(stored, name)
            assert found is not None
            assert found.dtype == expected.dtype
            np.testing.assert_array_equal(found, expected)
            np.testing.assert_array_equal(shards.read(stored, name, 1, 4), expected[1:4])
        np.testing.assert_array_equal(shards.layout(stored), one.layout)


def test_poses_frames_and_layouts_are_optional(tmp_path: Path) -> None:
    bare = [replace(one, poses=None, pose_names=(), layout=None) for one in EPISODES]
    write(tmp_path, replace(HEADER, pose_names=()), episodes=bare, keep_frames=False)
    shards = open_shards(tmp_path, "train")
    assert shards.header.pose_names == ()
    for stored in shards.episodes:
        assert [shards.read(stored, name) for name in ("poses", "frames")] == [None, None]
        assert shards.layout(stored) is None


def test_layouts_of_several_sizes_are_left_out_rather_than_mixed_up(tmp_path: Path) -> None:
    write(tmp_path, episodes=[EPISODES[0], replace(EPISODES[1], layout=None)])
    shards = open_shards(tmp_path, "train")
    assert [shards.layout(stored) for stored in shards.episodes] == [None, None]


@pytest.mark.parametrize(("start", "stop"), [(-1, 3), (0, 71), (5, 4)])
def test_rows_of_a_neighbour_are_never_read(tmp_path: Path, start: int, stop: int) -> None:
    write(tmp_path)
    shards = open_shards(tmp_path, "train")
    with pytest.raises(ValueError, match="which has 70"):
        shards.read(shards.episodes[0], "latents", start, stop)


def test_statistics_and_what_was_skipped_are_in_the_shard(tmp_path: Path) -> None:
    with h5py.File(write(tmp_path)) as file:
        every = np.concatenate(LATENTS).astype(np.float64)
        np.testing.assert_allclose(file.attrs["latent_mean"], every.mean(axis=(0, 2, 3)), rtol=1e-6)
        np.testing.assert_allclose(file.attrs["latent_std"], every.std(axis=(0, 2, 3)), rtol=1e-6)
        assert json.loads(file.attrs["skipped"]) == [{"id": "bad", "reason": "because"}]


def test_the_same_episodes_are_the_same_bytes(tmp_path: Path) -> None:
    assert write(tmp_path / "a").read_bytes() == write(tmp_path / "b").read_bytes()


def damaged_after(parts: int) -> FrameParts:
    """The frames of the first episode, of which only `parts` can be read."""

    def read() -> Iterator[NDArray[np.uint8]]:
        yield all_frames(EPISODES[0])[: parts * PART_FRAMES]
        raise DamagedRecording("e70: the disk is scratched")

    return FrameParts(read, LENGTHS[0])


Encode = Callable[[NDArray[np.uint8]], NDArray[np.float16]]
MISFITS: dict[str, tuple[Episode, Encode]] = {
    "action names": (replace(EPISODES[0], action_names=("a", "b")), encode),
    "no poses": (replace(EPISODES[0], poses=None, pose_names=()), encode),
    "frame size": (replace(EPISODES[0], frame_size=(8, 9)), encode),
    "latent channels": (EPISODES[0], lambda frames: encode(frames)[:, :1]),
    "fewer latents than frames": (EPISODES[0], lambda frames: encode(frames)[:-1]),
    "damaged at once": (replace(EPISODES[0], frames=damaged_after(0)), encode),
    "damaged in the middle": (replace(EPISODES[0], frames=damaged_after(2)), encode),
}


@pytest.mark.parametrize(("misfit", "encode_misfit"), MISFITS.values(), ids=MISFITS.keys())
@pytest.mark.parametrize("keep_frames", [True, False])
def test_episodes_that_fail_leave_no_byte(
    tmp_path: Path, misfit: Episode, encode_misfit: Encode, keep_frames: bool
) -> None:
    def write_with(path: Path, fails: bool) -> bytes:
        writer = ShardWriter(path, HEADER, "train", "plan", keep_frames)
        writer.add(EPISODES[1], encode)
        if fails:
            with pytest.raises((ValueError, DamagedRecording), match="e70"):
                writer.add(misfit, encode_misfit)
        writer.add(EPISODES[0], encode)
        writer.close()
        return path.read_bytes()

    assert write_with(tmp_path / "a.h5", fails=True) == write_with(tmp_path / "b.h5", fails=False)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.h5", "b.h5"]


def test_a_long_episode_waits_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lssvwm_datasets.shard_writer.HELD_BYTES", 1000)
    assert write(tmp_path / "a").read_bytes() == write(tmp_path / "b").read_bytes()


Damage = Callable[[Path], object]


def edited(edit: Callable[[h5py.File], object]) -> Damage:
    def damage(shard: Path) -> None:
        with h5py.File(shard, "a") as file:
            edit(file)

    return damage


def attribute(name: str, value: object) -> Damage:
    return edited(lambda file: file.attrs.__setitem__(name, value))


def without(name: str) -> Damage:
    return edited(lambda file: file.__delitem__(name))


def shortened(name: str) -> Damage:
    def edit(file: h5py.File) -> None:
        rows = file[name][:-1]
        del file[name]
        file[name] = rows

    return edited(edit)


DAMAGE: dict[str, tuple[Damage, str]] = {
    "another version": (attribute("format_version", 99), "not a lssvwm-shard of version 2"),
    "another format": (attribute("format", "robomimic"), "not a lssvwm-shard"),
    "another alignment": (attribute("action_alignment", "action[t] taken at frame[t]"), "as 'action.t. taken at"),
    "no alignment": (edited(lambda file: file.attrs.__delitem__("action_alignment")), "aligned as None"),
    "no autoencoder": (edited(lambda file: file.attrs.__delitem__("autoencoder")), "damaged shard"),
    "no latents": (without("latents"), "damaged shard"),
    "no table": (without("episode_start"), "damaged shard"),
    "short latents": (shortened("latents"), "damaged shard"),
    "short actions": (shortened("actions"), "damaged shard"),
    "short poses": (shortened("poses"), "damaged shard"),
    "an id too few": (shortened("episode_id"), "damaged shard"),
    "truncated": (lambda shard: shard.write_bytes(shard.read_bytes()[:3000]), "damaged or not an HDF5 file"),
    "last byte lost": (lambda shard: shard.write_bytes(shard.read_bytes()[:-1]), "damaged or not an HDF5 file"),
    "garbage": (lambda shard: shard.write_bytes(b"garbage"), "damaged or not an HDF5 file"),
    "missing": (lambda shard: shard.unlink(), "no such shard"),
}


@pytest.mark.parametrize(("damage", "message"), DAMAGE.values(), ids=DAMAGE.keys())
def test_damaged_shards_are_named(tmp_path: Path, damage: Damage, message: str) -> None:
    shard = write(tmp_path)
    damage(shard)
    with pytest.raises(LssvwmError, match=message) as raised:
        open_shards(tmp_path, "train")
    assert str(shard) in str(raised.value)


def test_a_shard_that_the_index_does_not_describe_is_named(tmp_path: Path) -> None:
    write(tmp_path / "other", episodes=EPISODES[:1]).rename(write(tmp_path / "here"))
    with pytest.raises(LssvwmError, match=r"00001\.h5: holds 1 episodes, dataset\.json says 2"):
        open_shards(tmp_path / "here", "train")


def test_shards_of_several_autoencoders_are_refused(tmp_path: Path) -> None:
    write(tmp_path)
    write(tmp_path, replace(HEADER, autoencoder_sha256="def"), "train-00001-of-00002.h5")
    with pytest.raises(LssvwmError, match="different datasets or autoencoders"):
        open_shards(tmp_path, "train")


INDEXES: dict[str, tuple[bytes | None, str]] = {
    "missing": (None, "lssvwm prepare maze --out"),
    "cut off": (b"{", "not readable as JSON"),
    "not text": (b"\xff", "not UTF-8 text"),
    "nested too deep": (b"[" * 200_000, "nested too deep"),
    "a list": (b"[]", "not an index"),
    "empty": (b"{}", "not an index"),
    "another version": (index(format_version=99), "not an index of lssvwm-shard version 2"),
    "no shards": (index(), r"dataset\.json"),
    "half a shard": (index(shards=[{"file": SHARD}]), r"dataset\.json"),
    "a number for a name": (index(shards=[{"file": 1, "split": "train", "episodes": 1}]), r"shards\[0\]\.file"),
    "episodes below none": (index(shards=[{"file": SHARD, "split": "train", "episodes": -1}]), "-1 episodes"),
    "one shard twice": (index(shards=2 * [{"file": SHARD, "split": "train", "episodes": 1}]), "named twice"),
}


@pytest.mark.parametrize(("content", "message"), INDEXES.values(), ids=INDEXES.keys())
def test_damaged_indexes_are_named(tmp_path: Path, content: bytes | None, message: str) -> None:
    if content is not None:
        (tmp_path / "dataset.json").write_bytes(content)
    with pytest.raises(LssvwmError, match=message) as raised:
        open_shards(tmp_path, "train")
    assert str(tmp_path) in str(raised.value)


@pytest.mark.parametrize(
    "name",
    [
        "../outside.h5",
        "/etc/outside.h5",
        "below/outside.h5",
        "..\\outside.h5",
        "C:outside.h5",
        "..",
        "",
        ".hidden.h5",
        "notes.txt",
        "a\x1b[2Jb.h5",
        "a\0.h5",
    ],
)
def test_an_index_names_bare_files_alone(tmp_path: Path, name: str) -> None:
    (tmp_path / "dataset.json").write_bytes(index(shards=[{"file": name, "split": "train", "episodes": 1}]))
    with pytest.raises(LssvwmError, match=r"dataset\.json: .*bare name") as raised:
        read_index(tmp_path)
    assert str(raised.value).isprintable()


def test_an_empty_split_is_told(tmp_path: Path) -> None:
    write(tmp_path)
    assert [entry.split for entry in read_index(tmp_path).shards] == ["train"]
    with pytest.raises(LssvwmError, match="no episodes in the validation split; it has train"):
        open_shards(tmp_path, "validation")


@pytest.mark.parametrize("consequence", [None, OSError("filter returned failure during read")])
def test_a_full_disk_is_told_rather_than_what_came_of_it(tmp_path: Path, consequence: Exception | None) -> None:
    full = OSError(errno.ENOSPC, "No space left on device")

    def write_until_full() -> None:
        with ShardWriter(tmp_path / SHARD, HEADER, "train", "plan", keep_frames=True) as writer:
            writer.add(EPISODES[0], encode)
            writer.disk.error = full
            if consequence is not None:
                raise consequence

    with pytest.raises(OSError, match="No space left") as raised:
        write_until_full()
    assert raised.value is full


def test_kinds_of_poses_are_kept_and_old_shards_have_those_of_their_names(tmp_path: Path) -> None:
    kinds = ("y", "x")
    header, episodes = replace(HEADER, pose_kinds=kinds), [replace(one, pose_kinds=kinds) for one in EPISODES]
    write(tmp_path, header, episodes=episodes)
    assert open_shards(tmp_path, "train").header == header
    with h5py.File(next(tmp_path.glob("*.h5")), "r+") as file:
        del file.attrs["pose_kinds"]
    old_index = json.loads((tmp_path / "dataset.json").read_text())
    del old_index["pose_kinds"]
    (tmp_path / "dataset.json").write_text(json.dumps(old_index))
    old = open_shards(tmp_path, "train").header
    assert old == HEADER
    assert kinds_of(old.pose_names, old.pose_kinds) == ("x", "y")
