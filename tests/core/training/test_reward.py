"""A reward is learnt from recordings, as a user learns it, and worlds give it."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from lssvwm_cli.app import app
from lssvwm_core.model.reward_head import RewardHeadConfig, load_reward_head
from lssvwm_core.training.reward import RewardedFrames, train_reward_head
from lssvwm_core.world import load_world
from lssvwm_datasets.errors import LssvwmError

GOLDEN = Path(__file__).parents[2] / "golden"
SHAPE = (4, 4, 4)


def frames(seed: int) -> RewardedFrames:
    """Latents in which a jump of the first channel is worth 1: what the change of a colour is to the maze."""
    generator = torch.Generator().manual_seed(seed)
    jumps = torch.rand(2000, generator=generator) < 0.02
    latents = torch.randn(2001, *SHAPE, generator=generator) * 0.3
    latents[1:, 0] += 2.0 * (jumps.cumsum(0) % 2)[:, None, None]
    return RewardedFrames(latents.half(), torch.arange(1, 2001), jumps.float())


def test_rare_rewards_are_learnt_at_their_own_scale(tmp_path: Path) -> None:
    world = load_world(GOLDEN / "runs/test", "cpu")
    *_, report = train_reward_head(frames(0), frames(1), world, tmp_path, 300, 0)
    assert report.auc is not None
    assert report.auc > 0.95
    assert report.rewarded is not None
    assert report.others is not None
    assert report.rewarded > 0.4
    assert abs(report.others) < 0.1
    head = load_reward_head(tmp_path)
    assert head.config == RewardHeadConfig(SHAPE, world.header.autoencoder_sha256)
    with torch.inference_mode():
        again = head(*frames(1).pairs(torch.arange(5), world.device))
    assert again.shape == (5,)


def test_the_command_learns_from_recordings(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for split, rewards in (("train", [3, 7]), ("eval", [5])):
        (tmp_path / "recordings" / split).mkdir(parents=True)
        reward = np.zeros(10)
        reward[rewards] = 1
        np.savez(
            tmp_path / "recordings" / split / "a.npz",
            image=rng.integers(0, 255, (10, 64, 64, 3), np.uint8),
            action=np.eye(6)[rng.integers(0, 6, 10)],
            agent_pos=rng.random((10, 2)),
            agent_dir=rng.random((10, 2)),
            reward=reward,
        )
    out = tmp_path / "head"
    command = ["train-reward", str(tmp_path / "recordings"), "--out", str(out), "--steps", "2", "--json"]
    done = CliRunner().invoke(app, [*command, "--checkpoint", str(GOLDEN / "runs/test")])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["step"] == 2
    facts = json.loads((out / "recipe.json").read_text())
    assert facts["train_rewards"] == 2
    assert load_reward_head(out).config.latent_shape == SHAPE
    np.savez(
        tmp_path / "recordings/eval/a.npz",
        image=rng.integers(0, 255, (10, 64, 64, 3), np.uint8),
        action=np.eye(6)[rng.integers(0, 6, 10)],
        agent_pos=rng.random((10, 2)),
        agent_dir=rng.random((10, 2)),
    )
    failed = CliRunner().invoke(app, [*command, "--checkpoint", str(GOLDEN / "runs/test")])
    assert isinstance(failed.exception, LssvwmError)
    assert "no rewards in the validation split" in str(failed.exception)


@pytest.mark.parametrize("reward", [np.zeros(3), np.full(10, np.nan)])
def test_rewards_that_do_not_fit_are_damage(reward: np.ndarray, tmp_path: Path) -> None:
    from lssvwm_datasets.errors import DamagedRecording
    from lssvwm_datasets.memory_maze.reader import read

    images = np.zeros((10, 64, 64, 3), np.uint8)
    np.savez(tmp_path / "a.npz", image=images, action=np.zeros(10, int), reward=reward)
    with pytest.raises(DamagedRecording, match="reward has shape"):
        next(read(tmp_path / "a.npz", "a"))
