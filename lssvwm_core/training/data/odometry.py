"""How actions move the agent, by least squares over the recordings: what a model's odometer knows."""

import itertools

import numpy as np
from numpy.typing import NDArray

from lssvwm_datasets.poses import Plane, plane_of
from lssvwm_datasets.shards import ShardSet

LAGS = 4  # actions that a step depends on: at the maze's 4 Hz, turns coast for one or two
EPISODES = 100  # at most
TRIMMINGS, SPREAD = 5, 2.5  # steps further from the fit than so many standard deviations were stopped by a wall

Odometry = tuple[tuple[float, ...], ...]


def fit_odometry(shards: ShardSet) -> Odometry:
    """(LAGS · A, P - 1) what each column of the last actions adds to a step, as `motions_between` measures it.

    Empty where the shards lack actions, or poses with a position on the ground and a heading.
    """
    plane = plane_of(shards.header.pose_names, shards.header.pose_kinds)
    if plane is None or not shards.header.action_names:
        return ()
    lagged, motions = [], []
    for episode in itertools.islice(shards.episodes, EPISODES):
        actions, poses = shards.read(episode, "actions"), shards.read(episode, "poses")
        assert actions is not None  # every shard has them
        assert poses is not None  # the header names them
        padded = np.pad(actions, ((LAGS - 1, 0), (0, 0)))
        lags = [padded[LAGS - 1 - lag : len(padded) - lag] for lag in range(LAGS)]
        lagged.append(np.concatenate(lags, axis=1)[1:])
        motions.append(motions_between(poses, plane))
    return tuple(
        tuple(round(float(value), 5) for value in row) for row in _fit(np.concatenate(lagged), np.concatenate(motions))
    )


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
