"""What leads a rollout: recorded, explored, listed; with an environment that is known, and without."""

from dataclasses import replace

import numpy as np
import pytest

from lssvwm_core.controls import Controls, parse_actions, plan_controls
from lssvwm_datasets.errors import LssvwmError
from lssvwm_datasets.luanti.luanti import LUANTI
from lssvwm_datasets.memory_maze.maze import MAZE
from lssvwm_datasets.shards import ShardHeader

HEADER = ShardHeader("maze", 4.0, (64, 64), MAZE.action_names, MAZE.pose_names, "a", "0", (8, 4, 4))


def test_moves_of_several_columns_are_listed_by_name() -> None:
    header = replace(HEADER, dataset="luanti", action_names=LUANTI.action_names, pose_names=LUANTI.pose_names)
    controls = plan_controls("forward*2,turn_right", 4, header, None, None, seed=0)
    rows = [[1, 0, 0, 0, 0, 0, 0, 0, 0]] * 2 + [[0, 0, 0, 0, 0, 0, 0, 0, 15]] + [[1, 0, 0, 0, 0, 0, 0, 0, 0]]
    np.testing.assert_array_equal(controls.actions, rows)
    with pytest.raises(LssvwmError, match=r"'camera_yaw' is not an action; expected .* of: stay, forward, back"):
        plan_controls("camera_yaw", 4, header, None, None, seed=0)


def test_action_lists() -> None:
    assert parse_actions("forward*2, left", MAZE.action_names) == [1, 1, 2]
    assert parse_actions("recorded", MAZE.action_names) is None
    for wrong in ("forward*x", "jump", "forward,,left", "left*0"):
        with pytest.raises(LssvwmError, match="--actions"):
            parse_actions(wrong, MAZE.action_names)


def test_what_is_recorded_goes_on_with_the_explorer_where_the_recording_ends() -> None:
    layout = np.ones((9, 9), np.uint8)
    pose = np.array([4.5, 4.5, 1, 0], np.float32)
    recorded = Controls(np.eye(6, dtype=np.float32)[[1, 1]], np.stack([pose, pose]))
    controls = plan_controls("recorded", 50, HEADER, pose, layout, seed=0, recorded=recorded)
    np.testing.assert_array_equal(controls.actions[:2], recorded.actions)
    assert (controls.actions.sum(axis=1) == 1).all()
    steps = np.linalg.norm(np.diff(controls.poses[:, :2], axis=0), axis=1)
    assert steps.max() < 0.3
    assert steps.sum() > 2


def test_turning_by_hand_turns_the_pose() -> None:
    pose = np.array([4.5, 4.5, 1, 0], np.float32)
    controls = plan_controls("left*5", 5, HEADER, pose, None, seed=0)
    heading = np.degrees(np.arctan2(controls.poses[-1, 3], controls.poses[-1, 2]))
    assert heading == pytest.approx(92, abs=0.1)


def test_without_a_known_environment_actions_are_random_and_poses_unknown() -> None:
    other = replace(HEADER, action_names=("fly", "dive"), pose_names=("x", "y"))
    controls = plan_controls("explore", 200, other, np.zeros(2, np.float32), None, seed=0)
    assert (controls.actions.sum(axis=1) == 1).all()
    assert controls.actions.any(axis=0).all()
    assert np.isnan(controls.poses).all()
    assert controls.poses.shape == (200, 2)
    again = plan_controls("explore", 200, other, np.zeros(2, np.float32), None, seed=0)
    np.testing.assert_array_equal(again.actions, controls.actions)


def test_where_nobody_knows_the_place_the_maze_is_explored_at_random() -> None:
    controls = plan_controls("explore", 30, HEADER, None, np.ones((9, 9), np.uint8), seed=0)
    assert controls.actions.sum() == 30
    assert controls.poses.shape == (30, 0)
