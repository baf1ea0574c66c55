from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor, nn

from lssvwm_core.model import attention, mamba
from lssvwm_core.model.address import PoseAddress
from lssvwm_core.model.config import ModelConfig
from lssvwm_core.model.frame_codec import FrameCodec
from lssvwm_core.model.odometer import Odometer
from lssvwm_core.model.world_model import WorldModel
from tests.shapes import checked

SHAPES = [
    (WorldModel, "forward", {"latents": "B T C h w", "noise_levels": "B T", "return.0": "B T C h w"}),
    (mamba.BlockScan, "forward", {"x": "B T h w D", "return.0": "B T h w D"}),
    (attention.FrameAttention, "forward", {"x": "B T h w D", "return.0": "B T h w D"}),
    (attention.CausalAttention, "forward", {"x": "B T h w D", "return.0": "B T h w D"}),
    (PoseAddress, "forward", {"poses": "B T P", "return.0": "B T n", "return.1": "B T n"}),
    (Odometer, "forward", {"poses": "B T P", "actions": "B T A", "return.0": "B T P"}),
    (FrameCodec, "encode", {"frames": "N H W 3", "return": "N C h w"}),
    (FrameCodec, "decode", {"latents": "N C h w", "return": "N H W 3"}),
    (attention, "windowed_attention", {"query": "B T S heads d", "keys": "B K S heads d", "return": "B T S heads d"}),
    (attention, "rotate", {"x": "B T S heads d", "angles": "T S pairs", "return": "B T S heads d"}),
    (mamba, "causal_convolution", {"x": "b l c", "tail": "b k c", "return.0": "b l c", "return.1": "b k c"}),
    (
        mamba,
        "ssd_scan",
        {"x": "b l heads p", "dt": "b l heads", "B": "b l groups n", "C": "b l groups n", "D": "heads"}
        | {"initial_state": "b heads p n", "return.0": "b l heads p", "return.1": "b heads p n"},
    ),
]


@pytest.fixture(scope="module", autouse=True)
def shapes_are_those_that_are_told() -> Iterator[None]:
    """Every call of a public function in these tests is checked."""
    with pytest.MonkeyPatch.context() as patch:
        for owner, name, shapes in SHAPES:
            patch.setattr(owner, name, checked(getattr(owner, name), shapes))
        yield


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
