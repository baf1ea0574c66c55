"""Tells from a frame's latents which targets are in sight, and where they are, seen from the agent."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

from torch import Tensor, nn

from lssvwm_core.model import storage

KIND = "sight-head"


@dataclass(frozen=True)
class SightHeadConfig:
    """The shape of a sight head, and the autoencoder whose latents it reads.

    Attributes:
        latent_shape: (C, h, w) of a frame.
        autoencoder_sha256: of the weights that make the latents.
        targets: K.
    """

    latent_shape: tuple[int, int, int]
    autoencoder_sha256: str
    targets: int
    width: int = 128

    def __post_init__(self) -> None:
        sizes = (*self.latent_shape, self.targets, self.width)
        if min(sizes) < 1 or max(sizes) > 2**14:
            raise ValueError(f"latents, targets and width of {sizes}; expected 1 to {2**14} each")


class Sight(NamedTuple):
    """What a sight head sees in frames.

    Attributes:
        logits: (…, K) of each target being in sight.
        places: (…, K, 2) where it is if so: units ahead of the agent, and to its left.
    """

    logits: Tensor
    places: Tensor


class SightHead(nn.Module):
    """Latents (…, C, h, w) -> `Sight`."""

    def __init__(self, config: SightHeadConfig) -> None:
        super().__init__()
        self.config = config
        channels, height, width = config.latent_shape
        self.layers = nn.Sequential(
            nn.Linear(channels * height * width, config.width),
            nn.SiLU(),
            nn.Dropout(0.2),
            nn.Linear(config.width, 3 * config.targets),
        )

    def forward(self, latents: Tensor) -> Sight:
        found = self.layers(latents.flatten(-3)).unflatten(-1, (self.config.targets, 3))
        return Sight(found[..., 0], found[..., 1:])


def save_sight_head(folder: Path, head: SightHead) -> None:
    storage.save_model(folder, KIND, asdict(head.config), head)


def load_sight_head(folder: Path) -> SightHead:
    """Read a sight head. Raises: LssvwmError when the folder holds none, or a damaged one."""
    fields = storage.load_config(folder, KIND)
    config = storage.config_from(folder / storage.CONFIG_FILE, SightHeadConfig, fields)
    return storage.load_model(folder, lambda: SightHead(config)).eval()
