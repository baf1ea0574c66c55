"""Frames to latents, the same bytes wherever they are computed."""

import numpy as np
import torch
from numpy.typing import NDArray

from lssvwm_core.model.frame_codec import FrameCodec
from lssvwm_core.process import one_thread

ENCODE_PIXELS = 128 * 64 * 64  # at once: bounds the memory of large frames


@torch.inference_mode()
def encode_frames(autoencoder: FrameCodec, frames: NDArray[np.uint8]) -> NDArray[np.float16]:
    """(T, H, W, 3) uint8 -> latents (T, C, h, w) float16, on one thread and in float32: the same bytes every time."""
    device = autoencoder.latent_mean.device
    parts = torch.from_numpy(frames).split(max(1, ENCODE_PIXELS // (frames.shape[1] * frames.shape[2])))
    with one_thread():
        return torch.cat([autoencoder.encode(part.to(device)).half().cpu() for part in parts]).numpy()
