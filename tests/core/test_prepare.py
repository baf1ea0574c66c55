"""Recordings to shards: alignment kept, kill -9 and continue, damage named."""

import json
import shutil
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from lssvwm_core.model.autoencoder import load_autoencoder
from lssvwm_datasets.shards import open_shards
from lssvwm_datasets.sources import find_recordings, sample_recordings
from tests.conftest import CLI, lssvwm


@pytest.fixture
def folder(workspace: Path, tmp_path: Path) -> Path:
    """A user's folder with the autoencoder and a copy of the sample recordings."""
    shutil.copytree(workspace / "autoencoder", tmp_path / "autoencoder")
    shutil.copytree(sample_recordings(), tmp_path / "recordings/maze")
    return tmp_path


PREPARE = ("prepare", "maze", "--autoencoder", "autoencoder", "--shard-size", "1")


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.is_file()}


def test_shards_hold_what_the_recordings_hold(workspace: Path) -> None:
    recordings = find_recordings(sample_recordings(), "maze")
    autoencoder = load_autoencoder(workspace / "autoencoder")
    for split in ("train", "validation"):
        shards = open_shards(workspace / "data/maze", split)
        originals = [next(recording.episodes()) for recording in recordings if recording.split == split]
        assert [episode.id for episode in shards.episodes] == [episode.id for episode in originals]
        for stored, original in zip(shards.episodes, originals, strict=True):
            np.testing.assert_array_equal(shards.read(stored, "actions"), original.actions)
            np.testing.assert_array_equal(shards.read(stored, "poses"), original.poses)
            np.testing.assert_array_equal(shards.layout(stored), original.layout)
            frames = shards.read(stored, "frames")
            assert (frames is not None) == (split == "validation")
            with torch.inference_mode():
                latents = autoencoder.encode(torch.from_numpy(next(iter(original.frames))[7:9]))
            np.testing.assert_allclose(shards.read(stored, "latents", 7, 9), latents, atol=0.01)


def test_killed_and_continued_writes_the_same_bytes(workspace: Path, folder: Path) -> None:
    process = subprocess.Popen([*CLI, *PREPARE, "--jobs", "1"], cwd=folder, stderr=subprocess.DEVNULL)
    while not list((folder / "data/maze").glob("*.h5")):
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (folder / "data/maze/dataset.json").exists()
    lssvwm(folder, *PREPARE, "--jobs", "2")
    assert contents(folder / "data/maze") == contents(workspace / "data/maze")


def test_killed_while_the_autoencoder_was_copied_goes_on(folder: Path) -> None:
    (folder / "data/maze/autoencoder").mkdir(parents=True)
    shutil.copy(folder / "autoencoder/config.json", folder / "data/maze/autoencoder")
    lssvwm(folder, *PREPARE, "--split", "validation")
    assert (folder / "data/maze/dataset.json").exists()


def test_damaged_recordings_are_named_or_with_strict_refused(folder: Path) -> None:
    damaged = folder / "recordings/maze/train/0500001-500.npz"
    damaged.write_bytes(damaged.read_bytes()[:100_000])
    error = lssvwm(folder, *PREPARE, "--strict", "--out", "strict", fails=True).stderr
    assert "0500001-500.npz" in error
    assert not (folder / "strict/dataset.json").exists()
    done = lssvwm(folder, *PREPARE)
    assert "skipped train/0500001-500" in done.stderr
    index = json.loads((folder / "data/maze/dataset.json").read_text())
    assert [entry["id"] for entry in index["skipped"]] == ["train/0500001-500"]
    assert index["episodes"] == 3
    assert not list((folder / "data/maze").glob(".*"))


def test_shards_of_other_recordings_are_never_mixed(folder: Path) -> None:
    lssvwm(folder, *PREPARE, "--split", "validation")
    (folder / "recordings/maze/eval/1500000-1000.npz").unlink()
    shutil.copy(folder / "recordings/maze/train/0500000-500.npz", folder / "recordings/maze/eval/1500000-1000.npz")
    error = lssvwm(folder, *PREPARE, "--split", "validation", fails=True).stderr
    assert "made from other recordings" in error
    assert "choose another --out" in error


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["prepare", "maze", "nowhere"], "nowhere: no such folder"),
        (["prepare", "mazes"], "'mazes' is neither a format (maze, minerl, vpt, teco, worldmem) nor a folder"),
        (["prepare", "maze", "--autoencoder", "missing"], "missing: no such model"),
        (["prepare", "maze", "--keep-frames", "some"], "expected one of validation, all, none"),
        (["prepare", "maze", "--split", "test"], "expected one of train, validation"),
        (["prepare", "maze", "--jobs", "many"], "expected auto or a number"),
    ],
)
def test_bad_input_is_told(folder: Path, arguments: list[str], message: str) -> None:
    if "--autoencoder" not in arguments:
        arguments = [*arguments, "--autoencoder", "autoencoder"]
    assert message in lssvwm(folder, *arguments, fails=True).stderr
    assert not (folder / "data/maze/dataset.json").exists()
