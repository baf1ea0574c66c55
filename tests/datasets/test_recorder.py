"""The recorder against the untouched environment. Needs the `maze` extra and OpenGL."""

from pathlib import Path

import numpy as np
import pytest

from lssvwm_datasets.errors import LssvwmError
from lssvwm_datasets.memory_maze.environment import load_tasks, make_environment
from lssvwm_datasets.memory_maze.reader import read
from lssvwm_datasets.memory_maze.recorder import OBSERVED, plan, record_all, record_episode

try:
    load_tasks()
    MISSING = ""
except LssvwmError as error:
    MISSING = str(error)
needs_environment = pytest.mark.skipif(bool(MISSING), reason=MISSING or "there")


@needs_environment
def test_observations_are_those_of_the_untouched_environment_bit_for_bit() -> None:
    recorded = record_episode("9x9", seed=5, steps=40)
    environment = make_environment("9x9", seed=5)
    try:
        timestep = environment.reset()
        for step in range(41):
            if step > 0:
                timestep = environment.step(int(recorded["action"][step].argmax()))
            for key in OBSERVED:
                np.testing.assert_array_equal(recorded[key][step], timestep.observation[key], err_msg=f"{key} {step}")
    finally:
        environment.close()


@needs_environment
def test_a_recorded_state_renders_its_frame_again() -> None:
    recorded = record_episode("9x9", seed=6, steps=20)
    environment = make_environment("9x9", seed=6)
    try:
        environment.reset()
        physics = environment.physics
        for step in (3, 20, 11):
            physics.data.qpos[:] = recorded["sim_qpos"][step]
            physics.data.qvel[:] = 0
            physics.forward()
            picture = physics.render(64, 64, camera_id="walker/egocentric")
            np.testing.assert_array_equal(picture[2:-2, 2:-2], recorded["image"][step][2:-2, 2:-2])
    finally:
        environment.close()


@needs_environment
def test_recording_resumes_and_reads_back(tmp_path: Path) -> None:
    requests = plan(tmp_path, "9x9", train_episodes=1, eval_episodes=1, steps=10, seed=3)
    requests[0].path.parent.mkdir(parents=True)
    requests[0].path.write_bytes(b"there already")
    assert [request.seed for request in record_all(requests, jobs=1)] == [1_000_003]
    assert requests[0].path.read_bytes() == b"there already"
    (episode,) = read(requests[1].path, "a")
    assert episode.frames.shape == (11, 64, 64, 3)
    first = requests[1].path.read_bytes()
    requests[1].path.unlink()
    list(record_all(requests, jobs=1))
    assert requests[1].path.read_bytes() == first, "an episode is a function of its seed"


def test_splits_have_seeds_of_their_own(tmp_path: Path) -> None:
    requests = plan(tmp_path, "9x9", 5, 3, 100, seed=7)
    seeds = {folder: {r.seed for r in requests if r.path.parent.name == folder} for folder in ("train", "eval")}
    assert seeds == {"train": {7, 8, 9, 10, 11}, "eval": {1_000_007, 1_000_008, 1_000_009}}


@pytest.mark.parametrize(("size", "steps", "seed"), [("10x10", 10, 0), ("9x9", 1001, 0), ("9x9", 10, 999_999)])
def test_impossible_requests_are_refused(tmp_path: Path, size: str, steps: int, seed: int) -> None:
    with pytest.raises(LssvwmError):
        plan(tmp_path, size, 2, 1, steps, seed)
