"""Which length scales a memory by least squares is to have: those under which the recordings are likeliest.

The memory is a Gaussian process of what is seen over the pose (`lssvwm_core.model.recall`), so its marginal likelihood
(Rasmussen and Williams, 2006, eq. 2.30) tells how far apart two poses may be before they show different things.
"""

import math

import numpy as np
import torch
from torch import Tensor

from lssvwm_core.model.config import ModelConfig
from lssvwm_core.model.recall import Recall
from lssvwm_datasets.shards import ShardSet, StoredEpisode

SHORTEST = (0.05, 0.1, 0.2, 0.4, 0.8)
RATIOS = (5.0, 10.0, 20.0)  # of the longest scale to the shortest
CLIPS, FRAMES = 4, 400

Lengths = tuple[float, float]


def fit_recall_lengths(shards: ShardSet, config: ModelConfig) -> Lengths:
    """The likeliest pair of `ModelConfig.recall_lengths`; those of `config` where the shards know no poses."""
    clips = [clip for episode in shards.episodes[:CLIPS] if (clip := _clip(shards, episode)) is not None]
    if not clips:
        return config.recall_lengths
    candidates = [(shortest, ratio * shortest) for shortest in SHORTEST for ratio in RATIOS]
    return max(candidates, key=lambda lengths: sum(_likelihood(config, lengths, *clip) for clip in clips))


def _clip(shards: ShardSet, episode: StoredEpisode) -> tuple[Tensor, Tensor] | None:
    """Poses (T, P) and values (T, C·h·w), float64, of the frames of an episode whose poses are known."""
    frames = min(FRAMES, episode.length)
    poses, latents = (shards.read(episode, name, 0, frames) for name in ("poses", "latents"))
    if poses is None or latents is None:
        return None
    known = np.isfinite(poses).all(axis=1)
    values = torch.from_numpy(latents[known].astype(np.float64)).flatten(1)
    return (torch.from_numpy(poses[known]), values) if len(values) > 1 else None


def _likelihood(config: ModelConfig, lengths: Lengths, poses: Tensor, values: Tensor) -> float:
    """Log marginal likelihood of a value, but for a constant, at the likeliest scale of the values."""
    memory = Recall(poses.shape[1], config.latent_shape, config.recall, lengths, config.recall_ridge)
    prior = memory.gram(poses) + config.recall_ridge * torch.eye(len(poses), dtype=torch.float64)
    factor = torch.linalg.cholesky(prior)
    white = torch.linalg.solve_triangular(factor, values - values.mean(dim=0), upper=False)
    return -float(factor.diagonal().log().mean()) - 0.5 * math.log(float(white.square().mean()))
