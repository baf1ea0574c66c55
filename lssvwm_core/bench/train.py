"""What a training step costs against the frames of a clip (the paper's figure 8)."""

import statistics
from collections.abc import Iterator, Sequence
from functools import partial

import torch

from lssvwm_core.bench.costs import Point
from lssvwm_core.bench.subject import Subject, check_frames, check_variants
from lssvwm_core.bench.timing import Timing, peak_bytes, timed
from lssvwm_core.device import autocast, training_precision
from lssvwm_core.diffusion import flow_loss, sample_noise_levels
from lssvwm_core.model.config import ModelConfig
from lssvwm_core.model.world_model import WorldModel
from lssvwm_core.presets import Stage
from lssvwm_core.training.step.cost import step_cost


def bench_train(
    subject: Subject,
    variants: Sequence[str],
    frames: Sequence[int],
    timing: Timing,
    device: torch.device,
    compiled: bool = False,
) -> Iterator[Point]:
    """A whole training step on one clip of so many frames: forward, backward, optimiser. Raises: LssvwmError."""
    check_variants(variants)
    check_frames(frames, subject.config())
    for name in variants:
        model = subject.variant(name, device, compiled).train()
        optimizer = torch.optim.AdamW(model.parameters(), fused=True)
        chunk = model.config.chunk_sizes[0]
        measures = {count: partial(training_step, model, optimizer, 1, count, chunk, device) for count in frames}
        for count, seconds in timing.medians(measures, device):
            peak = peak_bytes(measures[count], device)
            flops = step_cost(model.config, 1, count, chunk, training_precision(device)).flops
            yield Point(name, count, seconds, peak, flops)


def training_step(
    model: WorldModel, optimizer: torch.optim.Optimizer, batch: int, frames: int, chunk: int, device: torch.device
) -> None:
    """One step on random clips, as training makes it."""
    rng = torch.Generator().manual_seed(0)
    latents = torch.randn(batch, frames, *model.config.latent_shape, generator=rng).to(device)
    levels = sample_noise_levels(batch, frames, chunk, 0.5, rng).to(device)
    conditions = {
        name: torch.rand(batch, frames, columns, generator=rng).to(device)
        for name, columns in model.config.streams.items()
    }
    with autocast(device, training_precision(device)):
        loss = flow_loss(model, latents, torch.randn_like(latents), levels, conditions, chunk)
    loss.backward()
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)


def step_seconds(config: ModelConfig, stage: Stage, chunk: int, device: torch.device, repeats: int = 3) -> float:
    """The median time of a training step on `stage.batch_size` clips, on this machine."""
    model = WorldModel(config).to(device).train()
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    measure = partial(training_step, model, optimizer, stage.batch_size, stage.frames, chunk, device)
    measure()  # warms up
    return statistics.median(timed(measure, device) for _ in range(repeats))
