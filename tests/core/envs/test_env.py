"""A world as an environment: gymnasium's own checks, a batch that is as worlds alone, and moments to go on from."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

gymnasium = pytest.importorskip("gymnasium")

from gymnasium.utils.env_checker import check_env  # noqa: E402
from gymnasium.vector import SyncVectorEnv  # noqa: E402

from lssvwm_core import World, load_world  # noqa: E402
from lssvwm_core.gym import Imagined, WorldEnv, WorldVectorEnv, load_reward  # noqa: E402
from lssvwm_core.gym.spaces import action_space, choices  # noqa: E402
from lssvwm_core.model.reward_head import RewardHead, RewardHeadConfig, save_reward_head  # noqa: E402
from lssvwm_datasets.errors import LssvwmError  # noqa: E402

GOLDEN = Path(__file__).parents[2] / "golden"


@pytest.fixture(scope="module")
def world() -> World:
    return load_world(GOLDEN / "runs/test", "cpu").sampled_with(steps=1)


def brightness(step: Imagined) -> np.ndarray:
    return step.frames[:, -1].mean(axis=(1, 2, 3)) / 255


def settings(world: World, **more: Any) -> dict[str, Any]:
    return {"world": world, "source": GOLDEN / "data/maze", "context": 20, "steps": 4, "reward": brightness} | more


@pytest.mark.filterwarnings("error")
def test_gymnasium_finds_nothing_wrong(world: World) -> None:
    check_env(WorldEnv(**settings(world, render_mode="rgb_array")).unwrapped, skip_render_check=True)
    made = gymnasium.make("lssvwm_core.gym:lssvwm/World-v0", **settings(world, render_mode="rgb_array"))
    frame, _ = made.reset(seed=1)
    assert np.array_equal(made.render(), frame)


def test_a_batch_is_as_worlds_one_by_one(world: World) -> None:
    """Observations, rewards, ends, new beginnings and infos, over episodes that end at different times."""
    together = gymnasium.make_vec("lssvwm_core.gym:lssvwm/World-v0", num_envs=3, **settings(world))
    assert isinstance(together, WorldVectorEnv)
    alone = SyncVectorEnv([lambda: WorldEnv(**settings(world)) for _ in range(3)])
    for name in ("observation_space", "action_space", "single_observation_space", "single_action_space"):
        assert getattr(together, name) == getattr(alone, name)
    assert together.metadata["autoreset_mode"] == alone.metadata["autoreset_mode"]
    together.action_space.seed(0)
    found, expected = together.reset(seed=5), alone.reset(seed=5)
    assert not np.array_equal(found[0][0], found[0][1]), "worlds of their own"
    ends = []
    for turn in range(12):
        assert found[0] in together.observation_space
        for ours, theirs in zip(found[:-1], expected[:-1], strict=True):
            assert np.asarray(ours).dtype == np.asarray(theirs).dtype
            assert np.abs(np.float64(ours) - np.float64(theirs)).max() <= 2
        assert found[-1].keys() == expected[-1].keys() == {"pose", "_pose"}
        assert np.array_equal(found[-1]["pose"], expected[-1]["pose"])
        if turn == 2:  # from here on the first world is a step ahead
            moment = together.branch(1)
            assert np.array_equal(moment.place.pose, found[-1]["pose"][1])
        actions = together.action_space.sample()
        found, expected = together.step(actions), alone.step(actions)
        ends.append(found[3].copy())
    assert sum(end.any() for end in ends) == 2, "after 4 steps, and after the 5 of an episode and its beginning"


def test_a_moment_goes_on_the_same_way_again(world: World, tmp_path: Path) -> None:
    env = WorldEnv(**settings(world))
    env.reset(seed=3, options={"episode": 0, "context": 30})
    env.step(1)
    moment, file = env.branch(), tmp_path / "moment.safetensors"
    env.save(file)
    expected = [env.step(action)[0] for action in (1, 2, 0)]
    for state in (moment, moment, file, str(file)):
        env.reset(options={"state": state})
        assert all(np.array_equal(env.step(a)[0], frame) for a, frame in zip((1, 2, 0), expected, strict=True))
    env.reset(seed=9, options={"state": moment})
    assert not np.array_equal(env.step(1)[0], expected[0]), "a seed is other noise"
    vector = WorldVectorEnv(2, **settings(world))
    vector.reset(options={"state": moment})
    frames = vector.step(np.array([1, 2]))[0]
    assert np.abs(frames[0].astype(int) - expected[0]).max() <= 2


def test_an_action_may_lead_to_a_whole_chunk(world: World) -> None:
    env = WorldEnv(**settings(world, chunk=5))
    env.reset(seed=0)
    before = env.imagination.rollout.frames_seen
    pose = env.step(2)[-1]["pose"]
    assert env.imagination.rollout.frames_seen == before + 5
    env.reset(seed=0)
    single = WorldEnv(**settings(world, chunk=1, steps=9))
    single.reset(seed=0)
    assert np.allclose([single.step(2)[-1]["pose"] for _ in range(5)][-1], pose)


def test_poses_may_be_kept_from_the_world(world: World) -> None:
    env = WorldEnv(**settings(world, actions_only=True))
    env.reset(seed=0)
    env.step(1)
    assert bool(env.imagination.rollout.recent.conditions["pose"].isnan().all())


def test_spaces_follow_the_columns_of_the_actions(world: World) -> None:
    def with_units(*units: str) -> World:
        header = replace(world.header, dataset="other", action_names=units, action_units=units, pose_names=())
        return replace(world, header=header)

    assert action_space(world) == gymnasium.spaces.Discrete(6)
    keys = with_units("binary", "binary")
    assert action_space(keys) == gymnasium.spaces.MultiBinary(2)
    mouse = with_units("binary", "degrees")
    space = action_space(mouse)
    assert space.low.tolist() == [0, -180]
    assert space.high.tolist() == [1, 180]
    assert choices(mouse, np.array([[0.7, 12.5]])).rows.tolist() == [[1, 12.5]]
    for given in (np.array([7]), np.array([-1]), np.array([0.5])):
        with pytest.raises(ValueError, match="whole numbers from 0 to 5"):
            choices(world, given)
    with pytest.raises(ValueError, match="expected 2 finite columns"):
        choices(mouse, np.array([[0.0, np.nan]]))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"context": 3}, "at least 10 frames, the attention window"),
        ({"context": 5000}, "has 1001 frames|has [0-9]+ frames"),
        ({"episode": 99}, "validation episodes 0"),
        ({"contexts": 30}, "contexts: unknown; expected some of context, episode, state"),
        ({"state": "x", "context": 30}, "leave context and episode out"),
    ],
)
def test_options_that_do_not_fit_are_told(world: World, options: dict[str, Any], message: str) -> None:
    with pytest.raises(LssvwmError, match=message):
        WorldEnv(**settings(world)).reset(seed=0, options=options)


def test_a_reward_head_is_a_reward(world: World, tmp_path: Path) -> None:
    """As the sum over the frames of a chunk; and only for latents that it was trained on."""
    torch.manual_seed(0)
    config = RewardHeadConfig(world.model.config.latent_shape, world.header.autoencoder_sha256)
    save_reward_head(tmp_path / "head", RewardHead(config))
    rewards = {}
    for chunk in (1, 5):
        env = WorldEnv(**settings(world, reward=tmp_path / "head", chunk=chunk))
        env.reset(seed=0)
        rewards[chunk] = env.step(1)[1]
    assert all(np.isfinite(value) and value != 0 for value in rewards.values())
    save_reward_head(tmp_path / "other", RewardHead(replace(config, autoencoder_sha256="0" * 64)))
    with pytest.raises(LssvwmError, match="another autoencoder"):
        load_reward(tmp_path / "other", world)
