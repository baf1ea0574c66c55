"""What the tasks show and ask for, episode by episode, with frames that carry their number."""

import dataclasses
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from lssvwm_core.episodes import EncodedEpisode
from lssvwm_core.evaluation.tasks import TASKS, make_task
from lssvwm_core.evaluation.tasks.task import Task, distance_to_seen, make_trial
from lssvwm_datasets.errors import LssvwmError
from lssvwm_datasets.memory_maze.maze import MAZE
from lssvwm_datasets.poses import plane_of

NAMES = ("x", "y", "cos", "sin")
ACTION_NAMES = MAZE.action_names
FULL_TURN = 20
STREAMS = ("action", "pose")


def world(pose_names: tuple[str, ...] = NAMES, action_names: tuple[str, ...] = ACTION_NAMES, chunk: int = 5) -> Any:
    header = SimpleNamespace(pose_names=pose_names, pose_kinds=(), action_names=action_names, dataset="mine")
    return SimpleNamespace(header=header, chunk=chunk, decode=lambda latents: latents[:, :3, :, :].numpy())


@pytest.fixture
def episode() -> EncodedEpisode:
    """Frame t has t in every pixel, latent, action and pose."""
    numbers = np.arange(60)
    frames = np.broadcast_to(numbers.astype(np.uint8)[:, None, None, None], (60, 4, 4, 3)).copy()
    latents = np.broadcast_to(numbers.astype(np.float16)[:, None, None, None], (60, 3, 2, 2)).copy()
    rows = np.repeat(numbers.astype(np.float32)[:, None], 4, axis=1)
    return EncodedEpisode("e", latents, np.repeat(rows[:, :1], 6, axis=1), rows.copy(), frames, None, 4.0)


def test_retrieval_walks_back_exactly(episode: EncodedEpisode) -> None:
    trial = make_trial(make_task("retrieval", 20, 20), 0, episode, world(), STREAMS)
    back = np.arange(20)[::-1]
    np.testing.assert_array_equal(trial.truth[:, 0, 0, 0], back)
    np.testing.assert_array_equal(trial.truth_latents[:, 0, 0, 0], back)
    np.testing.assert_array_equal(trial.context[:, 0, 0, 0], np.arange(20))
    np.testing.assert_array_equal(trial.conditions["pose"][0, :, 0], [*range(20), *back])
    np.testing.assert_array_equal(trial.conditions["action"][0, :20, 0], np.arange(20))
    assert trial.conditions["action"][0, 20:].isnan().all()  # no action walks back
    np.testing.assert_array_equal(trial.distance, 2 * np.arange(20) + 1)
    assert episode.actions[19, 0] == 19  # untouched


def test_retrieval_conditions_are_those_of_a_folded_clip_in_training(workspace: Any) -> None:
    from lssvwm_core.training.data.clips import ClipDataset, ClipSampling
    from lssvwm_datasets.shards import open_shards

    shards = open_shards(workspace / "data/maze", "train")
    always = ClipSampling(fold=1.0, reverse=0.0, drop_action=0.0, drop_pose=0.0)
    batch = ClipDataset(shards, STREAMS, always, [(1, 1, 40)], seed=0)[0]
    nans = batch["conditions"]["action"][0].isnan().any(dim=1)
    turn = int(nans.nonzero()[0])
    assert torch.equal(nans, torch.arange(40) >= turn)
    for rows in (batch["latents"][0], batch["conditions"]["pose"][0]):
        assert torch.equal(rows[turn:], rows[2 * turn - 40 : turn].flip(0))


def test_a_turn_ends_with_the_first_view_and_knows_actions_only(episode: EncodedEpisode) -> None:
    trial = make_trial(make_task("turn", 20).for_world(world()), 0, episode, world(), STREAMS)
    assert (trial.truth == 19).all()
    np.testing.assert_array_equal(trial.context[:, 0, 0, 0], np.arange(20))
    np.testing.assert_array_equal(trial.conditions["action"][0, :20, 0], np.arange(20))
    np.testing.assert_array_equal(trial.conditions["action"][0, 20:], [[0, 0, 1, 0, 0, 0]] * FULL_TURN)
    assert trial.conditions["pose"].isnan().all()
    np.testing.assert_array_equal(trial.distance, 1 + np.arange(FULL_TURN))


def test_reasoning_goes_on(episode: EncodedEpisode) -> None:
    trial = make_trial(make_task("reasoning", 30, 12), 0, episode, world(), STREAMS)
    np.testing.assert_array_equal(trial.truth[:, 0, 0, 0], np.arange(30, 42))
    assert trial.conditions.frames == 42
    np.testing.assert_array_equal(trial.conditions["action"][0, :42, 0], np.arange(42))


def test_the_way_back_is_compared_with_the_way_out(episode: EncodedEpisode) -> None:
    task = make_task("return", 30, 12)
    trial = make_trial(task, 0, episode, world(), STREAMS)
    out = [*range(30, 42)]
    np.testing.assert_array_equal(trial.conditions["pose"][0, :, 0], [*range(30), *out, *out[::-1]])
    np.testing.assert_array_equal(trial.conditions["action"][0, 30:42, 0], out)
    assert trial.conditions["action"][0, 42:].isnan().all()  # no action walks back
    generated = np.arange(24)[:, None, None, None] * np.ones((1, 2, 2, 3), np.uint8)
    back, truth = task.compared(generated, trial.truth)
    np.testing.assert_array_equal(back[:, 0, 0, 0], range(12, 24))
    np.testing.assert_array_equal(truth[:, 0, 0, 0], range(11, -1, -1))
    np.testing.assert_array_equal(trial.distance, 1 + 2 * np.arange(12))


def test_a_way_that_nobody_knows_is_refused(episode: EncodedEpisode) -> None:
    unknown = world(action_names=("fly", *"abcde"))  # no environment, so no kinematics after the recording's end
    with pytest.raises(LssvwmError, match="goes on for 30 frames after the context, and where 40 lead is not known"):
        make_trial(make_task("return", 30, 40), 0, episode, unknown, STREAMS)
    with pytest.raises(LssvwmError, match="has no poses"):
        make_trial(make_task("return", 30, 4), 0, dataclasses.replace(episode, poses=None), world(), STREAMS)


def test_how_near_a_place_is_to_what_was_seen(episode: EncodedEpisode) -> None:
    on = make_trial(make_task("reasoning", 30, 3), 0, episode, world(), STREAMS)
    np.testing.assert_allclose(on.nearest, 2 * np.arange(1, 4))  # every column of the pose counts up by 1
    back = make_trial(make_task("retrieval", 20, 20), 0, episode, world(), STREAMS)
    np.testing.assert_array_equal(back.nearest, 0)
    assert np.isnan(make_trial(make_task("turn", 20, 20), 0, episode, world(), STREAMS).nearest).all()


def test_without_frames_the_truth_is_what_the_latents_decode_to(episode: EncodedEpisode) -> None:
    trial = make_trial(make_task("reasoning", 30, 5), 0, dataclasses.replace(episode, frames=None), world(), STREAMS)
    assert not trial.exact
    np.testing.assert_array_equal(trial.truth[:, 0, 0, 0], np.arange(30, 35))


def test_places_are_cells_and_headings() -> None:
    def pose(x: float, y: float, degrees: float) -> list[float]:
        return [x, y, np.cos(np.radians(degrees)), np.sin(np.radians(degrees))]

    context = [pose(1.1, 1.1, 0), pose(1.9, 1.2, 90), pose(2.1, 1.1, 0), pose(1.5, 1.5, 350)]
    ahead = [pose(1.5, 1.9, 30), pose(1.5, 1.5, 60), pose(1.5, 1.5, 180), pose(2.9, 1.0, 44), pose(2.9, 1.0, 46)]
    poses = np.array(context + ahead, np.float32)
    plane = plane_of(NAMES)
    assert plane
    found = distance_to_seen(poses, plane, 4, 5)
    np.testing.assert_array_equal(found, [4 - 3, 5 - 1, np.nan, 7 - 2, np.nan])
    names = ("height", "sine", "north", "cosine", "east")
    turned = np.stack([np.arange(9), poses[:, 3], poses[:, 1], poses[:, 2], poses[:, 0]], axis=1)
    plane = plane_of(names, ("z", "sin", "y", "cos", "x"))
    assert plane
    np.testing.assert_array_equal(distance_to_seen(turned, plane, 4, 5), found)


def test_places_need_a_pose_of_the_maze_kind(episode: EncodedEpisode) -> None:
    trial = make_trial(make_task("reasoning", 30, 5), 0, episode, world(pose_names=("x", "y", "z", "yaw")), STREAMS)
    assert not trial.places_known
    assert np.isnan(trial.distance).all()


@pytest.mark.parametrize(
    ("task", "streams", "poses", "message"),
    [
        (make_task("retrieval", 20, 20), ("action",), (), "cannot be walked back"),
        (make_task("retrieval", 20, 20), ("action",), NAMES, "leads the world back by poses"),
        (make_task("retrieval", 20, 25), STREAMS, NAMES, "way back from 20 frames"),
        (make_task("turn", 20, 20), ("pose",), NAMES, "needs the action 'left' among --conditions"),
        (make_task("turn", 20, 30), STREAMS, NAMES, "a full turn takes 20"),
        (make_task("return", 20, 5), ("action",), NAMES, "leads the world back by poses"),
        (Task("reasoning", 0, 10), STREAMS, NAMES, "at least one frame to see"),
    ],
)
def test_tasks_that_do_not_fit_are_refused(
    task: Task, streams: tuple[str, ...], poses: tuple[str, ...], message: str
) -> None:
    with pytest.raises(LssvwmError, match=message):
        task.check(world(poses), streams)


def test_a_turn_needs_an_environment_that_turns() -> None:
    with pytest.raises(LssvwmError, match="mine: no environment that can turn on the spot has the actions fly, left"):
        make_task("turn").for_world(world(action_names=("fly", "left")))


def test_the_papers_lengths() -> None:
    tasks = {name: task.for_world(world()) for name, task in TASKS.items()}
    assert {name: (task.context, task.frames) for name, task in tasks.items()} == {
        "retrieval": (400, 400),
        "reasoning": (576, 224),
        "long": (240, 560),
        "turn": (100, 20),
        "return": (100, 300),
    }
    assert TASKS["return"].generated == 600
