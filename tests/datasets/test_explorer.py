"""The explorer and the kinematics of its walk."""

import itertools

import numpy as np
import pytest

from lssvwm_datasets.episode import Episode
from lssvwm_datasets.memory_maze.explorer import (
    FORWARD,
    FORWARD_LEFT,
    LEFT,
    NOOP,
    RIGHT,
    Explorer,
    is_free,
    shortest_path,
    walk,
)
from lssvwm_datasets.sources import find_recordings, sample_recordings


@pytest.fixture(scope="module")
def real() -> Episode:
    return next(find_recordings(sample_recordings(), "maze")[0].episodes())


@pytest.fixture(scope="module")
def layout(real: Episode) -> np.ndarray:
    assert real.layout is not None
    return real.layout


def stroll(layout: np.ndarray, steps: int, seed: int) -> np.ndarray:
    row, column = np.argwhere(layout)[0]
    poses = [np.array([column + 0.5, row + 0.5, 1, 0], np.float32)]
    explorer = Explorer(layout, np.random.default_rng(seed))
    for _ in range(steps):
        poses.append(walk(layout, poses[-1], explorer.act(poses[-1])))
    return np.stack(poses)


@pytest.mark.parametrize("seed", range(3))
def test_the_explorer_sees_most_of_the_maze_and_walks_through_no_wall(layout: np.ndarray, seed: int) -> None:
    poses = stroll(layout, 1000, seed)
    cells = {(int(x), int(y)) for x, y in poses[:, :2]}
    assert len(cells) > 0.6 * layout.sum()
    assert all(is_free(layout, x, y) for x, y in poses[:, :2])
    np.testing.assert_allclose(np.hypot(*poses[:, 2:].T), 1, atol=1e-5)


def test_the_same_seed_is_the_same_walk(layout: np.ndarray) -> None:
    np.testing.assert_array_equal(stroll(layout, 50, 1), stroll(layout, 50, 1))
    assert not np.array_equal(stroll(layout, 50, 1), stroll(layout, 50, 2))


def test_paths_are_shortest_and_free(layout: np.ndarray) -> None:
    free = {(int(x), int(y)) for y, x in np.argwhere(layout)}
    start = min(free)
    length = {}
    for goal in free:
        path = shortest_path(layout, start, goal)
        steps = np.abs(np.diff([start, *path], axis=0)).sum(axis=1)
        assert [start, *path][-1] == goal
        assert (steps == 1).all()
        assert free.issuperset(path)
        length[goal] = len(path)
    for (x, y), (dx, dy) in itertools.product(free, ((1, 0), (0, 1), (-1, 0), (0, -1))):
        if (x + dx, y + dy) in free:
            assert length[x + dx, y + dy] <= length[x, y] + 1, "no way is shorter than the path"


def test_there_is_no_path_through_corners_walls_or_the_rim() -> None:
    assert shortest_path(np.eye(3, dtype=np.uint8), (0, 0), (2, 2)) == []
    assert shortest_path(np.eye(3, dtype=np.uint8), (0, 0), (1, 0)) == []
    assert shortest_path(np.ones((3, 3), np.uint8), (0, 0), (0, 3)) == []


def test_left_turns_counter_clockwise_and_right_back() -> None:
    start = np.array([1.5, 1.5, 1, 0], np.float32)
    turned = walk(None, start, LEFT)
    assert turned[3] > 0
    assert walk(None, start, FORWARD_LEFT)[1] > start[1]
    np.testing.assert_allclose(walk(None, turned, RIGHT), start, atol=1e-6)
    np.testing.assert_allclose(walk(None, start, NOOP), start)


def test_the_agent_slides_along_a_wall() -> None:
    corridor = np.array([[1, 1, 1]], np.uint8)
    pose = np.array([0.5, 0.5, np.cos(1), np.sin(1)], np.float32)
    for _ in range(9):
        pose = walk(corridor, pose, FORWARD)
    assert pose[0] > 1.5
    assert 0.5 < pose[1] < 1


def test_the_walk_follows_the_real_environment(real: Episode) -> None:
    """One step ahead from recorded poses: exact to a fraction of a step, though the real agent coasts."""
    assert real.poses is not None
    predicted = [
        walk(real.layout, pose, int(action.argmax()))
        for pose, action in zip(real.poses, real.actions[1:], strict=False)
    ]
    errors = np.linalg.norm(np.stack(predicted)[:, :2] - real.poses[1:, :2], axis=1)
    assert np.median(errors) < 0.08
