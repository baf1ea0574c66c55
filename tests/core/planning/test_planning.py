"""Planning by what a world remembers: the geometry, an agent among others, and the command in the real maze."""

import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from lssvwm_cli.app import app
from lssvwm_core import World, load_world
from lssvwm_core.model.sight_head import Sight, SightHead, SightHeadConfig, save_sight_head
from lssvwm_core.planning import agents, trial
from lssvwm_core.planning.places import around, places_on_map, votes
from lssvwm_core.training.sight import in_sight, is_clear
from lssvwm_datasets.environments import ENVIRONMENTS
from lssvwm_datasets.errors import LssvwmError
from lssvwm_datasets.memory_maze.environment import load_tasks, make_environment
from lssvwm_datasets.memory_maze.simulator import open_episode
from lssvwm_datasets.poses import Plane
from lssvwm_datasets.simulation import Simulator
from lssvwm_datasets.sources import find_recordings, sample_recordings

GOLDEN = Path(__file__).parents[2] / "golden"
PLANE = Plane(0, 1, 2, 3)
MAZE = ENVIRONMENTS["maze"]
ROOM = np.zeros((9, 9), np.uint8)
ROOM[1:8, 1:8] = 1
ROOM[2:7, 2:7] = 0  # a ring, in which an explorer soon has stood in every cell


class Room:
    """A maze without physics: the record's own kinematics, and frames that are empty."""

    def __init__(self) -> None:
        assert MAZE.kinematics is not None
        self.kinematics = MAZE.kinematics
        self.layout, self.targets, self.wanted = ROOM, np.array([[1.5, 7.5], [7.5, 1.5]], np.float32), 0
        self.pose = np.array([1.5, 1.5, 1, 0], np.float32)
        self.frame = np.zeros((64, 64, 3), np.uint8)

    def step(self, action: int) -> float:
        self.pose = self.kinematics(self.layout, self.pose, action)
        x, y = self.targets[self.wanted]
        if math.hypot(self.pose[0] - x, self.pose[1] - y) > 0.5:
            return 0.0
        self.wanted = 1 - self.wanted
        return 1.0


@contextmanager
def open_room(size: str, seed: int) -> Iterator[Room]:
    yield Room()


@pytest.fixture(scope="module")
def world() -> World:
    return load_world(GOLDEN / "runs/test", "cpu").sampled_with(steps=1)


def config(world: World, targets: int = 3) -> SightHeadConfig:
    return SightHeadConfig(world.model.config.latent_shape, world.header.autoencoder_sha256, targets, width=8)


@pytest.fixture(scope="module")
def head(world: World) -> SightHead:
    torch.manual_seed(0)
    return SightHead(config(world, targets=2)).eval()


def test_what_is_in_sight_is_where_the_environment_says() -> None:
    """Against `targets_vec` of the real recordings, and never through a wall."""
    recording = find_recordings(sample_recordings())[0]
    episode = next(recording.episodes())
    found = in_sight(episode)
    assert found is not None
    seen, places = found
    recorded = np.load(recording.path)["targets_vec"]  # to the right, ahead
    np.testing.assert_allclose(places, np.stack([recorded[..., 1], -recorded[..., 0]], axis=-1), atol=1e-4)
    assert 0.005 < seen.mean() < 0.3
    assert (places[seen][:, 0] > 0).all()
    assert in_sight(replace(episode, layout=None)) is None
    assert is_clear(ROOM, (1.5, 1.5), (6.5, 1.5))
    assert not is_clear(ROOM, (1.5, 1.5), (6.5, 6.5))
    assert not is_clear(ROOM, (1.5, 1.5), (1.5, 20.0))


def test_votes_go_to_the_cell_that_a_view_shows() -> None:
    """An agent at (3.5, 4.5) looks along y: two cells ahead of it is (3.5, 6.5); two more to its left, (1.5, 6.5)."""

    class Sees(torch.nn.Module):
        def forward(self, views: torch.Tensor) -> Sight:
            logits = torch.tensor([[9.0, -9.0]]).expand(len(views), -1)
            return Sight(logits, torch.tensor([[[2.0, 2.0], [1.0, 0.0]]]).expand(len(views), -1, -1))

    pose = np.array([[3.5, 4.5, 0, 1]], np.float32)
    x, y = places_on_map(pose, np.array([[[2.0, 0.0], [2.0, 2.0]]]), PLANE)
    np.testing.assert_allclose(np.stack([x, y], axis=-1), [[[3.5, 6.5], [1.5, 6.5]]], atol=1e-6)
    found = votes(Sees(), torch.zeros(1, 4, 4, 4), pose, PLANE, 9)  # type: ignore[arg-type]
    assert found.shape == (2, 9, 9)
    assert np.unravel_index(found[0].argmax(), (9, 9)) == (6, 1)
    assert found[1].max() < 0.01


def test_an_agent_that_remembers_goes_there_and_others_are_measured_beside_it(
    world: World, head: SightHead, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The world's views are replaced by what a perfect memory, or none, would vote for."""
    environment = replace(MAZE, simulator=Simulator(open_room, MAZE.simulator.navigator, {"room": 800}))  # type: ignore[union-attr]
    monkeypatch.setattr(agents, "imagined_views", lambda rollout, poses, seed: rollout.memory_cut)

    def remembered(
        head: object, views: object, poses: object, plane: object, side: int, least: float = 0.0
    ) -> np.ndarray:
        found = np.zeros((2, side, side))
        if views is False:  # imagined, and the memory was not cut; real frames show nothing
            found[0, 7, 1] = found[1, 1, 7] = 1
        return found

    monkeypatch.setattr(agents, "votes", remembered)
    options = trial.PlanOptions(episodes=2, size="room", seed=5, context=500, steps=250)
    played = list(trial.run(world, environment, head, options, {}, tmp_path))
    assert [(one.seed, one.agent) for one in played] == [(seed, name) for seed in (5, 6) for name in trial.AGENTS]
    found = trial.figures(played)
    assert found["oracle"]["mean"] >= found["memory"]["mean"] > found["memory cut"]["mean"]
    assert found["memory - memory cut"]["low"] > 0
    saved = json.loads((tmp_path / trial.RESULTS).read_text())
    assert saved["figures"] == found

    def never(*arguments: object) -> float:
        raise AssertionError("played again")

    monkeypatch.setattr(trial, "play", never)
    assert list(trial.run(world, environment, head, options, {}, tmp_path)) == played
    with pytest.raises(LssvwmError, match="made with other settings"):
        list(trial.run(world, environment, head, replace(options, steps=10), {}, tmp_path))


def test_a_planner_whose_memory_errs_looks_elsewhere_and_learns_where_targets_are(
    world: World, head: SightHead, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More speaks for two wrong places than for the right one, beside the corner where the target lies."""
    environment = replace(MAZE, simulator=Simulator(open_room, MAZE.simulator.navigator, {"room": 800}))  # type: ignore[union-attr]
    monkeypatch.setattr(agents, "imagined_views", lambda rollout, poses, seed: True)

    def remembered(
        head: object, views: object, poses: object, plane: object, side: int, least: float = 0.0
    ) -> np.ndarray:
        if views is not True:
            return np.zeros((2, side, side))  # real frames show nothing
        x, y, strength = np.array([1.5, 7.5, 1.5]), np.array([1.5, 7.5, 6.5]), np.array([4.0, 3.0, 1.0])
        wrong = np.einsum("m,myx->yx", strength, around(x, y, side))
        return np.stack([wrong, around(np.array(7.5), np.array(1.5), side)])

    monkeypatch.setattr(agents, "votes", remembered)
    room = Room()
    walk = trial.explored(environment, room, 500, 2)
    room.wanted = 0
    planner = agents.Planner(environment, world, head, walk, 9, np.random.default_rng(0))
    rewards = [room.step(planner.act(room)) for _ in range(400)]
    first, *later = np.flatnonzero(rewards)
    assert first < 250
    assert len(later) >= 2, "the way there and back takes fewer steps than looking for it"
    assert planner.votes[0].argmax() == 7 * 9 + 1
    assert planner.votes[0, 1, 1] < 0.1 * 4


def test_a_planner_looks_from_its_walk_and_acts(world: World, head: SightHead) -> None:
    """With the world's own views: the memory and the cut one give others, the same memory the same."""
    environment = replace(MAZE, simulator=Simulator(open_room, MAZE.simulator.navigator, {"room": 600}))  # type: ignore[union-attr]
    room = Room()
    walk = trial.explored(environment, room, 60, 1)
    assert walk.frames.shape == (61, 64, 64, 3)
    assert not walk.actions[0].any()
    first, again, cut = (
        agents.Planner(environment, world, head, walk, 9, np.random.default_rng(0), memory_cut)
        for memory_cut in (False, False, True)
    )
    assert np.array_equal(first.votes, again.votes)
    assert not np.allclose(first.votes, cut.votes)
    for _ in range(40):
        room.step(first.act(room))
    assert ROOM[first.stood].all()


def test_intervals_hold_the_mean() -> None:
    rng = np.random.default_rng(0)
    found = trial.interval(rng.normal(3, 1, 400))
    assert found["low"] < 3 < found["high"]
    assert 0.15 < found["high"] - found["low"] < 0.25


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"size": "10x10"}, "expected one of 9x9"),
        ({"context": 3}, "context of at least 10"),
        ({"context": 900}, "together at most 1000"),
        ({"agents": ("nobody",)}, "--agents nobody: expected some of memory"),
    ],
)
def test_what_cannot_be_played_is_told(world: World, head: SightHead, change: dict[str, object], message: str) -> None:
    with pytest.raises(LssvwmError, match=message):
        trial.check(world, head, replace(trial.PlanOptions(), **change))  # type: ignore[arg-type]
    header = replace(world.header, dataset="other", action_names=("a",), action_units=("one-hot",))
    other = replace(world, header=header)
    with pytest.raises(LssvwmError, match="cannot be acted in here"):
        trial.check(other, head, trial.PlanOptions())


@pytest.fixture
def maze_loads() -> None:
    try:
        load_tasks()
    except LssvwmError as error:  # without the extra, or OpenGL
        pytest.skip(str(error))


def test_frames_that_are_drawn_when_they_are_asked_for_are_the_environments(maze_loads: None) -> None:
    """Against the untouched environment, while targets are reached and the border changes its colour."""
    with open_episode("9x9", 1500004) as episode:
        oracle = agents.Oracle(MAZE, episode, np.random.default_rng(0))
        moves, rewards, asked, frames = [], [], [], [episode.frame]
        for step in range(120):
            moves.append(oracle.act(episode))
            rewards.append(episode.step(moves[-1]))
            asked.append(episode.wanted)
            frames.append(episode.frame if step % 3 or rewards[-1] else frames[-1])
    assert sum(rewards) >= 2
    assert len(set(asked)) > 1
    stock = make_environment("9x9", 1500004)
    assert np.array_equal(frames[0], stock.reset().observation["image"])
    for step, (move, reward) in enumerate(zip(moves, rewards, strict=True)):
        moment = stock.step(move)
        assert moment.reward == reward
        if step % 3 or reward:
            assert np.array_equal(frames[step + 1], moment.observation["image"])
    stock.close()


def test_the_same_walk_again_leads_to_the_same_place(world: World, head: SightHead) -> None:
    """Whoever acts after a walk of before stands where that one ended."""
    environment = replace(MAZE, simulator=Simulator(open_room, MAZE.simulator.navigator, {"room": 600}))  # type: ignore[union-attr]
    options = trial.PlanOptions(size="room", context=80, steps=40)
    walk, first = trial.play(world, environment, head, options, "oracle", 3)
    assert len(walk.moves) == 80
    assert trial.play(world, environment, head, options, "oracle", 3, walk) == (walk, first)
    assert trial.play(world, environment, head, options, "oracle", 3)[1] == first


def test_the_command_acts_in_the_real_maze(maze_loads: None, world: World, tmp_path: Path) -> None:
    save_sight_head(tmp_path / "sight", SightHead(config(world)))
    command = ["plan", "--checkpoint", str(GOLDEN / "runs/test"), "--sight", str(tmp_path / "sight"), "--json"]
    command += ["--episodes", "1", "--context", "30", "--steps", "20", "--out", str(tmp_path / "plan")]
    done = CliRunner().invoke(app, [*command, "--agents", "memory, oracle"])
    assert done.exit_code == 0, done.output
    assert set(json.loads(done.stdout)) == {"memory", "oracle"}
    assert len(json.loads((tmp_path / "plan/plan.json").read_text())["played"]) == 2


def test_the_command_learns_to_see(tmp_path: Path) -> None:
    done = CliRunner().invoke(
        app,
        ["train-sight", "--checkpoint", str(GOLDEN / "runs/test"), "--out", str(tmp_path / "sight"), "--steps", "60"],
    )
    assert done.exit_code == 0, done.output
    recipe = json.loads((tmp_path / "sight/recipe.json").read_text())
    assert recipe["train_frames"] == 1503
    assert 0 < recipe["validation_auc"] <= 1
