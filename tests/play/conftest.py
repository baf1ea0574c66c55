"""A world that reacts: the workspace's few steps of training leave it all but frozen."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from lssvwm_core.play.game import Game
from lssvwm_core.training.run.folder import Run
from lssvwm_core.world import World, load_world

CONTEXT = 20


@pytest.fixture(scope="session")
def world(workspace: Path) -> World:
    world = load_world(Run(workspace / "runs/test").world, torch.device("cpu"))
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in world.model.parameters():
            parameter += 0.05 * torch.randn_like(parameter)
    return world.sampled_with(steps=2)


@pytest.fixture
def new_game(workspace: Path, world: World, tmp_path: Path) -> Callable[[], Game]:
    return lambda: Game(replace(world), workspace / "data/maze", tmp_path / "play", CONTEXT)


@pytest.fixture
def game(new_game: Callable[[], Game]) -> Game:
    return new_game()
