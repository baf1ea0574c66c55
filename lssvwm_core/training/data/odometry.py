"""How actions move the agent, by least squares over the recordings: what a model's odometer knows.

A step is the sum of what the last actions do, and of what successive actions do together: who walks turns less.
"""

import itertools
from typing import Any

import numpy as np
import torch
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from lssvwm_core.model.odometer import features
from lssvwm_datasets.poses import Plane, plane_of
from lssvwm_datasets.shards import ShardSet

LAGS = 4  # actions that a step depends on: at the maze's 4 Hz, turns coast for one or two
PAIRS = 2  # of successive actions that do something together: the latest with the one before, that with the next
EPISODES = 100  # at most
MOST_COLUMNS = 12  # of an action, for which pairs are fitted: there are twice as many as their square
TRIMMINGS, SPREAD = 5, 2.5  # steps further from the fit than so many standard deviations were stopped by a wall

Odometry = tuple[tuple[float, ...], ...]


def odometry_fields(shards: ShardSet) -> dict[str, Any]:
    """The fields of a model's config that tell of its odometer."""
    odometry = fit_odometry(shards)
    return {"odometry": odometry, "odometry_pairs": pairs_of(shards) if odometry else 0}


def pairs_of(shards: ShardSet) -> int:
    """How many pairs of successive actions are fitted."""
    return PAIRS if len(shards.header.action_names) <= MOST_COLUMNS else 0


def fit_odometry(shards: ShardSet) -> Odometry:
    """What the last actions add to a step, as `motions_between` measures it: see `lssvwm_core.model.odometer`.

    (LAGS · A + pairs · A², P - 1), first for each column of each action, then for each two of each pair. Empty where
    the shards lack actions, or poses with a position on the ground and a heading, or where none of these is known.
    """
    plane = plane_of(shards.header.pose_names, shards.header.pose_kinds)
    if plane is None or not shards.header.action_names:
        return ()
    known, motions = [], []
    for episode in itertools.islice(shards.episodes, EPISODES):
        actions, poses = shards.read(episode, "actions"), shards.read(episode, "poses")
        assert actions is not None  # every shard has them
        assert poses is not None  # the header names them
        padded = np.pad(actions, ((LAGS - 1, 0), (0, 0)))
        recent = sliding_window_view(padded, LAGS, axis=0)[..., ::-1].swapaxes(1, 2)  # (T, LAGS, A), the latest first
        known.append(features(torch.from_numpy(recent.copy()), pairs_of(shards)).numpy()[1:])
        motions.append(motions_between(poses, plane))
    steps, moved = np.concatenate(known).astype(np.float64), np.concatenate(motions)
    free = np.isfinite(steps).all(axis=1) & np.isfinite(moved).all(axis=1)
    if not free.any():
        return ()
    fitted = _fit(steps[free], moved[free], LAGS * len(shards.header.action_names))
    return tuple(tuple(round(float(value), 5) for value in row) for row in fitted)


def motions_between(poses: NDArray[np.floating], plane: Plane) -> NDArray[np.float64]:
    """(T, P) -> (T - 1, P - 1) what led from each pose to the next.

    Its columns are units forward, units left, radians turned to the left, with the step seen along the heading halfway
    through its turn; then the difference of every other column of the pose (height, pitch).
    """
    columns = poses.astype(np.float64).T
    x, y, cos, sin = columns[[plane.x, plane.y, plane.cos, plane.sin]]
    others = np.delete(columns, [plane.x, plane.y, plane.cos, plane.sin], axis=0)
    headings = np.arctan2(sin, cos)
    turn = np.angle(np.exp(1j * np.diff(headings)))
    along = headings[:-1] + turn / 2
    dx, dy = np.diff(x), np.diff(y)
    forward, left = dx * np.cos(along) + dy * np.sin(along), dy * np.cos(along) - dx * np.sin(along)
    return np.stack([forward, left, turn, *np.diff(others, axis=1)], axis=-1)


def _fit(known: NDArray[np.floating], motions: NDArray[np.float64], singles: int) -> NDArray[np.float64]:
    """Least squares over the steps that no wall stopped, found by trimming.

    What pairs add, the columns from `singles` on, is held near zero as by one step that shows it: where a pair was
    hardly seen, what its actions do alone tells more.
    """
    held = np.diag(np.abs(known).max(axis=0))[singles:]
    kept = np.ones(len(motions), dtype=bool)
    for _ in range(TRIMMINGS):
        fitted, *_ = np.linalg.lstsq(
            np.concatenate([known[kept], held]),
            np.concatenate([motions[kept], np.zeros((len(held), motions.shape[1]))]),
            rcond=None,
        )
        errors = motions - known @ fitted
        kept = (np.abs(errors) <= SPREAD * errors[kept].std(axis=0) + 1e-6).all(axis=1)
    return fitted
