"""The recorder against the untouched environment. What needs the `maze` extra and OpenGL is skipped without them."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from lssvwm_datasets.errors import LssvwmError
from lssvwm_datasets.memory_maze.environment import fast_physics, load_tasks, make_environment
from lssvwm_datasets.memory_maze.reader import read
from lssvwm_datasets.memory_maze.recorder import OBSERVED, RECORDER, record_episode
from lssvwm_datasets.recorder import plan, record_all

Arrays = dict[str, NDArray[Any]]

SEED, STEPS = 500_002, 42  # a target is reached at step 37


@pytest.fixture(scope="module")
def environment_loads() -> None:
    try:
        load_tasks()
    except LssvwmError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def recorded(environment_loads: None) -> Arrays:
    return record_episode("9x9", SEED, STEPS)


@pytest.fixture(scope="module")
def replayed(recorded: Arrays) -> Iterator[tuple[Any, list[Any]]]:
    """An untouched environment after the recorded actions, and its time steps."""
    environment = make_environment("9x9", SEED)

    def kept(timestep: Any) -> Any:
        return timestep._replace(observation={key: np.array(timestep.observation[key]) for key in OBSERVED})

    try:
        timesteps = [kept(environment.reset())]
        timesteps += [kept(environment.step(int(action.argmax()))) for action in recorded["action"][1:]]
        yield environment, timesteps
    finally:
        environment.close()


def test_observations_are_those_of_the_untouched_environment_bit_for_bit(
    recorded: Arrays, replayed: tuple[Any, list[Any]]
) -> None:
    assert recorded["reward"].any(), "the fast check of contacts is put to the test"
    for step, timestep in enumerate(replayed[1]):
        for key in OBSERVED:
            np.testing.assert_array_equal(recorded[key][step], timestep.observation[key], err_msg=f"{key} {step}")
        assert recorded["reward"][step] == (timestep.reward or 0)


def test_a_recorded_state_renders_its_frame_again(recorded: Arrays, replayed: tuple[Any, list[Any]]) -> None:
    physics = replayed[0].physics
    for step in (STEPS, 3, 20, 0):
        physics.data.qpos[:] = recorded["sim_qpos"][step]
        physics.data.qvel[:] = 0
        physics.forward()
        picture = np.empty((64, 64, 3), np.uint8)
        picture[:] = (recorded["target_color"][step] * 255 * 0.7).astype(np.uint8)  # the border
        picture[2:-2, 2:-2] = physics.render(64, 64, camera_id="walker/egocentric")[2:-2, 2:-2]
        np.testing.assert_array_equal(picture, recorded["image"][step], err_msg=f"frame {step}")


def test_an_episode_has_the_layout_of_the_offline_dataset(recorded: Arrays) -> None:
    assert list(recorded) == [*OBSERVED, "action", "reward", "terminal", "reset", "sim_qpos"]
    assert {len(array) for array in recorded.values()} == {STEPS + 1}
    assert (recorded["image"].dtype, recorded["image"].shape[1:]) == (np.uint8, (64, 64, 3))
    assert recorded["maze_layout"].shape[1:] == (9, 9)
    np.testing.assert_array_equal(recorded["action"].sum(axis=1), [0] + [1] * STEPS)
    np.testing.assert_array_equal(np.flatnonzero(recorded["reset"]), [0])
    assert not recorded["terminal"].any()


@pytest.mark.usefixtures("environment_loads")
def test_the_environment_is_left_untouched() -> None:
    from dm_control.locomotion.props.target_sphere import TargetSphere
    from dm_control.mujoco.engine import Physics

    def functions() -> list[Any]:
        return [Physics.render, Physics.free, TargetSphere._update_activation]

    stock = functions()
    with fast_physics():
        assert not set(functions()) & set(stock)
    assert functions() == stock


@pytest.mark.usefixtures("environment_loads")
def test_recording_resumes_and_an_episode_is_a_function_of_its_seed(tmp_path: Path) -> None:
    requests = plan(RECORDER, tmp_path, train_episodes=1, eval_episodes=1, steps=5, seed=3)
    there, missing = requests
    there.path.parent.mkdir(parents=True)
    there.path.write_bytes(b"there already")
    assert list(record_all(RECORDER, requests, jobs=1)) == [missing]
    assert there.path.read_bytes() == b"there already"
    (episode,) = read(missing.path, "a")
    assert (episode.length, episode.frame_size) == (6, (64, 64))
    assert list(record_all(RECORDER, requests, jobs=1)) == []
    first = missing.path.read_bytes()
    missing.path.unlink()
    list(record_all(RECORDER, requests, jobs=1))
    assert missing.path.read_bytes() == first


def test_splits_have_seeds_of_their_own(tmp_path: Path) -> None:
    requests = plan(RECORDER, tmp_path, train_episodes=5, eval_episodes=3, steps=100, seed=7)
    seeds = {folder: {r.seed for r in requests if r.path.parent.name == folder} for folder in ("train", "eval")}
    assert seeds == {"train": {7, 8, 9, 10, 11}, "eval": {1_000_007, 1_000_008, 1_000_009}}
    assert len({request.path for request in requests}) == 8
    last = plan(RECORDER, tmp_path, train_episodes=2, eval_episodes=2, steps=100, seed=999_998)
    assert len({request.seed for request in last}) == 4, "the last seeds of train do not reach into eval"


@pytest.mark.parametrize(
    ("size", "steps", "seed", "message"),
    [
        ("10x10", 10, 0, "--size 10x10: expected one of 9x9, 11x11"),
        ("9x9", 0, 0, "--steps 0"),
        ("9x9", 1001, 0, "1 to 1000"),
        ("15x15", 4001, 0, "1 to 4000"),
        ("9x9", 10, 999_999, "seed 999999"),
        ("9x9", 10, -1, "seed -1"),
    ],
)
def test_impossible_requests_are_refused(tmp_path: Path, size: str, steps: int, seed: int, message: str) -> None:
    with pytest.raises(LssvwmError, match=message):
        plan(RECORDER, tmp_path, train_episodes=2, eval_episodes=1, steps=steps, seed=seed, size=size)


def test_how_far_one_sees_is_asked_of_what_can_be_asked(tmp_path: Path) -> None:
    sees = replace(RECORDER, views=(16, 96), view=48)
    for view, expected in ((None, 48), (16, 16), (96, 96)):
        (request,) = plan(sees, tmp_path, train_episodes=1, eval_episodes=0, steps=5, view=view)
        assert request.view == expected
    for recorder, view, message in (
        (sees, 15, "expected 16 to 96"),
        (sees, 97, "16 to 96"),
        (RECORDER, 48, "cannot be"),
    ):
        with pytest.raises(LssvwmError, match=f"--view.*{message}"):
            plan(recorder, tmp_path, train_episodes=1, eval_episodes=0, steps=5, view=view)
