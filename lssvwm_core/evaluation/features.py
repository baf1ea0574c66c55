"""Features of clips, whose distributions a Fréchet distance compares. Nothing here is ever downloaded."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from lssvwm_core.model.frame_codec import FrameCodec
from lssvwm_core.model.tensors import check_regular
from lssvwm_core.video import Frames
from lssvwm_datasets.errors import LssvwmError

I3D_SIZE = 224  # pixels
CLIP_FRAMES = 16  # as is usual for FVD


@dataclass(frozen=True)
class ClipFeatures:
    """A feature extractor for clips: (T, H, W, 3) uint8 -> (T // CLIP_FRAMES, d) float64."""

    name: str
    extract: Callable[[Frames], NDArray[np.float64]]


def latent_features(autoencoder: FrameCodec, device: torch.device) -> ClipFeatures:
    """An offline stand-in that is *not* FVD: statistics of the autoencoder's latents over the frames of a clip.

    Every latent channel gives three: its mean over the clip, its standard deviation, and its mean absolute change from
    frame to frame.
    """

    @torch.inference_mode()
    def extract(frames: Frames) -> NDArray[np.float64]:
        clips = []
        for start in range(0, len(frames) - CLIP_FRAMES + 1, CLIP_FRAMES):
            clip = torch.from_numpy(frames[start : start + CLIP_FRAMES]).to(device)
            latents = autoencoder.encode(clip).transpose(0, 1).flatten(2)  # (C, T, h·w)
            change = latents.diff(dim=1).abs().mean(dim=(1, 2))
            clips.append(torch.cat([latents.mean(dim=(1, 2)), latents.std(dim=(1, 2)), change]).double().cpu())
        return torch.stack(clips).numpy() if clips else np.zeros((0, 3 * autoencoder.latent_channels))

    return ClipFeatures("latent Fréchet distance (not FVD)", extract)


def i3d_features(weights: Path, device: torch.device) -> ClipFeatures:
    """Features for FVD from a TorchScript I3D as is common (i3d_torchscript.pt), which takes (N, 3, T, 224, 224).

    Raises: LssvwmError when the file cannot be loaded.
    """
    check_regular(weights)
    try:
        i3d = torch.jit.load(str(weights), map_location=device).eval()
    except (OSError, RuntimeError, ValueError) as error:
        raise LssvwmError(f"{weights}: not a TorchScript file ({str(error).splitlines()[0]})") from error

    @torch.inference_mode()
    def extract(frames: Frames) -> NDArray[np.float64]:
        clips = []
        for start in range(0, len(frames) - CLIP_FRAMES + 1, CLIP_FRAMES):
            pixels = torch.from_numpy(frames[start : start + CLIP_FRAMES]).to(device).permute(0, 3, 1, 2) / 127.5 - 1
            pixels = F.interpolate(pixels, (I3D_SIZE, I3D_SIZE), mode="bilinear", align_corners=False)
            video = pixels.transpose(0, 1)[None]  # (1, 3, T, 224, 224)
            clips.append(i3d(video, rescale=False, resize=False, return_features=True)[0].double().cpu())
        return torch.stack(clips).numpy() if clips else np.zeros((0, 400))

    return ClipFeatures("FVD", extract)
