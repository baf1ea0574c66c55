"""A search over remembered places: where in what it has seen would the world show a target?

The world imagines the view from many poses that the agent has stood at, as a batch, each from a copy of the same
memory. A sight head says of every view which targets are in it and where; together they vote for cells of the map. The
agent keeps no frames: what it does not remember by the world's state, it does not know.
"""

import numpy as np
import torch
from numpy.typing import NDArray

from lssvwm_core.conditions import Conditions
from lssvwm_core.model.sight_head import SightHead
from lssvwm_core.rollout import Rollout
from lssvwm_datasets.poses import Plane

EVERY = 8  # frames between poses that are looked from
TOGETHER = 16  # views imagined at once
SPREAD = 0.7  # cells, of a vote


def imagined_views(rollout: Rollout, poses: NDArray[np.float32], seed: int) -> torch.Tensor:
    """The view from each of M poses as the world imagines it now, (M, C, h, w) latents; the rollout stays as it is.

    Args:
        poses: (M, c, P), a chunk that ends at each pose.
    """
    views, count = [], min(TOGETHER, len(poses))
    imagined = Rollout.joined([rollout.of_world(0)] * count)
    for first in range(0, len(poses), count):
        start = min(first, len(poses) - count)  # the last batch is as large as any: some poses are looked from again
        imagined.reseed(*range(seed + start, seed + start + count))
        seen = imagined.sample(Conditions(pose=poses[start : start + count])).latents[:, -1]
        views.append(seen[first - start :])
    return torch.cat(views)


@torch.inference_mode()
def votes(
    head: SightHead, views: torch.Tensor, poses: NDArray[np.float32], plane: Plane, side: int, least: float = 0.0
) -> NDArray[np.float64]:
    """How strongly views (M, C, h, w) from poses (M, P) speak for a cell: (K, side, side), indexed [target, y, x].

    A view's vote is the square of its probability, so that many vague ones count for less than a clear one, and nothing
    where that is below `least`.
    """
    logits, seen_at = head(views)
    seen, ahead_left = logits.sigmoid().double().cpu().numpy(), seen_at.double().cpu().numpy()
    weights = np.where(seen < least, 0.0, seen**2)
    x, y = places_on_map(poses, ahead_left, plane)  # (M, K) each
    return np.einsum("mk,mkyx->kyx", weights, around(x, y, side))


def around(x: NDArray[np.floating], y: NDArray[np.floating], side: int) -> NDArray[np.float64]:
    """How near each cell is to places: (…) each -> (…, side, side) in [0, 1], indexed [y, x]."""
    centres = np.arange(side) + 0.5
    near_x, near_y = (np.exp(-(((at[..., None] - centres) / SPREAD) ** 2) / 2) for at in (x, y))
    return near_y[..., :, None] * near_x[..., None, :]


def places_on_map(
    poses: NDArray[np.float32], ahead_left: NDArray[np.float64], plane: Plane
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Places (M, K, 2) ahead and to the left of agents at poses (M, P) -> their x and y on the map, (M, K) each."""
    x, y, cos, sin = (poses[:, column, None] for column in (plane.x, plane.y, plane.cos, plane.sin))
    ahead, left = ahead_left[..., 0], ahead_left[..., 1]
    return x + ahead * cos - left * sin, y + ahead * sin + left * cos
