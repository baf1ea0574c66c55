"""What is exported and prepared again is the same episode, to the pixel."""

import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from lssvwm_cli.app import app
from lssvwm_core.export import EXPORTS, export_episodes
from lssvwm_core.export import lerobot as lerobot_export
from lssvwm_core.export.episodes import Exported, recorded
from lssvwm_core.export.webdataset import ARCHIVE_EPISODES
from lssvwm_datasets.episode import Episode
from lssvwm_datasets.errors import LssvwmError
from lssvwm_datasets.frames import FrameParts
from lssvwm_datasets.sources import find_recordings

SAFELY: dict[str, Any] = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}  # Python 3.11.4 has it
LENGTH, SIZE = 12, (23, 40)  # an odd height: videos with fewer colours than pixels could not have it


def episode(id: str, seed: int) -> Episode:
    """Noise, which no codec that loses anything gives back, under numbers that take all the digits of a float32."""
    rng = np.random.default_rng(seed)
    actions = np.zeros((LENGTH, 3), np.float32)
    actions[1:] = np.concatenate([np.eye(2)[rng.integers(0, 2, LENGTH - 1)], rng.normal(size=(LENGTH - 1, 1))], axis=1)
    return Episode(
        id=id,
        frames=FrameParts.of(rng.integers(0, 256, (LENGTH, *SIZE, 3), np.uint8)),
        frame_size=SIZE,
        actions=actions,
        action_names=("noop", "left, slowly", "camera_yaw"),
        action_units=("one-hot", "one-hot", "degrees"),
        source_alignment="",
        fps=12.5,
        poses=rng.normal(size=(LENGTH, 4)).astype(np.float32),
        pose_names=("x", "y", "bearing", "pitch"),
        pose_kinds=("x", "y", "other", "pitch"),
        layout=rng.integers(0, 2, (3, 3), np.uint8),
    )


WRITTEN = [
    Exported(episode("train/walk.1", 0), "train"),
    Exported(episode("a walk", 1), "train"),
    Exported(episode("eval/../../walk#2", 2), "validation"),  # ids may come from anywhere
]
PATHS = ["train/walk.1", "train/a walk", "eval/walk#2"]


@pytest.mark.parametrize("name", EXPORTS)
def test_what_is_exported_and_prepared_again_is_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    if name == "lerobot":
        pytest.importorskip("pyarrow", reason="the extra `parquet` is not installed")
    monkeypatch.setattr(lerobot_export, "FILE_FRAMES", LENGTH + 1)  # two episodes in the first file
    out = tmp_path / "out"
    assert len(list(export_episodes(WRITTEN, EXPORTS[name], out))) == 3
    paths = PATHS
    if name == "webdataset":
        paths = [path.replace(".", "_") for path in PATHS]
        for archive in sorted(out.glob("*.tar")):
            with tarfile.open(archive) as tar:
                tar.extractall(tmp_path / "unpacked", **SAFELY)
        out = tmp_path / "unpacked"
    found = {recording.id: recording for recording in find_recordings(out)}
    assert sorted(found) == sorted(paths)
    for path, written in zip(paths, WRITTEN, strict=True):
        (again,), before = found[path].episodes(), written.episode
        assert found[path].split == written.split
        for part in ("frame_size", "action_names", "action_units", "fps", "pose_names", "pose_kinds", "notes"):
            assert getattr(again, part) == getattr(before, part), part
        assert again.poses is not None
        assert before.poses is not None
        assert again.layout is not None
        np.testing.assert_array_equal(again.actions, before.actions)
        np.testing.assert_array_equal(again.poses, before.poses)
        np.testing.assert_array_equal(again.layout, before.layout)
        for one, other in zip(again.frames, before.frames, strict=True):
            np.testing.assert_array_equal(one, other)


def test_nothing_is_left_of_an_export_that_fails(tmp_path: Path) -> None:
    other = episode("b", 3)
    different = Episode(**{**vars(other), "fps": 10.0})
    with pytest.raises(LssvwmError, match=r"b: fps 10\.0, expected 12\.5 as in the other episodes"):
        list(export_episodes([WRITTEN[0], Exported(different, "train")], EXPORTS["folder"], tmp_path / "out"))
    with pytest.raises(LssvwmError, match="no episode"):
        list(export_episodes([], EXPORTS["webdataset"], tmp_path / "out"))
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "out").mkdir()
    (tmp_path / "out/mine.txt").touch()
    with pytest.raises(LssvwmError, match="is there already"):
        list(export_episodes(WRITTEN, EXPORTS["folder"], tmp_path / "out"))


def test_archives_hold_a_bounded_number_of_episodes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert ARCHIVE_EPISODES > 1
    monkeypatch.setattr("lssvwm_core.export.webdataset.ARCHIVE_EPISODES", 1)
    list(export_episodes(WRITTEN, EXPORTS["webdataset"], tmp_path / "out"))
    archives = ["train-00000.tar", "train-00001.tar", "validation-00000.tar"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == archives


def test_shards_and_rollouts_are_exported(workspace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(workspace)
    options = ["--episodes", "1", "--split", "validation"]
    done = CliRunner().invoke(app, ["export", "data/maze", "--out", str(tmp_path / "shards"), *options])
    assert done.exception is None, done.output
    (again,) = find_recordings(tmp_path / "shards")
    (before,) = (one.episode for one in [next(recorded(workspace / "data/maze", "validation").episodes)])
    (found,) = again.episodes()
    np.testing.assert_array_equal(found.actions, before.actions)
    np.testing.assert_array_equal(np.concatenate(list(found.frames)), np.concatenate(list(before.frames)))
