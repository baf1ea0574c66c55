"""How well an autoencoder reconstructs what is to be prepared, measured before anything is written.

A world can show no more than its autoencoder keeps. One that was trained on other pictures loses most of them, and what
is trained on its latents is trained for nothing.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from lssvwm_core.evaluation.metrics import psnr
from lssvwm_core.model.autoencoder import load_autoencoder
from lssvwm_core.model.frame_codec import FrameCodec
from lssvwm_core.prepare.encode import encode_frames
from lssvwm_core.process import one_thread
from lssvwm_datasets.errors import DamagedRecording, LssvwmError, UnreadableNow
from lssvwm_datasets.sources import Recording

LOWEST_PSNR = 28.0  # dB: below, pictures of the game look like those of another
SAMPLE_RECORDINGS = 16
SAMPLE_FRAMES = 64  # of all recordings together, at least, where they have so many
FRAMES_EACH = 8  # of a recording, at least
LOOKED_AT = 4096  # frames that are decoded to take the sample from: it is spread over the first part of long recordings


@dataclass(frozen=True)
class Reconstruction:
    """The mean PSNR in dB of frames that were encoded and decoded, and how many frames of how many recordings."""

    psnr: float
    frames: int
    recordings: int

    def __str__(self) -> str:
        return f"{self.psnr:.2f} dB PSNR ({self.frames} frames of {self.recordings} recordings)"


def measure_reconstruction(recordings: list[Recording], autoencoder: Path, device: str = "cpu") -> Reconstruction:
    """Encode and decode a sample spread over the recordings that can be read; the same sample every time.

    Raises: LssvwmError when none has a frame that can be read.
    """
    model = load_autoencoder(autoencoder).to(device)
    spread = np.linspace(0, len(recordings) - 1, min(len(recordings), SAMPLE_RECORDINGS)).astype(int)
    each = max(FRAMES_EACH, -(-SAMPLE_FRAMES // len(spread)))
    measured: list[NDArray[np.float64]] = []
    read = 0
    for number in spread:
        sample = _sample(recordings[number], each, LOOKED_AT // len(spread))
        found = [psnr(_reconstructed(model, frames), frames) for frames in sample]
        measured += found
        read += bool(found)
    if not measured:
        raise LssvwmError(f"none of {len(spread)} recordings has a frame that can be read; see: lssvwm inspect")
    values = np.concatenate(measured)
    return Reconstruction(round(float(values.mean()), 2), len(values), read)


def require_quality(reconstruction: Reconstruction, autoencoder: str, source: Path) -> None:
    """Check a reconstruction. Raises: LssvwmError where the autoencoder loses too much, with what to do about it."""
    if reconstruction.psnr < LOWEST_PSNR:
        raise LssvwmError(
            f"{autoencoder} reconstructs these recordings at {reconstruction}, below {LOWEST_PSNR:g} dB: no world can "
            f"show more than that. Train an autoencoder on them with: lssvwm train-autoencoder {source}; then give it "
            "as --autoencoder runs/autoencoder; or let this command do both: --autoencoder auto. Or choose another; or "
            "take this one all the same: --accept-quality"
        )


def _sample(recording: Recording, count: int, first: int) -> Iterator[NDArray[np.uint8]]:
    """`count` frames, evenly spread over the `first` ones, some at a time; fewer where it cannot be read."""
    try:
        episodes = list(recording.episodes())
        step = max(1, min(sum(episode.length for episode in episodes), first) // count)
        position = 0
        for part in (part for episode in episodes for part in episode.frames):
            wanted = np.arange(-position % step, len(part), step)
            taken = part[wanted[: count - -(-position // step)]]
            if len(taken):
                yield taken
            position += len(part)
            if position >= count * step:
                return
    except (DamagedRecording, UnreadableNow):
        return


@torch.inference_mode()
def _reconstructed(model: FrameCodec, frames: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(n, H, W, 3) frames -> what their latents, as shards keep them, show."""
    latents = torch.from_numpy(encode_frames(model, frames)).to(model.latent_mean.device)
    with one_thread():
        return torch.cat([model.decode(latent) for latent in latents.split(1)]).cpu().numpy()
