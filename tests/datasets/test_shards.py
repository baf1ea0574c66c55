"""Shards: what goes in comes out; what is damaged or foreign is refused in words."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest

from lssvwm_datasets.episode import Episode
from lssvwm_datasets.errors import LssvwmError
from lssvwm_datasets.files import write_json
from lssvwm_datasets.shards import FORMAT, FORMAT_VERSION, ShardHeader, ShardWriter, open_shards, read_index

HEADER = ShardHeader("maze", 4.0, (8, 8), ("noop", "go"), ("x", "y"), "small", "abc", (2, 4, 4))
LENGTHS = (70, 5)


def episode(id: str, length: int) -> Episode:
    rng = np.random.default_rng(length)
    return Episode(
        id=id,
        frames=rng.integers(0, 256, (length, 8, 8, 3), dtype=np.uint8),
        actions=rng.random((length, 2), dtype=np.float32),
        action_names=HEADER.action_names,
        fps=4.0,
        poses=rng.random((length, 2), dtype=np.float32),
        pose_names=HEADER.pose_names,
        layout=rng.integers(0, 2, (9, 9), dtype=np.uint8),
    )


EPISODES = [episode(f"e{length}", length) for length in LENGTHS]
LATENTS = [np.random.default_rng(length).normal(size=(length, 2, 4, 4)).astype(np.float16) for length in LENGTHS]


def write(folder: Path, header: ShardHeader = HEADER, name: str = "train-00000-of-00001.h5") -> Path:
    folder.mkdir(exist_ok=True)
    writer = ShardWriter(folder / name, header, "train", "plan", keep_frames=True)
    for one, latents in zip(EPISODES, LATENTS, strict=True):
        writer.add(one, latents)
    writer.skip("bad", "because")
    writer.close()
    shards = [{"file": path.name, "split": "train", "episodes": 2} for path in sorted(folder.glob("*.h5"))]
    write_json(folder / "dataset.json", {"format": FORMAT, "format_version": FORMAT_VERSION, "shards": shards})
    return folder / name


def test_round_trip(tmp_path: Path) -> None:
    write(tmp_path)
    shards = open_shards(tmp_path, "train")
    assert shards.header == HEADER
    assert shards.frames == sum(LENGTHS)
    assert [stored.id for stored in shards.episodes] == ["e70", "e5"]
    for stored, one, latents in zip(shards.episodes, EPISODES, LATENTS, strict=True):
        for name, expected in (("latents", latents), ("actions", one.actions), ("poses", one.poses)):
            np.testing.assert_array_equal(shards.read(stored, name), expected)
        np.testing.assert_array_equal(shards.read(stored, "frames", 1, 4), one.frames[1:4])
        np.testing.assert_array_equal(shards.layout(stored), one.layout)


def test_statistics_and_what_was_skipped_are_in_the_shard(tmp_path: Path) -> None:
    with h5py.File(write(tmp_path)) as file:
        every = np.concatenate(LATENTS).astype(np.float64)
        np.testing.assert_allclose(file.attrs["latent_mean"], every.mean(axis=(0, 2, 3)), atol=1e-6)
        np.testing.assert_allclose(file.attrs["latent_std"], every.std(axis=(0, 2, 3)), rtol=1e-6)
        assert json.loads(file.attrs["skipped"]) == [{"id": "bad", "reason": "because"}]


def test_the_same_episodes_are_the_same_bytes(tmp_path: Path) -> None:
    assert write(tmp_path / "a").read_bytes() == write(tmp_path / "b").read_bytes()


def test_episodes_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    writer = ShardWriter(tmp_path / "a.h5", HEADER, "train", "plan", keep_frames=False)
    with pytest.raises(ValueError, match="e5"):
        writer.add(replace(EPISODES[1], action_names=("a", "b")), LATENTS[1])
    with pytest.raises(ValueError, match="e5"):
        writer.add(EPISODES[1], LATENTS[1][:, :1])


def attribute(name: str, value: object) -> Callable[[Path], None]:
    def change(shard: Path) -> None:
        with h5py.File(shard, "a") as file:
            file.attrs[name] = value

    return change


def without(name: str) -> Callable[[Path], None]:
    def change(shard: Path) -> None:
        with h5py.File(shard, "a") as file:
            del file[name]

    return change


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (attribute("format_version", 99), "not a lssvwm-shard of version 1"),
        (attribute("action_alignment", "action[t] taken at frame[t]"), "aligned as 'action.t. taken at"),
        (without("latents"), "damaged shard"),
        (without("episode_start"), "damaged shard"),
        (lambda shard: shard.write_bytes(shard.read_bytes()[:3000]), "damaged or not an HDF5 file"),
        (lambda shard: shard.write_bytes(b"garbage"), "damaged or not an HDF5 file"),
        (lambda shard: shard.unlink(), "no such shard"),
        (lambda shard: write_one_episode(shard), "holds 1 episodes, dataset.json says 2"),
    ],
)
def test_damaged_shards_are_named(tmp_path: Path, damage: Callable[[Path], None], message: str) -> None:
    shard = write(tmp_path)
    damage(shard)
    with pytest.raises(LssvwmError, match=message) as raised:
        open_shards(tmp_path, "train")
    assert str(shard) in str(raised.value)


def write_one_episode(shard: Path) -> None:
    writer = ShardWriter(shard, HEADER, "train", "plan", keep_frames=False)
    writer.add(EPISODES[0], LATENTS[0])
    writer.close()


def test_shards_of_several_autoencoders_are_refused(tmp_path: Path) -> None:
    write(tmp_path)
    write(tmp_path, replace(HEADER, autoencoder_sha256="def"), "train-00001-of-00002.h5")
    with pytest.raises(LssvwmError, match="different datasets or autoencoders"):
        open_shards(tmp_path, "train")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "lssvwm prepare maze --out"),
        ("{", "not readable as JSON"),
        ("{}", "not an index"),
        ("[]", "not an index"),
    ],
)
def test_damaged_indexes_are_named(tmp_path: Path, content: str | None, message: str) -> None:
    if content is not None:
        (tmp_path / "dataset.json").write_text(content)
    with pytest.raises(LssvwmError, match=message):
        read_index(tmp_path)


def test_an_empty_split_is_told(tmp_path: Path) -> None:
    write(tmp_path)
    with pytest.raises(LssvwmError, match="no episodes in the validation split; it has train"):
        open_shards(tmp_path, "validation")
