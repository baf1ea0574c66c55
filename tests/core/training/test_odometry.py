"""How actions move the agent, found in recordings: real ones, and steps that walls stopped."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from lssvwm_core.model.odometer import Odometer
from lssvwm_core.training.data.odometry import PAIRS, _fit, fit_odometry, motions_between, odometry_fields
from lssvwm_core.training.loop import train
from lssvwm_core.training.run.config import make_config
from lssvwm_core.training.run.folder import Run
from lssvwm_core.training.run.setup import open_run
from lssvwm_core.world import load_model, save_world
from lssvwm_datasets.poses import Plane
from lssvwm_datasets.shards import ShardSet, StoredEpisode, open_shards

FRAMES = 50
SHAPE = ("recall", "width", "depth", "headdim", "d_state")  # of the workspace's model


def test_real_walks_are_reckoned_from_their_actions(workspace: Path) -> None:
    """In a maze that was not fitted, 50 steps far: the median is off by less than a tenth of a cell and 2 degrees."""
    odometry = fit_odometry(open_shards(workspace / "data/maze", "train"))
    shards = open_shards(workspace / "data/maze", "validation")
    episode = shards.episodes[0]
    found = [shards.read(episode, name, 0, episode.length) for name in ("actions", "poses")]
    actions, poses = (torch.from_numpy(rows) for rows in found if rows is not None)
    starts = range(0, len(poses) - FRAMES, FRAMES)
    actions = torch.stack([actions[start : start + FRAMES] for start in starts])
    truth = torch.stack([poses[start : start + FRAMES] for start in starts])
    given = truth.clone()
    given[:, 1:] = torch.nan
    odometer = Odometer(odometry, actions.shape[-1], pairs=PAIRS)
    reckoned, _ = odometer(given, actions, odometer.initial_state(len(given)), FRAMES)
    astray = (reckoned - truth)[:, -1, :2].norm(dim=-1)
    turned = (reckoned * truth)[:, -1, 2:].sum(dim=-1).clamp(-1, 1).arccos().rad2deg()
    assert astray.median() < 0.1, astray
    assert turned.median() < 2, turned


def test_pairs_of_many_columns_are_left_out(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shards = open_shards(workspace / "data/maze", "train")
    assert (len(fit_odometry(shards)), odometry_fields(shards)["odometry_pairs"]) == (4 * 6 + 2 * 36, 2)
    monkeypatch.setattr("lssvwm_core.training.data.odometry.MOST_COLUMNS", 5)
    assert (len(fit_odometry(shards)), odometry_fields(shards)["odometry_pairs"]) == (4 * 6, 0)


@pytest.mark.parametrize("unknown", ["poses", "actions"])
def test_where_nothing_is_known_nothing_is_fitted(
    workspace: Path, monkeypatch: pytest.MonkeyPatch, unknown: str
) -> None:
    shards = open_shards(workspace / "data/maze", "train")
    read = ShardSet.read

    def read_blind(self: ShardSet, episode: StoredEpisode, name: str) -> NDArray[np.float32] | None:
        rows = read(self, episode, name)
        return np.full_like(rows, np.nan) if rows is not None and name == unknown else rows

    monkeypatch.setattr(ShardSet, "read", read_blind)
    assert odometry_fields(shards) == {"odometry": (), "odometry_pairs": 0}


def test_steps_that_walls_stopped_do_not_count() -> None:
    rng = np.random.default_rng(0)
    actions = np.eye(3)[rng.integers(3, size=2000)]
    motion = np.array([[0, 0, 0], [0.25, 0.02, 0], [0, 0, 0.3]])
    stopped = rng.random(len(actions)) < 0.15
    motions = np.where(stopped[:, None], 0, actions @ motion) + rng.normal(scale=1e-3, size=(len(actions), 3))
    np.testing.assert_allclose(_fit(actions, motions, 3), motion, atol=2e-3)


def test_what_actions_do_together_is_found_and_doubted_where_it_was_hardly_seen() -> None:
    """Turning while walking turns less; one pair, which was seen once, is taken as the sum of its actions."""
    rng = np.random.default_rng(0)
    ids = rng.choice(3, size=4000, p=[0.4, 0.4, 0.2])
    actions = np.eye(3)[ids]
    pairs = (actions[1:, :, None] * actions[:-1, None, :]).reshape(-1, 9)
    motion = actions[1:] @ np.array([[0.2, 0, 0], [0, 0, 0.3], [0, 0, 0]])
    together = (ids[1:] == 1) & (ids[:-1] == 0)  # left after forward
    motion[together, 2] -= 0.05
    rare = (ids[1:] == 2) & (ids[:-1] == 2)
    kept = ~rare | (np.cumsum(rare) <= 1)
    motion[rare] = 0.15  # a wall
    fitted = _fit(np.concatenate([actions[1:], pairs], axis=1)[kept], motion[kept], 3)
    singles, products = fitted[:3], fitted[3:].reshape(3, 3, 3)
    found = singles[:, None] + products  # of each action after each other
    np.testing.assert_allclose(found[1, :, 2], [0.25, 0.3, 0.3], atol=2e-3)
    assert np.abs(found[2, 2]).max() < 0.1


def test_motions_are_seen_from_the_agent() -> None:
    def pose(x: float, y: float, degrees: float) -> list[float]:
        return [x, y, np.cos(np.radians(degrees)), np.sin(np.radians(degrees))]

    poses = np.array([pose(1, 1, 90), pose(1, 1.5, 90), pose(0.75, 1.5, 90), pose(0.75, 1.5, 170), pose(0, 0, -170)])
    motions = motions_between(poses, Plane(0, 1, 2, 3))
    np.testing.assert_allclose(motions[:3], [[0.5, 0, 0], [0, 0.25, 0], [0, 0, np.radians(80)]], atol=1e-12)
    np.testing.assert_allclose(motions[3, 2], np.radians(20), atol=1e-12)


def test_heights_and_pitches_are_fitted_beside_the_walk_wherever_their_columns_are() -> None:
    """Three actions: ahead, turn left while looking up, climb."""
    ids = np.random.default_rng(0).integers(3, size=500)
    motion = np.array([[0.2, 0, 0, 0, 0], [0, 0, 0.1, 0, 0.05], [0.1, 0, 0, 0.5, 0]])[ids]  # …, of height, of pitch
    heading, z, pitch = (motion[:, column].cumsum() for column in (2, 3, 4))
    along = heading - motion[:, 2] / 2
    x, y = (motion[:, 0] * np.cos(along)).cumsum(), (motion[:, 0] * np.sin(along)).cumsum()
    poses = np.stack([z, np.sin(heading), x, pitch, y, np.cos(heading)], axis=1)
    found = motions_between(poses, Plane(x=2, y=4, cos=5, sin=1))
    np.testing.assert_allclose(found, motion[1:], atol=1e-9)


def test_a_world_without_odometry_can_be_given_it(workspace: Path, tmp_path: Path) -> None:
    last = Run(workspace / "runs/test").last
    assert last is not None
    model, header, _ = load_model(last / "model")
    assert model.config.odometry == fit_odometry(open_shards(workspace / "data/maze", "train"))
    old = type(model)(replace(model.config, odometry=(), odometry_pairs=0))
    old.load_state_dict(model.state_dict())
    save_world(tmp_path / "old", old, header, "autoencoder")
    settings = [f"model.{name}={json.dumps(getattr(model.config, name))}" for name in SHAPE]
    settings += ["train.steps=1", "train.stages=[{frames = 10, steps = 1, batch_size = 1}]"]
    run, config = open_run(tmp_path / "run", make_config("tiny", workspace / "data/maze", None, settings))
    list(train(run, config, torch.device("cpu"), init_from=tmp_path / "old"))
    assert run.last is not None
    assert load_model(run.last / "model")[0].config == model.config
