"""The forward and backward passes of a step. What is random in them follows from (seed, step, number of the clip)."""

import contextlib
from collections.abc import Callable, Iterator, Mapping

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor, nn

from lssvwm_core.device import autocast
from lssvwm_core.diffusion import sample_noise_levels
from lssvwm_core.training.data.clips import Batch
from lssvwm_core.training.run.config import TrainConfig
from lssvwm_core.training.step.sharding import gather

Objective = Callable[[nn.Module, Tensor, Tensor, Tensor, Mapping[str, Tensor], int], Tensor]  # as `flow_loss`


def train_step(
    model: nn.Module,
    objective: Objective,
    batches: Iterator[Batch],
    step: int,
    chunk: int,
    config: TrainConfig,
    accelerator: Accelerator,
) -> tuple[float, float]:
    """Accumulate and clip the gradients of a step; returns the loss (mean over processes) and the gradients' norm."""
    loss = torch.zeros((), device=accelerator.device)
    for part in range(config.accumulate):
        last = part == config.accumulate - 1
        inputs = _inputs(next(batches), (config.seed, step, part), chunk, config, accelerator.device)
        with contextlib.nullcontext() if last else accelerator.no_sync(model):
            with autocast(accelerator.device, config.precision):
                part_loss = objective(model, *inputs, chunk) / config.accumulate
            accelerator.backward(part_loss)
        loss += part_loss.detach()
    norm = float(gather(accelerator.clip_grad_norm_(model.parameters(), config.clip_norm)))
    return float(accelerator.reduce(loss, "mean")), norm


def chunk_of(step: int, sizes: tuple[int, ...], config: TrainConfig) -> int:
    """The chunk size of a step: drawn at random, the same in every process."""
    return sizes[int(torch.randint(len(sizes), (), generator=_generator(config.seed, step)))]


def _inputs(
    batch: Batch, key: tuple[int, ...], chunk: int, config: TrainConfig, device: torch.device
) -> tuple[Tensor, Tensor, Tensor, Mapping[str, Tensor]]:
    """Latents, noise, noise levels and conditions of a batch."""
    levels, noise = [], []
    for number, clip in zip(batch["numbers"].tolist(), batch["latents"], strict=True):
        rng = _generator(*key, number)
        levels.append(sample_noise_levels(1, len(clip), chunk, config.prefix_probability, rng))
        noise.append(torch.randn(clip.shape, generator=rng))
    conditions = {name: rows.to(device) for name, rows in batch["conditions"].items()}
    return batch["latents"].to(device), torch.stack(noise).to(device), torch.cat(levels).to(device), conditions


def _generator(*key: int) -> torch.Generator:
    return torch.Generator().manual_seed(int(np.random.SeedSequence(key).generate_state(1)[0]))
