"""A set of shards and its index: a bounded number of open files, and tables that tell something else."""

import json
import os
import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lssvwm_datasets.errors import LssvwmError
from lssvwm_datasets.shard_file import OpenShards
from lssvwm_datasets.shards import open_shards
from tests.datasets.test_shards import EPISODES, LENGTHS, SHARD, index, write

FRAMES = sum(LENGTHS)


def many(folder: Path, count: int) -> None:
    """`count` copies of a shard, with an index that tells their episodes, as `write_index` does."""
    content = write(folder).read_bytes()
    names = [f"train-{number:05d}-of-{count:05d}.h5" for number in range(count)]
    (folder / SHARD).unlink()
    for name in names:
        (folder / name).write_bytes(content)
    entries = [{"file": name, "split": "train", "episodes": 2, "frames": FRAMES} for name in names]
    tables = {name: {"ids": ["e70", "e5"], "lengths": list(LENGTHS)} for name in names}
    (folder / "dataset.json").write_bytes(index(shards=entries, tables=tables))


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="counts open files by /proc")
def test_few_shards_are_open_at_once_and_none_before_it_is_read(tmp_path: Path) -> None:
    many(tmp_path, 100)
    before = open_files()
    shards = replace(open_shards(tmp_path, "train"), files=OpenShards(most=7))
    assert open_files() == before
    for _ in range(2):
        for episode in shards.episodes:
            np.testing.assert_array_equal(shards.read(episode, "actions"), EPISODES[episode.number].actions)
        assert open_files() <= before + 7
    shards.files.close()
    assert open_files() == before


def test_an_index_without_episodes_opens_every_shard_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    many(tmp_path, 3)
    path = tmp_path / "dataset.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps(content | {"tables": {}}))
    monkeypatch.setattr("lssvwm_datasets.shards.MANY", 2)
    assert len(open_shards(tmp_path, "train").episodes) == 6
    [said] = caplog.messages
    assert "does not list the episodes of 3 shards" in said
    assert said.endswith(f"lssvwm index {tmp_path}")


def test_a_process_opens_its_own(tmp_path: Path) -> None:
    many(tmp_path, 3)
    shards = open_shards(tmp_path, "train")
    shards.read(shards.episodes[0], "actions")
    copy = pickle.loads(pickle.dumps(shards))
    assert copy == shards
    assert copy.files is not shards.files
    np.testing.assert_array_equal(copy.read(copy.episodes[0], "actions"), EPISODES[0].actions)
    own = shards.files.get(shards.episodes[0].shard)
    child = os.fork()
    if child == 0:
        os._exit(int(shards.files.get(shards.episodes[0].shard) is own))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0, "a process that was forked opens its own"


DISAGREES: dict[str, tuple[dict[str, object], str]] = {
    "another id": ({"ids": ["e70", "other"], "lengths": [70, 5]}, "does not hold episode other"),
    "other lengths": ({"ids": ["e70", "e5"], "lengths": [69, 6]}, "does not hold episode e5"),
}


@pytest.mark.parametrize(("told", "message"), DISAGREES.values(), ids=DISAGREES.keys())
def test_an_index_that_tells_other_episodes_is_found_out(tmp_path: Path, told: object, message: str) -> None:
    write(tmp_path)
    entry = {"file": SHARD, "split": "train", "episodes": 2, "frames": FRAMES}
    (tmp_path / "dataset.json").write_bytes(index(shards=[entry], tables={SHARD: told}))
    shards = open_shards(tmp_path, "train")
    with pytest.raises(LssvwmError, match=message):
        shards.read(shards.episodes[1], "latents")


def test_a_table_that_is_not_of_its_entry_is_not_believed(tmp_path: Path) -> None:
    write(tmp_path)
    entry = {"file": SHARD, "split": "train", "episodes": 2, "frames": FRAMES}
    for table in ({"ids": ["e70"], "lengths": [75]}, {"ids": ["e70", "e5"], "lengths": [70, 6]}):
        (tmp_path / "dataset.json").write_bytes(index(shards=[entry], tables={SHARD: table, "gone.h5": table}))
        shards = open_shards(tmp_path, "train")
        assert [(episode.id, episode.length) for episode in shards.episodes] == [("e70", 70), ("e5", 5)]


def test_shards_of_another_data_set_or_split_are_found_out_when_they_are_read(tmp_path: Path) -> None:
    many(tmp_path, 2)
    content = json.loads((tmp_path / "dataset.json").read_text())
    for change, message in (
        ({"fps": 5.0}, "different datasets"),
        ({"autoencoder_sha256": "def"}, "different datasets"),
    ):
        (tmp_path / "dataset.json").write_text(json.dumps({**content, **change}))
        shards = open_shards(tmp_path, "train")
        with pytest.raises(LssvwmError, match=message):
            shards.read(shards.episodes[0], "actions")
    content["shards"][0]["split"] = "validation"
    (tmp_path / "dataset.json").write_text(json.dumps(content))
    shards = open_shards(tmp_path, "validation")
    with pytest.raises(LssvwmError, match=r"of the train split, dataset\.json says validation"):
        shards.read(shards.episodes[0], "actions")
