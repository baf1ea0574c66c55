"""The registry of environments: every record is whole, and data find theirs."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from lssvwm_datasets import reckoning, teco, vpt, worldmem
from lssvwm_datasets.environment import Environment
from lssvwm_datasets.environments import (
    ENVIRONMENTS,
    environment_named,
    environment_of,
    listed_environment,
    moves_of,
)
from lssvwm_datasets.errors import LssvwmError
from lssvwm_datasets.luanti.luanti import LUANTI
from lssvwm_datasets.memory_maze.maze import MAZE
from lssvwm_datasets.minecraft_play import NEEDED

ROW = np.array([4.5, 4.5, 1, 0], np.float32)


def columns(
    dataset: str,
    actions: tuple[str, ...],
    poses: tuple[str, ...],
    fps: float = 20.0,
    kinds: tuple[str, ...] = (),
    units: tuple[str, ...] = (),
) -> SimpleNamespace:
    return SimpleNamespace(
        dataset=dataset, action_names=actions, action_units=units, pose_names=poses, pose_kinds=kinds, fps=fps
    )


@pytest.mark.parametrize("environment", ENVIRONMENTS.values(), ids=list(ENVIRONMENTS))
def test_a_record_fits_its_parts(environment: Environment) -> None:
    assert environment_named(environment.name) is environment
    assert len(environment.action_units) == len(environment.action_names)
    if environment.kinematics is not None:
        pose = np.zeros(len(environment.pose_names), np.float32)
        assert environment.kinematics(None, pose, 0).shape == pose.shape


def test_moves_are_rows_of_the_actions_columns() -> None:
    np.testing.assert_array_equal(MAZE.move_rows, np.eye(6))
    rows = dict(zip(LUANTI.move_names, LUANTI.move_rows.tolist(), strict=True))
    assert rows["stay"] == [0] * 9
    assert rows["forward_turn_left"] == [1, 0, 0, 0, 0, 0, 0, 0, -15], "two keys held: their names together (play.js)"
    assert LUANTI.full_turn
    assert abs(rows[LUANTI.full_turn.move][-1] * LUANTI.full_turn.frames) == 360
    names, found = moves_of(columns("luanti", LUANTI.action_names, LUANTI.pose_names))
    assert names == LUANTI.move_names
    assert found.shape == (len(names), 9)
    names, found = moves_of(columns("vpt", ("forward", "camera_yaw"), ()))
    assert names == ("forward", "camera_yaw")
    np.testing.assert_array_equal(found, np.eye(2))
    with pytest.raises(ValueError, match="luanti: no columns dig; it has forward"):
        replace(LUANTI, moves={"stay": {}, "dig": {"dig": 1}})


def test_a_full_turn_ends_where_it_began() -> None:
    assert MAZE.kinematics
    assert MAZE.full_turn
    pose = ROW
    for _ in range(MAZE.full_turn.frames):
        pose = MAZE.kinematics(None, pose, MAZE.action_names.index(MAZE.full_turn.move))
    np.testing.assert_array_equal(pose[:2], ROW[:2])
    assert np.degrees(np.arccos(pose[2:] @ ROW[2:])) < 10


@pytest.mark.parametrize(
    ("data", "found"),
    [
        (columns("maze", MAZE.action_names, MAZE.pose_names), MAZE),
        (columns("mine", MAZE.action_names, MAZE.pose_names), MAZE),
        (columns("maze", MAZE.action_names, ()), MAZE),
        (columns("maze", MAZE.action_names[:-1], MAZE.pose_names), None),
        (columns("maze", MAZE.action_names, ("x", "y", "z", "yaw")), None),
        (columns("vpt", ("forward", "camera_yaw"), ()), None),
        (columns("mine", teco.MINECRAFT_ACTIONS, ("x", "y", "cos", "sin")), None),
        (columns("mine", NEEDED, ("x",), units=("binary",) * 7 + ("radians",) * 2), None),
        (columns("mine", NEEDED, ("x",), fps=1e308), None),
    ],
)
def test_data_find_their_environment_by_their_columns(data: SimpleNamespace, found: Environment | None) -> None:
    assert environment_of(data) is found


@pytest.mark.parametrize(
    ("data", "turn", "move", "row"),
    [
        (columns("minerl", (*NEEDED, "attack"), reckoning.NAMES, kinds=reckoning.KINDS), 48, "attack", {"attack": 1}),
        (columns("vpt", vpt.ACTION_NAMES, ()), 48, "turn_left", {"camera_yaw": -7.5}),
        (columns("worldmem", worldmem.ACTION_NAMES, ("x", "y"), fps=10.0), 24, "look_down", {"camera_pitch": 15}),
        (columns("vpt", vpt.ACTION_NAMES, (), fps=24.0), 58, "turn_right", {"camera_yaw": pytest.approx(360 / 58)}),
        (columns("teco", teco.MINECRAFT_ACTIONS, reckoning.NAMES), 18, "left", {"left": 1}),
    ],
    ids=lambda one: getattr(one, "dataset", None),
)
def test_minecraft_is_played_by_the_columns_of_its_data(
    data: SimpleNamespace, turn: int, move: str, row: dict[str, float]
) -> None:
    environment = environment_of(data)
    assert environment is not None
    assert (environment.action_names, environment.pose_names) == (data.action_names, data.pose_names)
    assert environment.full_turn is not None
    assert environment.full_turn.frames == turn
    assert set(environment.keys.values()) <= set(environment.move_names)
    chosen = environment.move_rows[environment.move_names.index(move)]
    assert {name: value for name, value in zip(data.action_names, chosen, strict=True) if value} == row
    assert not environment.move_rows[environment.move_names.index(environment.idle)][1:].any()
    assert listed_environment(data) is None


def test_of_environments_with_the_same_columns_the_named_one_is_meant(monkeypatch: pytest.MonkeyPatch) -> None:
    other = replace(MAZE, name="other")
    monkeypatch.setitem(ENVIRONMENTS, "other", other)
    assert environment_of(columns("other", MAZE.action_names, MAZE.pose_names)) is other
    assert environment_of(columns("anything", MAZE.action_names, MAZE.pose_names)) is MAZE


def test_what_no_record_can_be_is_refused() -> None:
    with pytest.raises(ValueError, match="maze: no moves fly; it has noop"):
        replace(MAZE, keys={"w": "fly"})
    with pytest.raises(LssvwmError, match="no environment 'doom'; expected one of maze"):
        environment_named("doom")
