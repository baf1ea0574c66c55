"""Trains a sight head on recordings that know where the targets are, and the map."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from lssvwm_core.model.sight_head import SightHead, SightHeadConfig
from lssvwm_core.prepare.encode import encode_frames
from lssvwm_core.training.gathering import Update, gathered
from lssvwm_core.training.heads import auc, descend
from lssvwm_core.world import World
from lssvwm_datasets.episode import Episode
from lssvwm_datasets.errors import LssvwmError
from lssvwm_datasets.poses import plane_of
from lssvwm_datasets.sources import Recording

FARTHEST, HALF_ANGLE = 4.0, math.radians(37)  # cells, and to either side: beyond them a target is out of sight
STEP = 0.1  # cells, along a line of sight
LEARNING_RATE, WEIGHT_DECAY, BATCH, NOISE = 1e-3, 0.05, 256, 0.3  # noise: imagined latents are not as clean
PLACE_WEIGHT = 0.1  # of the loss in places beside the one in being seen
REPORT_EVERY = 50  # steps


@dataclass(frozen=True)
class Sights:
    """Frames and what is in sight.

    Attributes:
        latents: (F, C, h, w) float16.
        seen: (F, K) bool.
        places: (F, K, 2) float32, units ahead and to the left.
    """

    latents: Tensor
    seen: Tensor
    places: Tensor


def gather(recordings: list[Recording], split: str, world: World, update: Update) -> Sights:
    """The frames of a split's recordings, encoded; `update` is told how many recordings are. Raises: LssvwmError."""

    def encoded(episode: Episode) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        if (found := in_sight(episode)) is not None:
            latents = encode_frames(world.autoencoder, np.concatenate(list(episode.frames)))
            seen, places = map(torch.from_numpy, found)
            yield torch.from_numpy(latents), seen, places

    parts = gathered(recordings, split, encoded, update)
    if len({part[1].shape[1] for part in parts}) != 1:
        raise LssvwmError(
            f"the {split} split has no recordings with poses, a map, and as many targets each; "
            "lssvwm record maze records such"
        )
    return Sights(*(torch.cat(rows) for rows in zip(*parts, strict=True)))


def in_sight(episode: Episode) -> tuple[NDArray[np.bool_], NDArray[np.float32]] | None:
    """Which targets are in sight (T, K), and where they are (T, K, 2), ahead and to the left; None where unknown."""
    plane = plane_of(episode.pose_names, episode.pose_kinds)
    if episode.poses is None or episode.targets is None or episode.layout is None or plane is None:
        return None
    x, y, cos, sin = (episode.poses[:, column, None] for column in (plane.x, plane.y, plane.cos, plane.sin))
    to_x, to_y = episode.targets[:, 0] - x, episode.targets[:, 1] - y  # (T, K)
    ahead, left = to_x * cos + to_y * sin, to_y * cos - to_x * sin
    seen = (np.hypot(ahead, left) < FARTHEST) & (ahead > 0) & (np.abs(left) < math.tan(HALF_ANGLE) * ahead)
    for row, target in np.argwhere(seen):
        seen[row, target] = is_clear(episode.layout, (x[row, 0], y[row, 0]), tuple(episode.targets[target]))
    return seen, np.stack([ahead, left], axis=-1).astype(np.float32)


def is_clear(layout: NDArray[np.uint8], start: tuple[float, float], stop: tuple[float, ...]) -> bool:
    """Whether no wall of the map (1 = free, indexed [y, x]) lies between two places."""
    steps = max(2, math.ceil(math.hypot(stop[0] - start[0], stop[1] - start[1]) / STEP))
    xs, ys = (np.linspace(start[axis], stop[axis], steps).astype(int) for axis in (0, 1))
    inside = (xs >= 0) & (ys >= 0) & (xs < layout.shape[1]) & (ys < layout.shape[0])
    return bool(inside.all() and layout[ys, xs].all())


def new_sight_head(sights: Sights, world: World, seed: int) -> SightHead:
    """A head that has learnt nothing yet; the same seed, the same weights."""
    shape, sha256 = world.model.config.latent_shape, world.header.autoencoder_sha256
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return SightHead(SightHeadConfig(shape, sha256, sights.seen.shape[1])).to(world.device)


def train_sight_head(
    head: SightHead, sights: Sights, device: torch.device, steps: int, seed: int
) -> Iterator[tuple[int, float]]:
    """Train a head in place, yielding (step, loss) every some steps."""
    generator = torch.Generator().manual_seed(seed)

    def next_loss() -> Tensor:
        rows = torch.randint(len(sights.latents), (BATCH,), generator=generator)
        latents = sights.latents[rows].float()
        latents += NOISE * torch.randn(latents.shape, generator=generator)
        logits, places = head(latents.to(device))
        seen, true_places = sights.seen[rows].to(device), sights.places[rows].to(device)
        loss = F.binary_cross_entropy_with_logits(logits, seen.float())
        if seen.any():
            loss = loss + PLACE_WEIGHT * F.smooth_l1_loss(places[seen], true_places[seen])
        return loss

    for step, mean in descend(head, next_loss, steps, LEARNING_RATE, WEIGHT_DECAY):
        if step % REPORT_EVERY == 0 or step == steps:
            yield step, mean


@torch.inference_mode()
def told_apart(head: SightHead, sights: Sights, device: torch.device) -> float:
    """How often a target in sight is told from one out of sight."""
    logits = torch.cat([head(part.float().to(device)).logits.cpu() for part in sights.latents.split(BATCH)]).flatten()
    return auc(logits, sights.seen.flatten())
