"""What a training step costs, counted without computing it: matrix products, and bytes kept for the backward pass."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.flop_counter import FlopCounterMode

from lssvwm_core.device import autocast
from lssvwm_core.diffusion import flow_loss
from lssvwm_core.model.config import ModelConfig
from lssvwm_core.model.world_model import WorldModel
from lssvwm_core.training.config import RunConfig

STATE_BYTES = 4 + 4 + 8 + 4  # of a parameter: weight, gradient, AdamW's two moments, EMA, all in float32
PEAK_TFLOPS = {"B200": 2250, "H200": 989, "H100": 989, "A100": 312, "L40S": 362, "RTX 4090": 165, "RTX 3090": 71}
"""Of dense bf16 matrix products, by the makers' data sheets."""
ASSUMED_MFU = 0.35


@dataclass(frozen=True)
class StepCost:
    """Of one step on one process.

    Attributes:
        flops: of matrix products, forward, backward, and what activation checkpointing computes again.
        activation_bytes: kept between forward and backward.
    """

    flops: int
    activation_bytes: int


def step_cost(
    config: ModelConfig, batch: int, frames: int, chunk: int, precision: str = "bf16", checkpointing: bool = False
) -> StepCost:
    """The cost of a step on `batch` clips of `frames` frames. The scan is counted as the torch backend computes it."""
    kept: dict[int, int] = {}
    alive: list[Tensor] = []  # so that no two storages have one address

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage._cdata] = storage.nbytes()
        alive.append(tensor)
        return tensor

    with FakeTensorMode():
        model = WorldModel(config)
        model.activation_checkpointing = checkpointing
        own = {parameter.untyped_storage()._cdata for parameter in model.parameters()}
        latents, levels = torch.empty(batch, frames, *config.latent_shape), torch.empty(batch, frames)
        conditions = {name: torch.empty(batch, frames, columns) for name, columns in config.streams.items()}
        with FlopCounterMode(display=False) as counter:
            with autocast(torch.device("cpu"), precision), saved_tensors_hooks(keep, _itself):
                loss = flow_loss(model, latents, torch.empty_like(latents), levels, conditions, chunk)
            loss.backward()
    return StepCost(counter.get_total_flops(), sum(size for address, size in kept.items() if address not in own))


def flops_a_frame(config: ModelConfig) -> float:
    """Of training on one frame, without computing anything again; mean over the model's chunk sizes."""
    chunks = config.chunk_sizes
    frames = 2 * max(config.frame_window, *chunks)
    frames += -frames % max(chunks)
    return sum(step_cost(config, 1, frames, chunk).flops for chunk in chunks) / len(chunks) / frames


def peak_tflops(device_name: str) -> float | None:
    """Of a GPU by its name, such as `NVIDIA H100 80GB HBM3`; None for one that is not in the table."""
    name = device_name.removeprefix("NVIDIA ").removeprefix("GeForce ")
    return next((peak for known, peak in PEAK_TFLOPS.items() if name.startswith(known)), None)


@dataclass(frozen=True)
class StageEstimate:
    """Of one stage of a run, in each process."""

    frames: int
    batch_size: int
    steps: int
    flops: int  # a step
    activation_bytes: int
    checkpointed_bytes: int  # of the activations, with activation checkpointing


def estimate(config: RunConfig, model: ModelConfig) -> Iterator[StageEstimate]:
    """What each stage of a run will take."""
    start = 0
    for end, stage in config.train.stage_ends():
        size = (stage.batch_size, stage.frames, model.chunk_sizes[0], config.train.precision)
        plain, checkpointed = (step_cost(model, *size, checkpointing) for checkpointing in (False, True))
        counted = checkpointed if config.train.activation_checkpointing else plain
        yield StageEstimate(
            stage.frames,
            stage.batch_size,
            end - start,
            counted.flops * config.train.accumulate,
            plain.activation_bytes,
            checkpointed.activation_bytes,
        )
        start = end


def _itself(tensor: Tensor) -> Tensor:
    return tensor
