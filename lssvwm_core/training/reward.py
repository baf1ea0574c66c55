"""Trains a reward head on the rewards of recordings: what a frame is worth, told from its latents.

Rewards are rare, so half of each batch are frames that have one; each counts as often as it occurs, so that what is
learnt is the expected reward all the same.
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from lssvwm_core.model.reward_head import RewardHead, RewardHeadConfig, save_reward_head
from lssvwm_core.prepare.encode import encode_frames
from lssvwm_core.training.gathering import Update, gathered
from lssvwm_core.training.heads import auc, descend
from lssvwm_core.world import World
from lssvwm_datasets.episode import Episode
from lssvwm_datasets.errors import LssvwmError
from lssvwm_datasets.files import write_json
from lssvwm_datasets.sources import Recording

LEARNING_RATE, WEIGHT_DECAY = 1e-3, 0.01
BATCH = 256  # frames
REPORT_EVERY = 50  # steps
RECIPE = "recipe.json"


@dataclass(frozen=True)
class RewardedFrames:
    """Frames beside those before them.

    Attributes:
        latents: (N + 1, C, h, w) float16, of episodes one after another.
        now: (F,) the number of each frame in `latents`; the frame before it has one less.
        rewards: (F,) float32.
    """

    latents: Tensor
    now: Tensor
    rewards: Tensor

    def pairs(self, rows: Tensor, device: torch.device) -> tuple[Tensor, Tensor]:
        """Latents before and now."""
        now = self.now[rows]
        return self.latents[now - 1].float().to(device), self.latents[now].float().to(device)


@dataclass(frozen=True)
class RewardReport:
    """How the head does: `loss` in training, then on held-out frames once it is trained.

    Attributes:
        rewarded, others: mean predicted reward of the held-out frames that have one, and of those that have none.
        auc: how often a frame with a reward is told from one without.
    """

    step: int
    loss: float | None = None
    rewarded: float | None = None
    others: float | None = None
    auc: float | None = None


def gather(recordings: list[Recording], split: str, world: World, update: Update) -> RewardedFrames:
    """The frames of a split's recordings, encoded; `update` is told how many recordings are. Raises: LssvwmError."""

    def encoded(episode: Episode) -> Iterator[tuple[Tensor, Tensor]]:
        if episode.rewards is not None:
            latents = encode_frames(world.autoencoder, np.concatenate(list(episode.frames)))
            yield torch.from_numpy(latents), torch.from_numpy(episode.rewards)

    parts = gathered(recordings, split, encoded, update)
    if not parts:
        raise LssvwmError(f"no rewards in the {split} split; lssvwm record maze records some")
    latents, rewards = (torch.cat(rows) for rows in zip(*parts, strict=True))
    follows = torch.cat([torch.arange(len(part)) > 0 for part, _ in parts])  # frames with one before them
    now = follows.nonzero().flatten()
    frames = RewardedFrames(latents, now, rewards[now])
    if not frames.rewards.any() or frames.rewards.all():
        raise LssvwmError(
            f"{len(frames.rewards)} frames of the {split} split, and {int((frames.rewards != 0).sum())} have a reward; "
            "expected frames with and without: record more episodes"
        )
    return frames


def train_reward_head(
    train: RewardedFrames, held_out: RewardedFrames, world: World, out: Path, steps: int, seed: int
) -> Iterator[RewardReport]:
    """Train a head and write it to `out`, yielding reports; the last one is of the held-out frames."""
    generator = torch.Generator().manual_seed(seed)
    config = RewardHeadConfig(world.model.config.latent_shape, world.header.autoencoder_sha256)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        head = RewardHead(config).to(world.device)
    some, none = (train.rewards != 0).nonzero().flatten(), (train.rewards == 0).nonzero().flatten()
    half = BATCH // 2
    weights = torch.tensor([len(some)] * half + [len(none)] * half, device=world.device) * (2 / len(train.rewards))

    def next_loss() -> Tensor:
        rows = torch.cat([kind[torch.randint(len(kind), (half,), generator=generator)] for kind in (some, none)])
        predicted = head(*train.pairs(rows, world.device))
        return (weights * (predicted - train.rewards[rows].to(world.device)).square()).mean()

    for step, loss in descend(head, next_loss, steps, LEARNING_RATE, WEIGHT_DECAY):
        if step % REPORT_EVERY == 0 or step == steps:
            yield RewardReport(step, loss)
    report = evaluate(head, held_out, world.device, steps)
    save_reward_head(out, head)
    facts = {"steps": steps, "seed": seed, "train_frames": len(train.rewards), "train_rewards": len(some)}
    write_json(out / RECIPE, facts | asdict(report))
    yield report


@torch.inference_mode()
def evaluate(head: RewardHead, frames: RewardedFrames, device: torch.device, step: int) -> RewardReport:
    """The head on held-out frames."""
    parts = torch.arange(len(frames.rewards)).split(BATCH)
    predicted = torch.cat([head(*frames.pairs(rows, device)).cpu() for rows in parts])
    some = frames.rewards != 0
    told = auc(predicted, some)
    return RewardReport(step, None, predicted[some].mean().item(), predicted[~some].mean().item(), told)
