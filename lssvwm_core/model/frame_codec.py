"""What every autoencoder of frames does alike: pixels from bytes, latents of unit variance, sizes that fit."""

from pathlib import Path

import torch
from torch import Tensor, nn

MOST_BLOCKS = 100  # residual blocks of one resolution: more than that is a mistake, or malice


class FrameCodec(nn.Module):
    """Frames (N, H, W, 3) uint8 <-> latents (N, C, H/f, W/f) of unit variance, f = `compression`.

    A subclass gives the networks: `raw_latents` and `raw_pixels`.

    Attributes:
        folder: where it was loaded from; None for one made in memory.
    """

    folder: Path | None = None

    latent_mean: Tensor
    latent_std: Tensor

    def __init__(self, name: str, latent_channels: int, compression: int) -> None:
        super().__init__()
        self.name, self.latent_channels, self.compression = name, latent_channels, compression
        self.register_buffer("latent_mean", torch.zeros(latent_channels))
        self.register_buffer("latent_std", torch.ones(latent_channels))

    def raw_latents(self, pixels: Tensor) -> Tensor:
        """(N, 3, H, W) in [-1, 1] -> (N, C, h, w) float32, before normalisation."""
        raise NotImplementedError

    def raw_pixels(self, latents: Tensor) -> Tensor:
        """The inverse: (N, C, h, w), not normalised -> (N, 3, H, W) float32, about [-1, 1]."""
        raise NotImplementedError

    def latent_shape(self, height: int, width: int) -> tuple[int, int, int]:
        """(C, h, w) of a frame's latent. Raises: ValueError when the frame is not a multiple of the compression."""
        factor = self.compression
        if height % factor or width % factor:
            raise ValueError(f"frames are {height}x{width}; the autoencoder needs multiples of {factor}")
        return self.latent_channels, height // factor, width // factor

    def encode(self, frames: Tensor) -> Tensor:
        """(N, H, W, 3) uint8 -> (N, C, h, w) float32, normalised to unit variance a channel."""
        self.latent_shape(*frames.shape[1:3])
        raw = self.raw_latents(pixels_of(frames))
        return (raw - _per_channel(self.latent_mean)) / _per_channel(self.latent_std)

    def decode(self, latents: Tensor) -> Tensor:
        """(N, C, h, w) normalised -> (N, H, W, 3) uint8."""
        raw = latents.float() * _per_channel(self.latent_std) + _per_channel(self.latent_mean)
        pixels = (self.raw_pixels(raw) + 1) * 127.5
        return pixels.round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1)


def pixels_of(frames: Tensor) -> Tensor:
    """(N, H, W, 3) uint8 -> (N, 3, H, W) float32 in [-1, 1]."""
    return frames.permute(0, 3, 1, 2).float() / 127.5 - 1


def _per_channel(statistic: Tensor) -> Tensor:
    return statistic[:, None, None]
