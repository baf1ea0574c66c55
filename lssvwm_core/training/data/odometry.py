"""How actions move the agent, by least squares over the recordings: what a model's odometer knows."""

import itertools

import numpy as np
from numpy.typing import NDArray

from lssvwm_datasets.memory_maze import POSE_NAMES
from lssvwm_datasets.shards import ShardSet, opened

LAGS = 4  # actions that a step depends on: at the maze's 4 Hz, turns coast for one or two
EPISODES = 100  # at most
TRIMMINGS, SPREAD = 5, 2.5  # steps further from the fit than so many standard deviations were stopped by a wall

Odometry = tuple[tuple[float, ...], ...]


def fit_odometry(shards: ShardSet) -> Odometry:
    """(LAGS · A, 3): cells forward and left and radians turned that each column of the last actions adds to a step.

    Empty where the shards lack actions or planar poses.
    """
    if shards.header.pose_names != POSE_NAMES or not shards.header.action_names:
        return ()
    lagged, motions = [], []
    for episode in itertools.islice(shards.episodes, EPISODES):
        rows = slice(episode.start, episode.start + episode.length)
        with opened(episode.shard) as file:
            actions, poses = file["actions"][rows], file["poses"][rows]
        padded = np.pad(actions, ((LAGS - 1, 0), (0, 0)))
        lags = [padded[LAGS - 1 - lag : len(padded) - lag] for lag in range(LAGS)]
        lagged.append(np.concatenate(lags, axis=1)[1:])
        motions.append(motions_between(poses))
    return tuple(
        tuple(round(float(value), 5) for value in row) for row in _fit(np.concatenate(lagged), np.concatenate(motions))
    )


def motions_between(poses: NDArray[np.floating]) -> NDArray[np.float64]:
    """(T, 4) -> (T - 1, 3) forward, left, turn: each step seen along the heading halfway through its turn."""
    x, y, cos, sin = poses.astype(np.float64).T
    headings = np.arctan2(sin, cos)
    turn = np.angle(np.exp(1j * np.diff(headings)))
    along = headings[:-1] + turn / 2
    dx, dy = np.diff(x), np.diff(y)
    forward, left = dx * np.cos(along) + dy * np.sin(along), dy * np.cos(along) - dx * np.sin(along)
    return np.stack([forward, left, turn], axis=-1)


def _fit(lagged: NDArray[np.floating], motions: NDArray[np.float64]) -> NDArray[np.float64]:
    """Least squares over the steps that no wall stopped, found by trimming."""
    free = np.isfinite(lagged).all(axis=1) & np.isfinite(motions).all(axis=1)
    lagged, motions = lagged[free], motions[free]
    kept = np.ones(len(motions), dtype=bool)
    for _ in range(TRIMMINGS):
        fitted, *_ = np.linalg.lstsq(lagged[kept], motions[kept], rcond=None)
        errors = motions - lagged @ fitted
        kept = (np.abs(errors) <= SPREAD * errors[kept].std(axis=0) + 1e-6).all(axis=1)
    return fitted
