from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from lssvwm_core.model.config import ModelConfig
from lssvwm_core.model.world_model import WorldModel


def _randomised(module: nn.Module, seed: int = 0) -> nn.Module:
    """Move every parameter away from its initial value: gates that start at zero would hide what is behind them."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    return module.eval()


@pytest.fixture(scope="session")
def randomised() -> Callable[..., nn.Module]:
    return _randomised


@pytest.fixture(scope="session")
def normal() -> Callable[..., Tensor]:
    """normal(*shape, seed=0): standard normal numbers, the same on every call."""
    return lambda *shape, seed=0: torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="session")
def config() -> ModelConfig:
    """A very small model with everything in it: patches, two block sizes, both streams, both chunk sizes."""
    return ModelConfig(
        latent_shape=(3, 4, 4),
        action_names=("left", "right", "go"),
        pose_names=("x", "y"),
        width=64,
        depth=2,
        block_sizes=((2, 2), (1, 1)),
        d_state=16,
        headdim=32,
        patch=2,
    )


@pytest.fixture(scope="session")
def model(config: ModelConfig) -> WorldModel:
    """With random weights; shared, so leave it as it is."""
    torch.manual_seed(0)
    return _randomised(WorldModel(config))
