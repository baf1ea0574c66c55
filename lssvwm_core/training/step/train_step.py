"""One step: forward, backward, update. What is random in them follows from (seed, step, number of the clip)."""

import contextlib
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor, nn

from lssvwm_core.device import autocast
from lssvwm_core.diffusion import flow_loss, sample_noise_levels
from lssvwm_core.training.data.clips import Batch
from lssvwm_core.training.run.config import TrainConfig
from lssvwm_core.training.step.lesson import Lesson
from lssvwm_core.training.step.sharding import gather
from lssvwm_core.training.step.train_state import TrainState

Objective = Callable[[nn.Module, Lesson], Tensor]  # the loss
NOISE = 1  # ends the key of a clip's noise where that is drawn apart from its noise levels


@dataclass(frozen=True)
class StepResult:
    loss: float
    """Mean over the processes."""
    gradient_norm: float
    """Before it was clipped."""
    learning_rate: float
    chunk: int


def flow_objective(model: nn.Module, lesson: Lesson) -> Tensor:
    """`flow_loss`, the objective of a training that distils nothing."""
    latents, noise, noise_levels, conditions, _, chunk = lesson
    return flow_loss(model, latents, noise, noise_levels, conditions, chunk)


def train_step(
    state: TrainState, objective: Objective, batches: Iterator[Batch], config: TrainConfig, accelerator: Accelerator
) -> StepResult:
    """Take one step: accumulate and clip gradients, update the weights and their EMA.

    Raises: FloatingPointError before the update when loss or gradients are not finite.
    """
    model, chunk = state.wrapped, chunk_of(state.steps, state.model.config.chunk_sizes, config)
    loss = torch.zeros((), device=accelerator.device)
    for part in range(config.accumulate):
        last = part == config.accumulate - 1
        lesson = _lesson(next(batches), (config.seed, state.steps, part), chunk, config, accelerator.device)
        with contextlib.nullcontext() if last else accelerator.no_sync(model):
            with autocast(accelerator.device, config.precision):
                part_loss = objective(model, lesson) / config.accumulate
            accelerator.backward(part_loss)
        loss += part_loss.detach()
    norm = float(gather(accelerator.clip_grad_norm_(model.parameters(), config.clip_norm)))
    mean = float(accelerator.reduce(loss, "mean"))
    if not (math.isfinite(mean) and math.isfinite(norm)):
        raise FloatingPointError(f"step {state.steps + 1}: loss {mean}, gradient norm {norm}")
    learning_rate = config.learning_rate * schedule(state.steps, config)
    state.update(learning_rate, config.ema_decay)
    return StepResult(mean, norm, learning_rate, chunk)


def schedule(step: int, config: TrainConfig) -> float:
    """Learning rate over its maximum: linear warm-up, constant, linear fall to zero over the last `decay_share`."""
    warm = min(1.0, (step + 1) / max(1, config.warmup_steps))
    left = (config.total_steps - step) / max(1.0, config.decay_share * config.total_steps)
    return min(warm, 1.0, left)


def chunk_of(step: int, sizes: tuple[int, ...], config: TrainConfig) -> int:
    """The chunk size of a step: drawn at random, the same in every process."""
    return sizes[int(torch.randint(len(sizes), (), generator=_generator(config.seed, step)))]


def _lesson(batch: Batch, key: tuple[int, ...], chunk: int, config: TrainConfig, device: torch.device) -> Lesson:
    """The lesson that a batch makes, on the device.

    The noise of a clip is drawn where it is needed, as it is most of the numbers of a step: on a GPU by a generator of
    the GPU's, with other numbers than on a CPU.
    """
    levels, noise = [], []
    for number, clip in zip(batch["numbers"].tolist(), batch["latents"], strict=True):
        rng = _generator(*key, number)
        prefix, clean = config.prefix_probability, config.clean_probability
        levels.append(sample_noise_levels(1, len(clip), chunk, prefix, rng, clean))
        if device.type != "cpu":
            rng = _generator(*key, number, NOISE, device=device)
        noise.append(torch.randn(clip.shape, generator=rng, device=device))
    latents = batch["latents"].to(device).float()
    conditions, whole = batch["conditions"].to(device), batch["whole"].to(device)
    return Lesson(latents, torch.stack(noise), torch.cat(levels).to(device), conditions, whole, chunk)


def _generator(*key: int, device: torch.device | str = "cpu") -> torch.Generator:
    return torch.Generator(device).manual_seed(int(np.random.SeedSequence(key).generate_state(1)[0]))
