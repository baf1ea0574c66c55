"""Poses of Minecraft's recordings: as they have them, and reckoned from the actions where they have none."""

from pathlib import Path

import numpy as np
import pytest

from lssvwm_datasets import minerl, teco, vpt
from lssvwm_datasets.errors import DamagedRecording
from lssvwm_datasets.format import ReaderOptions
from lssvwm_datasets.luanti.walk import Walk, take_walk
from lssvwm_datasets.poses import minecraft_poses
from lssvwm_datasets.reckoning import KEYS, KINDS, NAMES, reckoned_poses
from lssvwm_datasets.sources import find_recordings
from tests.datasets import layouts
from tests.datasets.made_terrain import hills

FRAMES = 50
DEGREES_A_PIXEL = 0.15


def columns_of(walk: Walk) -> dict[str, np.ndarray]:
    keys = {key: np.array([float(getattr(action.keys, key)) for action in walk.actions]) for key in KEYS}
    pitch, yaw = np.array([(action.pitch, action.yaw) for action in walk.actions]).T
    return {**keys, "camera_pitch": pitch, "camera_yaw": yaw}


def test_a_walk_on_a_plain_is_reckoned_to_rounding_and_one_over_hills_nearly() -> None:
    """Turns are exact; where blocks stop the agent, or it falls, the reckoning goes on."""
    terrain = hills()
    start = min(terrain.ways, key=lambda cell: (abs(cell[0]) + abs(cell[2]), cell))
    astray = []
    for seed in range(4):
        walk = take_walk(terrain, start, 200, 2, np.random.default_rng(seed))
        true, names = minecraft_poses(walk.poses)
        reckoned = reckoned_poses(columns_of(walk), ticks=2)
        started = np.arctan2(true[0, 4], true[0, 3]) + np.pi / 2  # the reckoning begins looking along z
        headings = np.arctan2(reckoned[:, 3], reckoned[:, 2]) + started
        np.testing.assert_allclose(np.cos(headings), true[:, names.index("cos")], atol=1e-5)
        np.testing.assert_allclose(reckoned[:, 4], true[:, names.index("pitch")], atol=1e-5)
        turned = (reckoned[:, 0] + 1j * reckoned[:, 1]) * np.exp(1j * started)
        there = true[:, 0] + 1j * true[:, 1]
        astray += [abs((turned[t + FRAMES] - turned[t]) - (there[t + FRAMES] - there[t])) for t in (10, 60, 110)]
    assert np.median(astray) < 2.5, astray  # of 20 blocks that are walked


def test_minerls_poses_are_reckoned_and_named_so(tmp_path: Path) -> None:
    layouts.minerl(tmp_path)
    (recording,) = find_recordings(tmp_path)
    (episode,) = recording.episodes()
    assert (episode.pose_names, episode.pose_kinds) == (NAMES, KINDS)
    assert episode.poses is not None
    yaw = episode.actions[:, episode.action_names.index("camera_yaw")].astype(float).cumsum()
    np.testing.assert_allclose(episode.poses[:, 2:4].T, [-np.sin(np.radians(yaw)), -np.cos(np.radians(yaw))], atol=1e-4)
    assert episode.action_names[: len(minerl.BUTTONS) - 1] == minerl.BUTTONS[:-1]


def test_eighteen_turns_of_teco_are_a_full_one_and_forward_goes_on(tmp_path: Path) -> None:
    ids = np.array([0, *[2] * 18, *[1] * (layouts.LENGTH - 19)], np.int32)
    layouts.teco_minecraft(tmp_path, actions=ids)
    (episode,) = teco.read_minecraft(tmp_path / "000123.mp4", "one")
    assert episode.poses is not None
    np.testing.assert_allclose(episode.poses[18, 2:4], episode.poses[0, 2:4], atol=1e-5)
    np.testing.assert_allclose(episode.poses[18, :2], [0, 0], atol=1e-5)
    ahead = (episode.poses[1:, :2] - episode.poses[:-1, :2]) @ episode.poses[0, 2:4]
    assert (ahead[18:] > 0).all()
    left = np.degrees(np.arctan2(episode.poses[1, 3], episode.poses[1, 2]))
    assert left == pytest.approx(-90 + 20, abs=1e-3)


def places(t: int) -> dict[str, float]:
    return {"xpos": 100.0 + t, "ypos": 64.0, "zpos": -5.0 + 2 * t, "pitch": 10.0, "yaw": 90.0}


def test_vpts_recorded_poses_are_read(tmp_path: Path) -> None:
    layouts.vpt(tmp_path, lines=[layouts.tick(t, **places(t)) for t in range(layouts.LENGTH)])
    (episode,) = vpt.read(tmp_path / f"{layouts.VPT_NAME}.mp4", "one")
    t = np.arange(layouts.LENGTH)
    assert episode.pose_names == ("x", "y", "z", "cos", "sin", "pitch")
    west, pitch = [-1, 0], -np.radians(10)
    expected = np.stack([t, -2 * t, 0 * t, *np.tile(west, (len(t), 1)).T, np.full(len(t), pitch)], axis=1)
    np.testing.assert_allclose(episode.poses, expected, atol=1e-5)


@pytest.mark.parametrize("lacking", ["xpos", "yaw"])
def test_where_one_line_lacks_a_pose_all_are_reckoned_and_windows_move_nobody(tmp_path: Path, lacking: str) -> None:
    lines = [layouts.tick(t, **places(t), isGuiOpen=10 <= t < 15) for t in range(layouts.LENGTH)]
    del lines[7][lacking]
    layouts.vpt(tmp_path, lines=lines)
    (episode,) = vpt.read(tmp_path / f"{layouts.VPT_NAME}.mp4", "one")
    assert episode.pose_names == NAMES
    assert episode.poses is not None
    turned = np.degrees(np.unwrap(np.arctan2(episode.poses[:, 3], episode.poses[:, 2])))
    expected = [0 if 10 <= t < 15 else -t * DEGREES_A_PIXEL for t in range(layouts.LENGTH - 1)]
    np.testing.assert_allclose(np.diff(turned), expected, atol=1e-3)


@pytest.mark.parametrize("value", ["here", None, True, 1e12])
def test_a_pose_that_is_no_number_is_damage(tmp_path: Path, value: object) -> None:
    layouts.vpt(tmp_path, lines=[layouts.tick(t, **{**places(t), "ypos": value}) for t in range(layouts.LENGTH)])
    with pytest.raises(DamagedRecording, match="line 1 is not a tick"):
        list(vpt.read(tmp_path / f"{layouts.VPT_NAME}.mp4", "one"))


@pytest.mark.parametrize("offset", [3, -2])
def test_reckoned_poses_are_shifted_with_their_actions(tmp_path: Path, offset: int) -> None:
    layouts.teco_minecraft(tmp_path / "train")
    one, other = (
        next(find_recordings(tmp_path, "teco", ReaderOptions(action_offset=by))[0].episodes()) for by in (0, offset)
    )
    assert one.poses is not None
    assert other.poses is not None
    step = np.diff(one.poses, axis=0), np.diff(other.poses, axis=0)
    if offset > 0:
        np.testing.assert_array_equal(step[1][offset:], step[0][:-offset])
        assert not step[1][:offset].any()
    else:
        np.testing.assert_array_equal(step[1][:offset], step[0][-offset:])
