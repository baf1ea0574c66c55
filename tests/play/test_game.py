"""What a player sees follows from the keys, the seed and the memory, and from nothing else."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import safetensors
import torch
from safetensors.torch import save_file

from lssvwm_core.episodes import load_episode
from lssvwm_core.play import slots
from lssvwm_core.play.game import Game
from lssvwm_core.play.session import Session
from lssvwm_datasets.errors import LssvwmError
from lssvwm_datasets.memory_maze import ACTION_NAMES
from lssvwm_datasets.memory_maze.explorer import walk
from tests.play.conftest import Watcher

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
    np.testing.assert_array_equal(game.place.pose, pose)


def test_an_unknown_environment_has_number_keys_and_rests_on_zeros(
    new_game: Callable[[], Game], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lssvwm_core.play.game.environment_of", lambda header: None)
    game = new_game()
    assert game.keys == {"1": 0, "2": 1, "3": 2, "4": 3, "5": 4, "6": 5}
    assert game.idle is game.place.pose is game.place.spot is None
    game.step(None)
    assert not game.rollout.recent.conditions["action"][0, -1].any()
    game.step(LEFT)
    assert game.rollout.recent.conditions["action"][0, -1].argmax() == LEFT
    assert game.rollout.recent.conditions["pose"][0, -1].isnan().all()
    game.save("here")
    game.load("here")


def test_memory_is_of_constant_size(game: Game) -> None:
    sizes = set()
    for action in [FORWARD, LEFT] * 15:
        game.step(action)
        sizes.add((game.state.nbytes, game.rollout.recent.latents.shape, len(game.slots.names)))
    assert len(sizes) == 1
    assert game.state.frames_seen == 50


@pytest.mark.parametrize("keep", ["save", "branch"])
def test_a_kept_moment_goes_on_identically(game: Game, new_game: Callable[[], Game], keep: str) -> None:
    play(game, FORWARD, LEFT, FORWARD)
    getattr(game, keep)("here")
    there = play(game, RIGHT, FORWARD)
    pose, path = game.place.pose, game.place.path
    game.load("here")
    np.testing.assert_array_equal(play(game, RIGHT, FORWARD), there)
    np.testing.assert_array_equal(game.place.pose, pose)
    np.testing.assert_allclose(game.place.path, path, rtol=1e-6)
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
    assert game.slots.names == ["here"]


@pytest.mark.parametrize("name", ["", "../x", "a/b", "A", "a" * 33, "x.safetensors", "a\n", "é"])
def test_no_other_names(game: Game, name: str, tmp_path: Path) -> None:
    for call in (game.save, game.branch, game.load):
        with pytest.raises(LssvwmError, match="1 to 32"):
            call(name)
    assert not list(tmp_path.rglob("*"))


def test_damage_is_told_and_the_game_goes_on(game: Game, new_game: Callable[[], Game]) -> None:
    game.save("here")
    file = game.slots.folder / "here.safetensors"
    file.write_bytes(file.read_bytes()[:1000])
    for call in (lambda: game.load("here"), lambda: game.restart(7, 0), lambda: game.restart(0, 10_000)):
        with pytest.raises(LssvwmError):
            call()
    np.testing.assert_array_equal(game.step(LEFT), new_game().step(LEFT))


Change = Callable[[dict[str, torch.Tensor], dict[str, str]], None]


def put(name: str, value: torch.Tensor) -> Change:
    return lambda tensors, _: tensors.update({name: value})


def change_state(change: Callable[[torch.Tensor], torch.Tensor]) -> Change:
    """Change the largest tensor of the world's memory."""

    def apply(tensors: dict[str, torch.Tensor], _: dict[str, str]) -> None:
        name = max((name for name in tensors if not name.startswith("extra.")), key=lambda name: tensors[name].numel())
        tensors[name] = change(tensors[name])

    return apply


def recall_of(tensors: dict[str, torch.Tensor], name: str) -> torch.Tensor:
    """A tensor of the memory by least squares."""
    return next(tensor for key, tensor in tensors.items() if key.endswith(f".{name}"))


CHANGES: dict[str, Change] = {
    "state NaN": change_state(lambda state: state * torch.nan),
    "state one infinity": change_state(lambda state: state.index_fill(0, torch.tensor([0]), torch.inf)),
    "state that runs away": lambda tensors, _: [
        tensor.fill_(min(1e30, torch.finfo(tensor.dtype).max))
        for name, tensor in tensors.items()
        if name.startswith("mixers.") and tensor.is_floating_point()
    ],
    "noises of no positive matrix": lambda tensors, _: recall_of(tensors, "noises").fill_(-1e19),
    "state cut": change_state(lambda state: state[..., :-1].clone()),
    "state of whole numbers": change_state(lambda state: state.to(torch.int64)),
    "state gone": lambda tensors, _: tensors.pop(next(name for name in tensors if not name.startswith("extra."))),
    "frames seen": lambda _, metadata: metadata.update({"lssvwm-state": '{"frames_seen": -1}'}),
    "frames seen in words": lambda _, metadata: metadata.update({"lssvwm-state": '{"frames_seen": "many"}'}),
    "no state's": lambda _, metadata: metadata.clear(),
    "pose NaN": put("extra.pose", torch.full((4,), torch.nan)),
    "pose too long": put("extra.pose", torch.zeros(5)),
    "pose of whole numbers": put("extra.pose", torch.zeros(4, dtype=torch.int64)),
    "pose that runs away": put("extra.pose", torch.full((4,), 3e38)),
    "pose beyond float32": put("extra.pose", torch.full((4,), 1e300, dtype=torch.float64)),
    "path beyond float32": put("extra.path", torch.full((3, 2), 1e300, dtype=torch.float64)),
    "pose a number": put("extra.pose", torch.tensor(1.0)),
    "layout of sevens": put("extra.layout", torch.full((9, 9), 7, dtype=torch.uint8)),
    "layout oblong": put("extra.layout", torch.ones(9, 8, dtype=torch.uint8)),
    "layout of floats": put("extra.layout", torch.ones(9, 9)),
    "layout flat": put("extra.layout", torch.ones(81, dtype=torch.uint8)),
    "layout empty": put("extra.layout", torch.ones(0, 0, dtype=torch.uint8)),
    "layout vast": put("extra.layout", torch.ones(2000, 2000, dtype=torch.uint8)),
    "path of millions": put("extra.path", torch.zeros(2_000_000, 2)),
    "path NaN": put("extra.path", torch.full((3, 2), torch.nan)),
    "path in space": put("extra.path", torch.zeros(3, 3)),
    "path infinite": put("extra.path", torch.full((3, 2), torch.inf)),
    "latents NaN": lambda tensors, _: tensors["extra.latents"].fill_(torch.nan),
    "latents beyond float32": lambda tensors, _: tensors.update(
        {"extra.latents": torch.full_like(tensors["extra.latents"], -1e300, dtype=torch.float64)}
    ),
    "latents of another size": put("extra.latents", torch.zeros(1, 3, 8, 4, 4)),
    "latents without what led to them": lambda tensors, _: tensors.pop("extra.recent.action"),
    "actions of another size": put("extra.recent.action", torch.zeros(1, 9, 7)),
    "generator": put("extra.rng", torch.zeros(3, dtype=torch.uint8)),
    "generator of floats": put("extra.rng", torch.zeros(5056)),
}


def odd_moments(game: Game) -> list[str]:
    """Save moments in the game's folder, all of which something is wrong with; returns their names."""
    game.save("whole")
    whole = game.slots.folder / "whole.safetensors"
    names = []
    for number, change in enumerate(CHANGES.values()):
        names.append(f"odd-{number}")
        with safetensors.safe_open(whole, "pt") as file:
            tensors, metadata = {name: file.get_tensor(name) for name in file.keys()}, dict(file.metadata())  # noqa: SIM118
        change(tensors, metadata)
        save_file(tensors, whole.with_stem(names[-1]), metadata)
    os.mkfifo(whole.with_stem("pipe"))
    whole.with_stem("folder").mkdir()
    whole.with_stem("device").symlink_to("/dev/zero")
    whole.with_stem("text").symlink_to(__file__)
    whole.with_stem("nowhere").symlink_to("/nowhere")
    whole.with_stem("itself").symlink_to(whole.with_stem("itself"))
    whole.with_stem("cut").write_bytes(whole.read_bytes()[:-100])
    whole.with_stem("empty").touch()
    vast = {"extra.path": {"dtype": "F32", "shape": [2**30, 2], "data_offsets": [0, 2**33]}}
    header = json.dumps(vast | {"__metadata__": {"lssvwm-state": '{"frames_seen": 1}'}}).encode()
    with whole.with_stem("vast").open("wb") as file:  # a hole of 8 GiB
        file.write(len(header).to_bytes(8, "little") + header)
        file.truncate(8 + len(header) + 2**33)
    return [*names, "vast", "pipe", "folder", "device", "text", "nowhere", "itself", "cut", "empty"]


def test_odd_moments_are_refused_and_the_game_goes_on(game: Game, new_game: Callable[[], Game]) -> None:
    for name in odd_moments(game):
        with pytest.raises((LssvwmError, OSError)) as refused:
            game.load(name)
        assert name in str(refused.value)
    assert "pipe" not in game.slots.names
    np.testing.assert_array_equal(game.step(LEFT), new_game().step(LEFT))
    game.load("whole")


def test_odd_moments_are_notices_for_all(session: Session, game: Game) -> None:
    watcher = Watcher()
    session.join(watcher)
    for name in odd_moments(game):
        session.submit(lambda name=name: game.load(name) or "loaded")
        told = watcher.wait_for(lambda picture, name=name: name in picture.status["notice"])
    watcher.wait_for(lambda picture: picture.status["frames"] > told.status["frames"] + 1)
    assert "a fault of lssvwm" not in "".join(picture.status["notice"] for picture in watcher.seen)
    assert session.failure is None


def test_what_lies_under_a_name_is_replaced_not_written_through(game: Game, tmp_path: Path) -> None:
    game.save("first")
    precious = tmp_path / "precious.txt"
    precious.write_text("keep me")
    slot = game.slots.folder / "here.safetensors"
    slot.symlink_to(precious)
    with pytest.raises(LssvwmError, match="here is taken"):
        game.branch("here")
    game.save("here")
    assert precious.read_text() == "keep me"
    assert not slot.is_symlink()
    slot.unlink()
    slot.mkdir()
    with pytest.raises(LssvwmError, match=r"here\.safetensors: there is something that is no file"):
        game.save("here")
    assert list(slot.iterdir()) == []


def test_a_limit_of_moments(game: Game, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slots, "MAX_SLOTS", 2)
    game.save("one")
    game.branch("two")
    for call in (game.save, game.branch):
        with pytest.raises(LssvwmError, match="is full: 2 saved moments"):
            call("three")
    game.save("one")


def test_a_cut_memory_is_a_fresh_state_of_the_last_frames(game: Game) -> None:
    play(game, FORWARD, FORWARD)
    keep = game.world.model.config.frame_window - 1
    fresh = game.world.reset()
    game.world.observe(fresh, game.rollout.recent.latents, game.rollout.recent.conditions)
    assert fresh.frames_seen == keep == game.rollout.recent.frames
    rng = torch.Generator()
    rng.set_state(game.rollout.generators[0].get_state())
    assert game.place.pose is not None
    pose = walk(game.place.layout, game.place.pose, LEFT)
    conditions = {"action": torch.eye(6)[LEFT][None, None], "pose": torch.from_numpy(pose)[None, None]}
    expected = game.world.decode(game.world.generate(fresh, conditions, rng)[0])[0]
    seen = game.state.frames_seen
    game.cut_memory = True
    np.testing.assert_array_equal(game.step(LEFT), expected)
    assert game.state.frames_seen == seen + 1


def test_without_poses_they_are_unknown_to_the_world(game: Game) -> None:
    game.actions_only = True
    game.step(FORWARD)
    assert game.rollout.recent.conditions["pose"][0, -1].isnan().all()
    assert not game.rollout.recent.conditions["pose"][0, -2].isnan().any()
    assert game.place.pose is not None
