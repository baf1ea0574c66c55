"""Tells the reward of a frame from its latents and those of the frame before it."""

from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from lssvwm_core.model import storage

KIND = "reward-head"


@dataclass(frozen=True)
class RewardHeadConfig:
    """The shape of a reward head, and the autoencoder whose latents it reads.

    Attributes:
        latent_shape: (C, h, w) of a frame.
        autoencoder_sha256: of the weights that make the latents.
    """

    latent_shape: tuple[int, int, int]
    autoencoder_sha256: str
    width: int = 128

    def __post_init__(self) -> None:
        if not min(*self.latent_shape, self.width) > 0 or max(*self.latent_shape, self.width) > 2**14:
            raise ValueError(f"latents of {self.latent_shape}, width {self.width}; expected 1 to {2**14} each")


class RewardHead(nn.Module):
    """Latents before and now, (…, C, h, w) each -> rewards (…)."""

    def __init__(self, config: RewardHeadConfig) -> None:
        super().__init__()
        self.config = config
        channels, height, width = config.latent_shape
        self.layers = nn.Sequential(
            nn.Linear(2 * channels * height * width, config.width),
            nn.SiLU(),
            nn.Linear(config.width, config.width),
            nn.SiLU(),
            nn.Linear(config.width, 1),
        )

    def forward(self, before: Tensor, now: Tensor) -> Tensor:
        return self.layers(torch.cat([now, now - before], dim=-3).flatten(-3)).squeeze(-1)


def save_reward_head(folder: Path, head: RewardHead) -> None:
    storage.save_model(folder, KIND, asdict(head.config), head)


def load_reward_head(folder: Path) -> RewardHead:
    """Read a reward head. Raises: LssvwmError when the folder holds none, or a damaged one."""
    fields = storage.load_config(folder, KIND)
    config = storage.config_from(folder / storage.CONFIG_FILE, RewardHeadConfig, fields)
    return storage.load_model(folder, lambda: RewardHead(config)).eval()
