"""TECO and WorldMem: lengths that differ, dummies, bins, and what is refused."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lssvwm_datasets.errors import DamagedRecording
from lssvwm_datasets.teco import read_dmlab, read_minecraft
from lssvwm_datasets.worldmem import ACTION_NAMES, ACTION_UNITS
from lssvwm_datasets.worldmem import read as read_worldmem
from tests.datasets.layouts import (
    GREY,
    LENGTH,
    WORLDMEM_COLUMNS,
    teco_dmlab,
    teco_minecraft,
    worldmem,
    worldmem_choices,
    write_video,
)


@pytest.mark.parametrize("frames", [LENGTH - 5, LENGTH - 1, LENGTH, LENGTH + 1])
def test_teco_minecraft_reads_what_both_have(tmp_path: Path, frames: int) -> None:
    expected = teco_minecraft(tmp_path, frames=frames)
    (episode,) = read_minecraft(tmp_path / "000123.mp4", "a")
    levels = np.concatenate([part.mean(axis=(1, 2, 3)) for part in episode.frames])
    np.testing.assert_allclose(levels, expected.levels, atol=GREY / 2 - 0.5)
    np.testing.assert_array_equal(episode.actions, expected.actions)
    assert episode.frame_size == (128, 128)
    assert episode.action_names == ("noop", "forward", "left", "right")
    assert len(episode.notes) == (frames == LENGTH - 5)


@pytest.mark.parametrize("lengths", [(300, 300), (301, 301), (301, 300)])
def test_teco_dmlab_of_genuine_lengths(tmp_path: Path, lengths: tuple[int, int]) -> None:
    frames, actions = lengths
    video = np.zeros((frames, 64, 64, 3), np.uint8)
    teco_dmlab(tmp_path, change={"video": video, "actions": np.arange(actions) % 3})
    (episode,) = read_dmlab(tmp_path / "208.npz", "a")
    assert (episode.length, episode.action_names) == (actions, ("action_0", "action_1", "action_2"))
    np.testing.assert_array_equal(episode.actions[1:].argmax(axis=1), np.arange(1, actions) % 3)


TECO_DAMAGE: dict[str, tuple[Any, str]] = {
    "id 4": (np.full(LENGTH, 4), r"actions\[0\] is 4, expected whole numbers 0\.\.3"),
    "id -1": (np.full(LENGTH, -1), r"actions\[0\] is -1"),
    "a fraction": (np.full(LENGTH, 0.5), r"actions\[0\] is 0\.5"),
    "not a number": (np.full(LENGTH, np.nan), r"actions\[0\] is nan"),
    "words": (np.full(LENGTH, "left"), "actions is <U4"),
    "one number": (np.array(1), "actions is int64 of shape"),
    "none": (np.zeros(0, int), "actions is int64 of shape"),
    "a table": (np.zeros((LENGTH, 4), int), r"of shape \(24, 4\)"),
}


@pytest.mark.parametrize(("actions", "message"), TECO_DAMAGE.values(), ids=TECO_DAMAGE.keys())
def test_teco_actions_that_are_none_are_told(tmp_path: Path, actions: Any, message: str) -> None:
    teco_minecraft(tmp_path, actions=actions)
    with pytest.raises(DamagedRecording, match=rf"000123\.npz: .*{message}"):
        list(read_minecraft(tmp_path / "000123.mp4", "a"))


def test_missing_files_and_keys_are_told(tmp_path: Path) -> None:
    teco_minecraft(tmp_path)
    np.savez(tmp_path / "000123.npz", action=np.zeros(LENGTH))
    with pytest.raises(DamagedRecording, match="no actions: found keys"):
        list(read_minecraft(tmp_path / "000123.mp4", "a"))
    (tmp_path / "000123.npz").unlink()
    with pytest.raises(DamagedRecording, match=r"000123\.npz: no such file"):
        list(read_minecraft(tmp_path / "000123.mp4", "a"))
    for key, message in (("video", "no video: found"), ("actions", "no actions: found")):
        teco_dmlab(tmp_path, change={key: None})
        with pytest.raises(DamagedRecording, match=message):
            list(read_dmlab(tmp_path / "208.npz", "a"))
    teco_dmlab(tmp_path, change={"video": np.zeros((LENGTH, 64, 64, 3))})
    with pytest.raises(DamagedRecording, match="video is float64"):
        list(read_dmlab(tmp_path / "208.npz", "a"))


def test_worldmem_columns_and_poses(tmp_path: Path) -> None:
    choices = worldmem_choices()
    choices[3] = (0, 2, 3, 11, 13, 3, 7, 9)
    expected = worldmem(tmp_path, change={"actions": choices})
    (episode,) = read_worldmem(tmp_path / "000007.mp4", "a")
    assert (episode.action_names, episode.fps) == (WORLDMEM_COLUMNS, 10)
    assert [name for name, unit in zip(ACTION_NAMES, ACTION_UNITS, strict=True) if unit == "degrees"] == [
        "camera_pitch",
        "camera_yaw",
    ]
    found = dict(zip(episode.action_names, episode.actions[3].tolist(), strict=True))
    assert {name: value for name, value in found.items() if value} == {
        "right": 1,
        "sprint": 1,
        "attack": 1,
        "camera_pitch": -15,
        "camera_yaw": 15,
    }
    np.testing.assert_array_equal(np.delete(episode.actions, 3, axis=0), np.delete(expected.actions, 3, axis=0))
    x, height, z, pitch, yaw = np.arange(5 * LENGTH, dtype=float).reshape(LENGTH, 5).T
    height[0] = height[1]  # the first height is wrong in the data
    ahead = -np.radians(yaw + 90)
    poses = [x - x[0], z[0] - z, height - height[0], np.cos(ahead), np.sin(ahead), -np.radians(pitch)]
    assert episode.pose_names == ("x", "y", "z", "cos", "sin", "pitch")
    np.testing.assert_allclose(episode.poses, np.stack(poses, axis=1), atol=1e-5)


def test_worldmem_poses_are_seen_from_above(tmp_path: Path) -> None:
    """Minecraft's yaw: 0 looks along z, 90 against x; pitch 90 looks down. Far from the origin blocks stay blocks."""
    poses = np.tile([1e6, 64.0, 2e6, 0, 0], (LENGTH, 1))
    poses[1] = [1e6, 64, 2e6 + 1, 0, 0]  # a step along z
    poses[2] = [1e6 - 1, 65, 2e6 + 1, 90, 90]  # a step against x, one up
    poses[3], poses[4] = [1e6, 64, 2e6, 0, 359], [1e6, 64, 2e6, 0, 1]
    worldmem(tmp_path, change={"poses": poses})
    (episode,) = read_worldmem(tmp_path / "000007.mp4", "a")
    expected = [[0, 0, 0, 0, -1, 0], [0, -1, 0, 0, -1, 0], [-1, -1, 1, -1, 0, -np.pi / 2]]
    np.testing.assert_allclose(episode.poses[:3], expected, atol=1e-6)
    for moved, heading in zip(np.diff(expected, axis=0)[:, :2], episode.poses[1:3, 3:5], strict=True):
        np.testing.assert_allclose(moved, heading, atol=1e-6, err_msg="walking ahead is walking along the heading")
    assert np.linalg.norm(episode.poses[3] - episode.poses[4]) < 0.04


def test_worldmem_poses_a_row_too_few_are_filled_at_the_front(tmp_path: Path) -> None:
    poses = np.arange(5 * (LENGTH - 1), dtype=float).reshape(-1, 5)
    worldmem(tmp_path, change={"poses": poses})
    (episode,) = read_worldmem(tmp_path / "000007.mp4", "a")
    np.testing.assert_allclose(episode.poses[:, 0], 5 * np.array([0, *range(LENGTH - 1)]))


def with_choice(row: int, column: int, value: float) -> dict[str, Any]:
    choices = worldmem_choices().astype(float)
    choices[row, column] = value
    return {"actions": choices}


WORLDMEM_DAMAGE: dict[str, tuple[dict[str, Any], str]] = {
    "no poses": ({"poses": None}, "no poses: found keys"),
    "no actions": ({"actions": None}, "no actions: found keys"),
    "seven columns": ({"actions": np.zeros((LENGTH, 7), int)}, r"actions is int64 of shape \(24, 7\)"),
    "a choice too high": (with_choice(5, 0, 3), r"actions\[5, 0\] is 3, expected 0\.\.2"),
    "a bin too high": (with_choice(5, 4, 25), r"actions\[5, 4\] is 25, expected 0\.\.24"),
    "a negative bin": (with_choice(5, 4, -1), r"actions\[5, 4\] is -1"),
    "half a bin": (with_choice(5, 4, 11.5), r"actions\[5, 4\] is 11\.5"),
    "poses of words": ({"poses": np.full((LENGTH, 5), "x")}, "poses are <U1"),
    "four of a pose": ({"poses": np.zeros((LENGTH, 4))}, r"poses are float64 of shape \(24, 4\)"),
    "too few poses": ({"poses": np.zeros((LENGTH - 2, 5))}, "22 poses for 24 actions"),
    "not a number": ({"poses": np.full((LENGTH, 5), np.nan)}, "finite"),
    "too large": ({"poses": np.full((LENGTH, 5), 1e300)}, "finite"),
}


@pytest.mark.parametrize(("change", "message"), WORLDMEM_DAMAGE.values(), ids=WORLDMEM_DAMAGE.keys())
def test_worldmem_damage_is_told(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    worldmem(tmp_path, change=change)
    with pytest.raises(DamagedRecording, match=rf"000007\.npz: .*{message}"):
        list(read_worldmem(tmp_path / "000007.mp4", "a"))


def test_worldmem_reads_what_video_and_actions_both_have(tmp_path: Path) -> None:
    worldmem(tmp_path)
    write_video(tmp_path / "000007.mp4", range(LENGTH - 4), (360, 640))
    (episode,) = read_worldmem(tmp_path / "000007.mp4", "a")
    assert episode.length == LENGTH - 4
    assert episode.notes == ("20 frames, 24 actions; the first 20 are read",)
