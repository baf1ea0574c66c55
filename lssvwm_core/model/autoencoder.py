"""A small convolutional autoencoder between frames and latents, made to be fast on a CPU.

Frames are cut into 4×4 patches at once, so that no convolution runs at full resolution. The paper's maze autoencoder
was not released; this one is our choice.
"""

from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lssvwm_core.model import storage
from lssvwm_core.model.frame_codec import MOST_BLOCKS, FrameCodec
from lssvwm_core.model.image_vae import CLASS_NAME, load_image_vae

KIND = "autoencoder"
PATCH = 4  # pixels; the first stage works at 1/4 of the frame's resolution
WIDTHS = (64, 128, 256, 256)  # of the stages where nobody chooses them: as many as the compression takes
COMPRESSIONS = tuple(PATCH * 2**stage for stage in range(len(WIDTHS)))


@dataclass(frozen=True)
class AutoencoderConfig:
    name: str = KIND
    latent_channels: int = 32
    widths: tuple[int, ...] = (64, 128, 256)  # channels at 1/4, 1/8, 1/16 …: each stage halves the resolution
    encoder_blocks: int = 1  # residual blocks of a stage
    decoder_blocks: int = 2
    noise: float = 0.05  # added to the latents in training, relative to their root mean square: a smoother latent space
    encoder_of: str = ""  # what the latents of another are known by, whose encoder this one has; none: its own

    def __post_init__(self) -> None:
        if not isinstance(self.widths, list | tuple) or not self.widths or any(w < 16 or w % 16 for w in self.widths):
            raise ValueError(f"widths are {self.widths}; expected multiples of 16")
        if self.latent_channels < 1:
            raise ValueError(f"latent_channels is {self.latent_channels}; expected at least 1")
        for name in ("encoder_blocks", "decoder_blocks"):
            if not 0 <= getattr(self, name) <= MOST_BLOCKS:
                raise ValueError(f"{name} is {getattr(self, name)}; expected 0 to {MOST_BLOCKS}")
        object.__setattr__(self, "widths", tuple(self.widths))  # JSON knows lists only

    @property
    def compression(self) -> int:
        """Pixels of a frame along one side of a latent's cell."""
        return PATCH * 2 ** (len(self.widths) - 1)


def widths_for(compression: int) -> tuple[int, ...]:
    """Channels of the stages that compress so many pixels, one of `COMPRESSIONS`, to a cell along each side."""
    return WIDTHS[: COMPRESSIONS.index(compression) + 1]


class ResidualBlock(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(width // 16, width)
        self.conv1 = nn.Conv2d(width, width, 3, padding=1)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)
        nn.init.zeros_(self.conv2.weight)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv2(F.silu(self.conv1(F.silu(self.norm(x)))))


class Autoencoder(FrameCodec):
    """The project's own; its latents are normalised by statistics measured at the end of its training."""

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__(config.name, config.latent_channels, config.compression)
        self.config = config
        widths = config.widths
        encoder: list[nn.Module] = [nn.Conv2d(3, widths[0], PATCH, stride=PATCH)]
        for width, wider in pairwise(widths):
            encoder += [ResidualBlock(width) for _ in range(config.encoder_blocks)]
            encoder += [nn.Conv2d(width, wider, 2, stride=2)]
        encoder += [ResidualBlock(widths[-1]) for _ in range(config.encoder_blocks)]
        self.encoder = nn.Sequential(*encoder, nn.Conv2d(widths[-1], config.latent_channels, 1))

        decoder: list[nn.Module] = [nn.Conv2d(config.latent_channels, widths[-1], 1)]
        for wider, width in pairwise(reversed(widths)):
            decoder += [ResidualBlock(wider) for _ in range(config.decoder_blocks)]
            decoder += [nn.Conv2d(wider, 4 * width, 1), nn.PixelShuffle(2)]
        decoder += [ResidualBlock(widths[0]) for _ in range(config.decoder_blocks)]
        self.decoder = nn.Sequential(*decoder, nn.Conv2d(widths[0], 3 * PATCH**2, 3, padding=1), nn.PixelShuffle(PATCH))

    def raw_latents(self, pixels: Tensor) -> Tensor:
        """(N, 3, H, W) in [-1, 1] -> (N, C, h, w) float32, root mean square 1 over each position's channels."""
        latents = self.encoder(pixels.contiguous(memory_format=torch.channels_last)).float()
        return latents * torch.rsqrt(latents.square().mean(dim=1, keepdim=True) + 1e-6)

    def raw_pixels(self, latents: Tensor) -> Tensor:
        return self.decoder(latents.contiguous(memory_format=torch.channels_last)).float()

    def reconstruct(self, pixels: Tensor, noise: Tensor | None = None) -> Tensor:
        """(N, 3, H, W) in [-1, 1] -> its reconstruction, through latents disturbed by `noise` when training."""
        latents = self.raw_latents(pixels)
        if noise is not None:
            latents = latents + self.config.noise * noise
        return self.decoder(latents).float()


def save_autoencoder(folder: Path, model: Autoencoder, dtype: torch.dtype = torch.float32) -> None:
    storage.save_model(folder, KIND, asdict(model.config), model, dtype)


def load_autoencoder(folder: Path) -> FrameCodec:
    """Read a folder written by `save_autoencoder`, or a diffusers VAE. Raises: LssvwmError."""
    model = load_image_vae(folder) if storage.diffusers_class(folder) == CLASS_NAME else _load_own(folder)
    model.folder = folder
    return model


def _load_own(folder: Path) -> Autoencoder:
    fields = storage.load_config(folder, KIND)
    config = storage.config_from(folder / storage.CONFIG_FILE, AutoencoderConfig, fields)
    model = storage.load_model(folder, lambda: Autoencoder(config))
    return model.eval().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
