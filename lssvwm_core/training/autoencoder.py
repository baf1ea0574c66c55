"""Trains an autoencoder on the frames of recordings and reports its PSNR on mazes it has not seen.

The decoder may be trained alone: what it decodes stays as it was, and so do the worlds and shards that know it.

The mean squared error alone makes a decoder soft: the mean of all that a latent may stand for has the least of it. So
what it makes may also be asked to be as sharp as the frame, block by block.
"""

import copy
import math
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from lssvwm_core.device import autocast, fastest_precision
from lssvwm_core.model.autoencoder import (
    Autoencoder,
    AutoencoderConfig,
    load_autoencoder,
    save_autoencoder,
)
from lssvwm_core.model.frame_codec import FrameCodec, pixels_of
from lssvwm_core.model.storage import latents_sha256
from lssvwm_core.training.gathering import gathered
from lssvwm_core.training.run.lock import locked
from lssvwm_core.training.run.stopping import Stop, never
from lssvwm_core.training.step.ema import update_ema
from lssvwm_datasets.episode import Episode
from lssvwm_datasets.errors import LssvwmError
from lssvwm_datasets.files import write_json
from lssvwm_datasets.sources import TRAIN, VALIDATION, Recording

REPORT_EVERY = 100  # steps
EVALUATE_BATCH = 256  # frames
STATISTICS_FRAMES = 20_000
SHARPNESS_BLOCK, SHARPNESS_SCALES = 8, (1, 2, 4)  # pixels along one side


@dataclass(frozen=True)
class AutoencoderTraining:
    """How long and how to train. Training ends at `steps` or after `minutes`, whichever comes first."""

    steps: int = 6000
    minutes: float | None = None
    batch_size: int = 48  # frames
    learning_rate: float = 2e-3
    warmup_steps: int = 100
    weight_decay: float = 0.01
    ema_decay: float = 0.999
    max_frames: int = 200_000  # held in memory (64×64: 12 kB each), spread evenly over the recordings
    seed: int = 0
    sharpness: float = 0.0  # weight of the error of `local_sharpness`, beside the mean squared error
    decoder_only: bool = False  # the encoder stays as it was, and with it what latents mean


@dataclass(frozen=True)
class Progress:
    step: int
    fraction: float  # of the training, 0..1
    psnr: float | None  # dB, of the last training batches; None before the first
    frames_per_second: float


def train_autoencoder(
    recordings: list[Recording],
    out: Path,
    config: AutoencoderConfig,
    training: AutoencoderTraining,
    device: torch.device,
    init_from: Path | None = None,
    stop: Stop = never,
) -> Iterator[Progress]:
    """Train on the train split and write `out` (model folder with EMA weights, `recipe.json`), yielding progress.

    The first progress comes when the frames are read. Stopping early (by `stop`, by closing the generator) writes what
    was learnt so far. Raises: LssvwmError.
    """
    if training.decoder_only and init_from is None:
        raise LssvwmError("a decoder alone is trained for the encoder of another: name it with --init-from")
    with locked(out):
        yield from _train(recordings, out, config, training, device, init_from, stop)


def _train(
    recordings: list[Recording],
    out: Path,
    config: AutoencoderConfig,
    training: AutoencoderTraining,
    device: torch.device,
    init_from: Path | None,
    stop: Stop,
) -> Iterator[Progress]:
    rng = torch.Generator().manual_seed(training.seed)
    pool = torch.from_numpy(gather_frames(recordings, TRAIN, training.max_frames))
    held_out = torch.from_numpy(gather_frames(recordings, VALIDATION, training.max_frames // 20))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(training.seed)
        model = load_autoencoder(init_from) if init_from else Autoencoder(config)
    if not isinstance(model, Autoencoder):
        raise LssvwmError(f"{init_from}: a {model.name} of diffusers; only the project's own can be trained here")
    if training.decoder_only:
        model.encoder.requires_grad_(False)
    known_by = latents_sha256(init_from) if training.decoder_only and init_from else ""
    model.config = replace(model.config, encoder_of=known_by)
    model.latent_shape(*pool.shape[1:3])
    model = model.to(device=device, memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    ema = copy.deepcopy(model).eval()
    learnt = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(
        learnt, training.learning_rate, (0.9, 0.99), weight_decay=training.weight_decay, fused=True
    )
    started, step = time.monotonic(), 0
    yield Progress(0, 0.0, None, 0.0)
    try:
        squared_errors: list[float] = []
        while (fraction := _fraction_done(training, step, time.monotonic() - started)) < 1 and stop() is None:
            warmup = min(1.0, (step + 1) / training.warmup_steps)
            for group in optimizer.param_groups:
                group["lr"] = training.learning_rate * warmup * (0.5 + 0.5 * math.cos(math.pi * fraction))
            rows = torch.randint(len(pool), (training.batch_size,), generator=rng)
            pixels = pixels_of(pool[rows].to(device))
            with autocast(device, fastest_precision(device)):
                shape = (training.batch_size, *model.latent_shape(*pool.shape[1:3]))
                noise = torch.randn(shape, generator=rng).to(device)
                made = model.reconstruct(pixels, noise)
                loss = F.mse_loss(made, pixels)
            squared_errors.append(loss.item())
            if training.sharpness:
                loss = loss + training.sharpness * F.l1_loss(local_sharpness(made), local_sharpness(pixels))
            if not math.isfinite(squared_errors[-1]):
                raise LssvwmError(f"step {step + 1}: the loss is not finite; stopped. Lower --learning-rate")
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(learnt, 1.0)
            optimizer.step()
            update_ema(ema, model, training.ema_decay, step)
            step += 1
            if step % REPORT_EVERY == 0:
                mean = float(np.mean(squared_errors[-REPORT_EVERY:]))
                speed = step * training.batch_size / (time.monotonic() - started)
                yield Progress(step, fraction, 10 * math.log10(4 / mean), speed)
    finally:
        if step > 0:
            if not training.decoder_only:
                set_statistics(ema, pool, device)
            save_autoencoder(out, ema)
            recipe = {
                "training": asdict(training),
                "steps_done": step,
                "seconds": round(time.monotonic() - started),
                "train_frames": len(pool),
                "validation_frames": len(held_out),
                "validation_psnr": round(reconstruction_psnr(ema, held_out, device), 3),
            }
            write_json(out / "recipe.json", recipe)


def local_sharpness(pixels: Tensor) -> Tensor:
    """How much there is of structure in each block of 8×8 pixels, by scale and direction: (N, 3, H, W) -> (N, 36, …).

    The mean absolute differences of neighbouring squares of 1, 2 and 4 pixels, as of a Haar wavelet: to the right, down
    and across, in each colour and in grey. One number for all of them would be met by any pattern of dots.
    """
    pixels = torch.cat([pixels, pixels.mean(dim=1, keepdim=True)], dim=1)
    height, width = pixels.shape[2:]
    found = []
    for side in SHARPNESS_SCALES:
        squares = F.avg_pool2d(pixels, side, stride=1)
        right, down = (squares.narrow(dim, side, squares.shape[dim] - side) for dim in (3, 2))
        right, down = right - squares[..., :-side], down - squares[..., :-side, :]
        across = right[..., side:, :] - right[..., :-side, :]
        for change in (right, down, across):
            missing = (0, width - change.shape[3], 0, height - change.shape[2])  # at the right and lower edge
            found.append(F.avg_pool2d(F.pad(change.abs(), missing), SHARPNESS_BLOCK))
    return torch.cat(found, dim=1)


def gather_frames(recordings: list[Recording], split: str, max_frames: int) -> NDArray[np.uint8]:
    """(N, H, W, 3) uint8 frames, spread evenly over the recordings of a split; says which are skipped as damaged.

    Raises: LssvwmError.
    """
    share = max(1, max_frames // max(1, sum(recording.split == split for recording in recordings)))
    parts = gathered(recordings, split, lambda episode: [_spread(episode, share)])
    if not parts:
        raise LssvwmError(f"no readable recordings in the {split} split; record some with: lssvwm record maze")
    if len({part.shape[1:] for part in parts}) > 1:
        raise LssvwmError(f"recordings have frames of several sizes: {sorted({part.shape[1:3] for part in parts})}")
    return np.concatenate(parts)


def _spread(episode: Episode, count: int) -> NDArray[np.uint8]:
    """At most `count` frames of an episode, evenly spread. Raises: DamagedRecording."""
    wanted = np.linspace(0, episode.length - 1, min(count, episode.length)).astype(int)
    chosen, start = [], 0
    for part in episode.frames:
        chosen.append(part[wanted[(wanted >= start) & (wanted < start + len(part))] - start])
        start += len(part)
    return np.concatenate(chosen)


@torch.inference_mode()
def set_statistics(model: FrameCodec, frames: torch.Tensor, device: torch.device) -> None:
    """Set the model's latent mean and standard deviation a channel, from at most `STATISTICS_FRAMES` frames."""
    rows = torch.linspace(0, len(frames) - 1, min(len(frames), STATISTICS_FRAMES)).long()
    with autocast(device, fastest_precision(device)):
        raw = torch.cat([model.raw_latents(pixels_of(frames[part].to(device))) for part in rows.split(EVALUATE_BATCH)])
    model.latent_mean.copy_(raw.mean(dim=(0, 2, 3)))
    model.latent_std.copy_(raw.std(dim=(0, 2, 3)))


@torch.inference_mode()
def reconstruction_psnr(model: FrameCodec, frames: torch.Tensor, device: torch.device) -> float:
    """Mean over frames of the PSNR in dB of encode -> decode, as a rollout sees it (8 bits)."""
    total = 0.0
    for part in frames.split(EVALUATE_BATCH):
        with autocast(device, fastest_precision(device)):
            decoded = model.decode(model.encode(part.to(device)))
        error = (decoded.float() - part.to(device).float()).square().mean(dim=(1, 2, 3)).clamp(min=1e-3)
        total += (10 * torch.log10(255**2 / error)).sum().item()
    return total / len(frames)


def _fraction_done(training: AutoencoderTraining, step: int, seconds: float) -> float:
    by_time = seconds / (60 * training.minutes) if training.minutes else 0.0
    return max(step / training.steps, by_time)
