"""Luanti: walks on made-up ground, and, where it is installed, some steps of the real game."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from lssvwm_datasets.errors import LssvwmError
from lssvwm_datasets.luanti.constants import ACTION_NAMES
from lssvwm_datasets.luanti.game import Game, View, check
from lssvwm_datasets.luanti.recorder import RECORDER, smaller, write_episode
from lssvwm_datasets.luanti.settings import settings
from lssvwm_datasets.luanti.terrain import Terrain
from lssvwm_datasets.luanti.walk import Walk, find_start, shoot, shuffled, step, take_walk
from lssvwm_datasets.minecraft import Body, Kind
from lssvwm_datasets.recorder import plan
from lssvwm_datasets.sources import find_recordings, sample_recordings
from tests.datasets.made_terrain import hills

SEED, STEPS, PIXELS, VIEW = 7, 60, 128, 32


def test_the_explorer_sees_much_comes_back_and_keeps_away_from_harm() -> None:
    terrain = hills()
    start = min(terrain.ways, key=lambda cell: (abs(cell[0]) + abs(cell[2]), cell))
    walk = take_walk(terrain, start, 500, 2, np.random.default_rng(3))
    places = walk.poses[:, :3]
    assert np.ptp(places, axis=0)[[0, 2]].min() > 12
    again = [np.linalg.norm(places[: now - 50] - places[now], axis=1).min() < 1 for now in range(100, len(places), 10)]
    assert np.mean(again) > 0.15
    for x, y, z in np.floor(places + 1e-3).astype(int):
        assert terrain(x, y, z) != Kind.HARM
    assert {key for action in walk.actions for key, held in vars(action.keys).items() if held} > {"forward", "jump"}
    assert sum(bool(action.keys.jump and action.keys.sprint) for action in walk.actions) == 0  # MineDojo has no such


def test_a_walk_is_a_function_of_its_seed_and_pictures_are_taken_in_turns_of_direction() -> None:
    terrain = hills()
    start = min(terrain.ways)
    one, other = (take_walk(terrain, start, 100, 2, np.random.default_rng(1)) for _ in range(2))
    np.testing.assert_array_equal(one.poses, other.poses)
    order = shuffled(one.poses, np.random.default_rng(0))
    assert sorted(order) == list(range(101))
    turned = np.abs(np.diff(one.poses[order, 4]) + 180) % 360 - 180
    assert np.mean(np.abs(turned) > 15) > 0.8  # as walked it is less than one in ten


def test_a_dump_is_mirrored_into_minecrafts_coordinates() -> None:
    low, high = (-2, 10, 5), (1, 11, 7)
    dump = bytearray(4 * 2 * 3)
    dump[0] = Kind.FULL  # the node -2, 10, 5: x from 2 on in Minecraft's
    dump[-1] = Kind.WATER  # 1, 11, 7
    terrain = Terrain.of_dump(bytes(dump), low, high)
    assert terrain(2, 10, 5) == Kind.FULL
    assert terrain(-1, 11, 7) == Kind.WATER
    assert terrain(0, 10, 6) == Kind.FREE
    assert terrain(3, 10, 5) == Kind.FULL  # beyond


def test_a_missing_game_is_told_with_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lssvwm_datasets.luanti.game.shutil.which", lambda name, path: None)
    with pytest.raises(LssvwmError, match=r"Luanti and Xvfb: not installed; .*apt-get install minetest xvfb"):
        RECORDER.check()


def test_sizes_are_of_pictures(tmp_path: Path) -> None:
    assert plan(RECORDER, tmp_path, train_episodes=1, eval_episodes=0, steps=9)[0].size == "64"
    with pytest.raises(LssvwmError, match="--size 96: expected one of 64, 128"):
        plan(RECORDER, tmp_path, train_episodes=1, eval_episodes=0, steps=9, size="96")


def test_nothing_is_written_over_the_picture() -> None:
    """Seen once: a mod's error, in red letters over every frame of an episode."""
    said = settings(seed=0, pixels=64, view=48).splitlines()
    assert {"chat_log_level = none", "recent_chat_messages = 0", "show_debug = false"} <= set(said)


def test_samples_ship_and_are_told_from_worldmems_without_a_name() -> None:
    recordings = find_recordings(sample_recordings("luanti"))
    assert {recording.format.name for recording in recordings} == {"luanti"}
    assert {recording.split for recording in recordings} == {"train", "validation"}
    assert sum(recording.bytes for recording in recordings) < 3_000_000
    episode = next(recordings[0].episodes())
    assert episode.action_names == ACTION_NAMES
    assert episode.frame_size == (64, 64)
    check_views_turn_with_the_yaw(np.concatenate(list(episode.frames)), episode.actions)


def check_views_turn_with_the_yaw(frames: NDArray[np.uint8], actions: NDArray[np.float32]) -> None:
    """Where the camera turns on the spot, the picture moves the other way in the same frame, by about as much."""
    still = np.flatnonzero((actions[:, :8] == 0).all(axis=1) & (np.abs(actions[:, 8]) == 15))
    still = still[(still > 0) & (actions[still - 1, :7] == 0).all(axis=1)]
    assert len(still) >= 3
    shifts = [_shift(frames[now - 1], frames[now]) * np.sign(actions[now, 8]) for now in still]
    assert 9 <= np.median(shifts) <= 18, shifts  # 64 pixels are 70 degrees, and fewer to the side


def _shift(before: NDArray[np.uint8], after: NDArray[np.uint8]) -> int:
    """How many pixels to the left a picture has moved."""
    one, other = before.mean(axis=-1), after.mean(axis=-1)

    def difference(shift: int) -> float:
        left, right = (one[:, shift:], other[:, : 64 - shift]) if shift >= 0 else (one[:, :shift], other[:, -shift:])
        return float(np.abs(left - right).mean())

    return min(range(-24, 25), key=difference)


@dataclass(frozen=True)
class Played:
    """Some steps of the real game, of which every picture was taken twice, in two orders."""

    terrain: Terrain
    walk: Walk
    pictures: NDArray[np.uint8]
    again: NDArray[np.uint8]
    down: NDArray[np.uint8]


@pytest.fixture(scope="module")
def played() -> Played:
    try:
        check()
    except LssvwmError as error:
        pytest.skip(str(error))
    rng = np.random.default_rng(SEED)
    with Game(SEED, PIXELS, VIEW) as game:
        terrain, start = find_start(game, rng)
        walk = take_walk(terrain, start, STEPS, 2, rng)
        once, twice = shoot(game, walk, rng), shoot(game, walk, np.random.default_rng(99))
        views = [
            View((0.5 - start[0], start[1] + height, start[2] + 0.5), pitch, 0.0)
            for height in (2, 3)
            for pitch in (0, 90)
        ]
        down, again = game.look(views), game.look(views[1::2])
        return Played(terrain, walk, once, twice, np.concatenate([down[1::2], again]))


def test_the_same_pose_gives_the_same_picture(played: Played) -> None:
    differ = (played.pictures != played.again).any(axis=-1).mean(axis=(1, 2))
    assert (differ > 0).mean() <= 0.02
    assert differ.max() <= 0.002
    assert np.ptp(played.pictures, axis=(1, 2, 3)).min() > 0, "no picture is empty"
    moved = np.abs(np.diff(played.walk.poses, axis=0)).max(axis=1) > 0.1
    assert (played.pictures[1:] != played.pictures[:-1]).any(axis=(1, 2, 3))[moved].all()


def test_views_of_one_direction_and_straight_down_come_too(played: Played) -> None:
    np.testing.assert_array_equal(played.down[:2], played.down[2:])
    assert (played.down[0] != played.down[1]).any(), "heights differ"


def test_a_recorded_episode_is_read_as_it_was_played(played: Played, tmp_path: Path) -> None:
    path = tmp_path / "train" / "0000007-60.npz"
    write_episode(path, smaller(played.pictures), played.walk, SEED, VIEW)
    (recording,) = find_recordings(tmp_path)
    (episode,) = recording.episodes()
    frames = np.concatenate(list(episode.frames))
    np.testing.assert_array_equal(frames, smaller(played.pictures))
    body: Body = played.walk.bodies[0]
    for action, there in zip(played.walk.actions[1:], played.walk.bodies[1:], strict=True):
        body = step(body, action, played.terrain, 2)
        assert body == there
    keys = [[getattr(action.keys, name) for name in ACTION_NAMES[:7]] for action in played.walk.actions]
    np.testing.assert_array_equal(episode.actions[:, :7], keys)
    angles = [(action.pitch, action.yaw) for action in played.walk.actions]
    np.testing.assert_array_equal(episode.actions[:, 7:], angles)
    assert episode.pose_names == ("x", "y", "z", "cos", "sin", "pitch")
    poses = played.walk.poses
    np.testing.assert_allclose(episode.poses[:, 2], poses[:, 1] - poses[0, 1], atol=1e-4)
    ahead = np.radians(poses[:, 4])
    np.testing.assert_allclose(episode.poses[:, 3], -np.sin(ahead), atol=1e-6)  # x is Minecraft's; seen from above
    np.testing.assert_allclose(episode.poses[:, 5], -np.radians(poses[:, 3]), atol=1e-6)


@pytest.mark.usefixtures("played")  # skips where there is no game
def test_larger_windows_tell_where_pictures_are_from() -> None:
    with Game(SEED, 256, 16) as game:
        pictures = game.look([View((0.5, 40.0, 0.5), 30.0, yaw) for yaw in (0.0, 90.0, 180.0)])
    assert pictures.shape == (3, 256, 256, 3)
