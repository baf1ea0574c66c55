"""What a player sees follows from the keys, the seed and the memory, and from nothing else."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from lssvwm_core.episodes import load_episode
from lssvwm_core.play.game import Game
from lssvwm_datasets.errors import LssvwmError
from lssvwm_datasets.memory_maze import ACTION_NAMES
from lssvwm_datasets.memory_maze.explorer import walk

FORWARD, LEFT, RIGHT = (ACTION_NAMES.index(name) for name in ("forward", "left", "right"))


def play(game: Game, *actions: int) -> np.ndarray:
    return np.stack([game.step(action) for action in actions])


def test_keys_decide_and_the_seed_repeats(game: Game, new_game: Callable[[], Game]) -> None:
    first = play(game, FORWARD, LEFT)
    other = new_game()
    assert np.array_equal(first, play(other, FORWARD, LEFT))
    other.restart(0, 0)
    assert np.array_equal(first, play(other, FORWARD, LEFT))
    other.restart(0, 0)
    assert not np.array_equal(first[0], other.step(RIGHT))


def test_a_frame_is_a_rollout_step_with_the_pose_reckoned(game: Game, workspace: Path) -> None:
    recording = load_episode(game.world, workspace / "data/maze")
    assert recording.poses is not None
    state = game.world.reset()
    rows = {"action": recording.actions[:20], "pose": recording.poses[:20]}
    latents = torch.from_numpy(recording.latents[:20])[None].float()
    game.world.observe(state, latents, {name: torch.from_numpy(row)[None] for name, row in rows.items()})
    pose = walk(recording.layout, recording.poses[19], LEFT)
    conditions = {"action": torch.eye(6)[LEFT][None, None], "pose": torch.from_numpy(pose)[None, None]}
    expected = game.world.generate(state, conditions, torch.Generator().manual_seed(0))
    np.testing.assert_array_equal(game.step(LEFT), game.world.decode(expected[0])[0])
    np.testing.assert_array_equal(game.pose, pose)


def test_memory_is_of_constant_size(game: Game) -> None:
    sizes = set()
    for action in [FORWARD, LEFT] * 15:
        game.step(action)
        sizes.add((game.state.nbytes, game.rollout.recent.shape, len(game.slots)))
    assert len(sizes) == 1
    assert game.state.frames_seen == 50


@pytest.mark.parametrize("keep", ["save", "branch"])
def test_a_kept_moment_goes_on_identically(game: Game, new_game: Callable[[], Game], keep: str) -> None:
    play(game, FORWARD, LEFT, FORWARD)
    getattr(game, keep)("here")
    there = play(game, RIGHT, FORWARD)
    pose, path = game.pose, game.path
    game.load("here")
    np.testing.assert_array_equal(play(game, RIGHT, FORWARD), there)
    np.testing.assert_array_equal(game.pose, pose)
    np.testing.assert_allclose(game.path, path, rtol=1e-6)
    later = new_game()
    later.load("here")
    np.testing.assert_array_equal(play(later, RIGHT, FORWARD), there)


def test_a_moment_keeps_what_a_cut_memory_sees(game: Game) -> None:
    game.cut_memory = True
    play(game, FORWARD, LEFT)
    game.save("cut")
    there = play(game, RIGHT)
    game.load("cut")
    np.testing.assert_array_equal(play(game, RIGHT), there)


def test_a_branch_leaves_what_is_kept(game: Game) -> None:
    game.save("here")
    with pytest.raises(LssvwmError, match="here is taken"):
        game.branch("here")
    assert game.slots == ["here"]


@pytest.mark.parametrize("name", ["", "../x", "a/b", "A", "a" * 33, "x.safetensors", "a\n", "é"])
def test_no_other_names(game: Game, name: str, tmp_path: Path) -> None:
    for call in (game.save, game.branch, game.load):
        with pytest.raises(LssvwmError, match="1 to 32"):
            call(name)
    assert not list(tmp_path.rglob("*"))


def test_damage_is_told_and_the_game_goes_on(game: Game, new_game: Callable[[], Game]) -> None:
    game.save("here")
    file = game.slots_folder / "here.safetensors"
    file.write_bytes(file.read_bytes()[:1000])
    for call in (lambda: game.load("here"), lambda: game.restart(7, 0), lambda: game.restart(0, 10_000)):
        with pytest.raises(LssvwmError):
            call()
    np.testing.assert_array_equal(game.step(LEFT), new_game().step(LEFT))


def test_a_cut_memory_is_a_fresh_state_of_the_last_frames(game: Game) -> None:
    play(game, FORWARD, FORWARD)
    keep = game.world.model.config.frame_window - 1
    fresh = game.world.reset()
    game.world.observe(fresh, game.rollout.recent, game.rollout.recent_conditions)
    assert fresh.frames_seen == keep == game.rollout.recent.shape[1]
    rng = torch.Generator()
    rng.set_state(game.rollout.generators[0].get_state())
    assert game.pose is not None
    pose = walk(game.layout, game.pose, LEFT)
    conditions = {"action": torch.eye(6)[LEFT][None, None], "pose": torch.from_numpy(pose)[None, None]}
    expected = game.world.decode(game.world.generate(fresh, conditions, rng)[0])[0]
    seen = game.state.frames_seen
    game.cut_memory = True
    np.testing.assert_array_equal(game.step(LEFT), expected)
    assert game.state.frames_seen == seen + 1


def test_without_poses_they_are_unknown_to_the_world(game: Game) -> None:
    game.actions_only = True
    game.step(FORWARD)
    assert game.rollout.recent_conditions["pose"][0, -1].isnan().all()
    assert not game.rollout.recent_conditions["pose"][0, -2].isnan().any()
    assert game.pose is not None
