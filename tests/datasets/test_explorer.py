"""The explorer and the kinematics of its walk."""

import numpy as np
import pytest

from lssvwm_datasets.memory_maze.explorer import LEFT, RIGHT, Explorer, is_free, shortest_path, walk
from lssvwm_datasets.sources import find_recordings, sample_recordings


@pytest.fixture(scope="module")
def layout() -> np.ndarray:
    episode = next(find_recordings(sample_recordings(), "maze")[0].episodes())
    assert episode.layout is not None
    return episode.layout


def stroll(layout: np.ndarray, steps: int, seed: int) -> np.ndarray:
    row, column = np.argwhere(layout)[0]
    poses = [np.array([column + 0.5, row + 0.5, 1, 0], np.float32)]
    explorer = Explorer(layout, np.random.default_rng(seed))
    for _ in range(steps):
        poses.append(walk(layout, poses[-1], explorer.act(poses[-1])))
    return np.stack(poses)


def test_the_explorer_sees_most_of_the_maze_and_walks_through_no_wall(layout: np.ndarray) -> None:
    poses = stroll(layout, 1000, seed=0)
    cells = {(int(x), int(y)) for x, y in poses[:, :2]}
    assert len(cells) > 0.6 * layout.sum()
    assert all(is_free(layout, x, y) for x, y in poses[:, :2])


def test_the_same_seed_is_the_same_walk(layout: np.ndarray) -> None:
    np.testing.assert_array_equal(stroll(layout, 50, 1), stroll(layout, 50, 1))
    assert not np.array_equal(stroll(layout, 50, 1), stroll(layout, 50, 2))


def test_paths_are_shortest_and_free(layout: np.ndarray) -> None:
    free = [(int(x), int(y)) for y, x in np.argwhere(layout)]
    for goal in free[1:]:
        path = shortest_path(layout, free[0], goal)
        steps = np.abs(np.diff([free[0], *path], axis=0)).sum(axis=1)
        assert path[-1] == goal
        assert (steps == 1).all()
        assert all(cell in free for cell in path)
        back = shortest_path(layout, goal, free[0])
        assert len(back) == len(path)
    open_floor = np.ones((5, 5), np.uint8)
    assert len(shortest_path(open_floor, (0, 0), (4, 3))) == 7
    assert shortest_path(np.eye(3, dtype=np.uint8), (0, 0), (2, 2)) == []


def test_left_turns_counter_clockwise_and_right_back() -> None:
    start = np.array([1.5, 1.5, 1, 0], np.float32)
    turned = walk(None, start, LEFT)
    assert turned[3] > 0
    np.testing.assert_allclose(walk(None, turned, RIGHT), start, atol=1e-6)


def test_the_walk_follows_the_real_environment() -> None:
    """One step ahead from recorded poses: exact to a fraction of a step, though the real agent coasts."""
    episode = next(find_recordings(sample_recordings(), "maze")[0].episodes())
    assert episode.poses is not None
    predicted = [
        walk(episode.layout, pose, int(action.argmax()))
        for pose, action in zip(episode.poses, episode.actions[1:], strict=False)
    ]
    errors = np.linalg.norm(np.stack(predicted)[:, :2] - episode.poses[1:, :2], axis=1)
    assert np.median(errors) < 0.08
