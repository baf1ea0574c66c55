"""What a training will take, before it begins: counted for GPUs, timed for this machine where a step is short."""

from dataclasses import dataclass, replace
from pathlib import Path

import torch

from lssvwm_core.bench.train import step_seconds
from lssvwm_core.device import training_precision
from lssvwm_core.model.config import ModelConfig
from lssvwm_core.model.variants import parameters
from lssvwm_core.training.run.config import RunConfig
from lssvwm_core.training.run.setup import model_config
from lssvwm_core.training.step.cost import STATE_BYTES, Gpu, find_gpus, step_cost
from lssvwm_datasets.shards import open_shards
from lssvwm_datasets.sources import TRAIN

ASSUMED_MFU = 0.35
LONGEST_TIMED_STEP = 1e12  # FLOP, on a CPU


@dataclass(frozen=True)
class StageEstimate:
    """One stage of a run, in each process."""

    frames: int
    batch_size: int
    steps: int
    flops: int
    """A step: model FLOPs, without what activation checkpointing computes again."""
    computed_flops: int
    """A step, with it."""
    shares: dict[str, float]
    """The parts of the forward FLOPs by kind of mixer, `mlp` and `rest`."""
    activation_bytes: int
    checkpointed_bytes: int
    """The activations with activation checkpointing."""


@dataclass(frozen=True)
class GpuEstimate:
    gpu: Gpu
    seconds: float
    fits: bool


@dataclass(frozen=True)
class Estimate:
    """A whole training, in each process."""

    parameters: int
    tokens: int
    """Tokens of a frame."""
    precision: str
    checkpointing: bool
    stages: tuple[StageEstimate, ...]
    state_bytes: int
    """Weights, gradients, AdamW's moments and EMA."""
    needed_bytes: int
    """The state, and the activations of the largest stage."""
    flops: float
    """Computed by all steps, forward and backward."""
    assumed_mfu: float
    """The part of a GPU's peak that the times below assume."""
    gpus: dict[str, GpuEstimate]
    here_seconds: float | None
    """On this machine, by timing a step of each stage; None where one would take too long."""
    here_precision: str


def estimate_training(config: RunConfig, device: torch.device, gpu: str = "") -> Estimate:
    """What a training takes on GPUs (all that are known, or those called `gpu`) and on this device.

    Raises: LssvwmError for shards that are not there, a model that does not fit them, or an unknown GPU.
    """
    known = find_gpus(gpu)
    precision = "bf16" if config.train.precision == "auto" else config.train.precision
    config = replace(config, train=replace(config.train, precision=precision))
    model = model_config(config, open_shards(Path(config.data), TRAIN).header)
    stages, checkpointing = estimate_stages(config, model), config.train.activation_checkpointing
    state_bytes = STATE_BYTES * parameters(model)
    needed = state_bytes + max(s.checkpointed_bytes if checkpointing else s.activation_bytes for s in stages)
    flops = sum(float(stage.computed_flops) * stage.steps for stage in stages)
    gpus = {
        name: GpuEstimate(found, flops / (ASSUMED_MFU * found.tflops * 1e12), needed < 1e9 * found.memory)
        for name, found in known.items()
    }
    return Estimate(
        parameters=parameters(model),
        tokens=model.grid[0] * model.grid[1],
        precision=precision,
        checkpointing=checkpointing,
        stages=stages,
        state_bytes=state_bytes,
        needed_bytes=needed,
        flops=flops,
        assumed_mfu=ASSUMED_MFU,
        gpus=gpus,
        here_seconds=_timed(config, model, stages, device),
        here_precision=training_precision(device),
    )


def estimate_stages(config: RunConfig, model: ModelConfig) -> tuple[StageEstimate, ...]:
    """What each stage takes, with the smallest chunks: the most bytes, and as many FLOPs as any."""
    estimates, start = [], 0
    for end, stage in config.train.stage_ends():
        cost = step_cost(model, stage.batch_size, stage.frames, min(model.chunk_sizes), config.train.precision)
        again = cost.recomputed_flops if config.train.activation_checkpointing else 0
        total = sum(cost.forward_flops.values())
        estimates.append(
            StageEstimate(
                frames=stage.frames,
                batch_size=stage.batch_size,
                steps=end - start,
                flops=config.train.accumulate * cost.flops,
                computed_flops=config.train.accumulate * (cost.flops + again),
                shares={name: flops / total for name, flops in cost.forward_flops.items()},
                activation_bytes=cost.activation_bytes,
                checkpointed_bytes=cost.checkpointed_bytes,
            )
        )
        start = end
    return tuple(estimates)


def _timed(
    config: RunConfig, model: ModelConfig, stages: tuple[StageEstimate, ...], device: torch.device
) -> float | None:
    if device.type == "cpu" and max(stage.flops for stage in stages) > LONGEST_TIMED_STEP:
        return None
    seconds = 0.0
    for (_, stage), estimate in zip(config.train.stage_ends(), stages, strict=True):
        once = step_seconds(model, stage, model.chunk_sizes[0], device, repeats=1)
        seconds += once * estimate.steps * config.train.accumulate
    return seconds
