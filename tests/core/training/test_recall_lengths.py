"""The length scales of a memory: found again in latents that were drawn with them."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from lssvwm_core.model.config import ModelConfig
from lssvwm_core.model.recall import Recall
from lssvwm_core.training.data.recall_lengths import fit_recall_lengths

CONFIG = ModelConfig(latent_shape=(2, 4, 4), pose_names=("x", "y", "cos", "sin"), recall=1000)


def shards(lengths: tuple[float, float], unknown: int = 0) -> Any:
    """Two episodes whose latents are a random function of the pose, as smooth as a memory of these scales takes it."""
    rng = torch.Generator().manual_seed(3)
    stored = {}
    for number in range(2):
        poses = torch.rand(200, 4, generator=rng).mul(torch.tensor([4.0, 4.0, 1.0, 1.0]))
        gram = Recall(4, CONFIG.latent_shape, 1000, lengths).gram(poses) + 1e-6 * torch.eye(200)
        values = torch.linalg.cholesky(gram) @ torch.randn(200, 32, generator=rng).double()
        poses[:unknown] = torch.nan
        stored[number] = {"poses": poses.numpy(), "latents": values.unflatten(1, (2, 4, 4)).numpy().astype(np.float16)}
    episodes = [SimpleNamespace(number=number, length=200) for number in stored]
    return SimpleNamespace(
        episodes=episodes,
        read=lambda episode, name, start, stop: stored[episode.number].get(name)[start:stop].copy(),
    )


@pytest.mark.parametrize("unknown", [0, 50])
@pytest.mark.parametrize("lengths", [(0.1, 0.5), (0.4, 2.0), (0.8, 4.0)])
def test_scales_are_found_again(lengths: tuple[float, float], unknown: int) -> None:
    shortest, longest = fit_recall_lengths(shards(lengths, unknown), CONFIG)
    assert shortest == pytest.approx(lengths[0], rel=0.51)
    assert longest == pytest.approx(lengths[1], rel=1.01)


def test_without_poses_nothing_is_measured() -> None:
    assert fit_recall_lengths(shards((0.1, 0.5), unknown=200), CONFIG) == CONFIG.recall_lengths


def test_a_run_measures_them_and_keeps_what_it_is_told(workspace: Path) -> None:
    from lssvwm_core.training.run.config import make_config
    from lssvwm_core.training.run.folder import Run
    from lssvwm_core.training.run.setup import starting_model
    from lssvwm_datasets.shards import open_shards

    data = workspace / "data/maze"
    found = open_shards(data, "train")
    small = ["model.recall=32", "model.width=64", "model.depth=1"]
    for given, expected in (([], None), (["model.recall_lengths=[0.3, 0.7]"], (0.3, 0.7))):
        config = make_config("tiny", data, None, [*small, *given])
        model, _ = starting_model(Run(workspace / "runs/none"), config, found, None)
        assert model.config.recall_lengths == (expected or fit_recall_lengths(found, model.config))
