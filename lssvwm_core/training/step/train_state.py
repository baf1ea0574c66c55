"""What is trained: the model, its moving average and its optimiser, whole or shared out over the processes."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import nn

from lssvwm_core.model.world_model import WorldModel
from lssvwm_core.training.checkpoint import restore_optimizer, restore_weights, save_checkpoint
from lssvwm_core.training.run.config import RunConfig, TrainConfig
from lssvwm_core.training.run.folder import Run
from lssvwm_core.training.step.ema import update_ema
from lssvwm_core.training.step.sharding import gather, gather_model, shard
from lssvwm_core.world import compile_where_possible
from lssvwm_datasets.shards import ShardHeader


@dataclass
class TrainState:
    """A model in training.

    Attributes:
        model: its weights as they are.
        wrapped: the model as it is called, so that gradients are those of all processes.
        ema: the exponential moving average of the weights, which becomes the world.
        optimizer: AdamW.
        steps: how many were taken.
    """

    model: WorldModel
    wrapped: nn.Module
    ema: WorldModel
    optimizer: torch.optim.Optimizer
    steps: int

    def update(self, learning_rate: float, ema_decay: float) -> None:
        """Update the weights by their gradients, then the EMA."""
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        update_ema(self.ema, self.model, ema_decay, self.steps)
        self.steps += 1

    def save(self, run: Run, header: ShardHeader, config: RunConfig, accelerator: Accelerator) -> Path | None:
        """Write a checkpoint: every process must call it; the main one writes and returns its folder."""
        main, checkpoint = accelerator.is_main_process, None
        weights, optimizer_state = gather((self.model.state_dict(), self.optimizer.state_dict()), keep=main)
        world = gather_model(self.ema, keep=main)
        if main:
            kept, sampler = config.train.keep_checkpoints, config.sampler
            checkpoint = save_checkpoint(run, self.steps, weights, world, optimizer_state, header, kept, sampler)
        accelerator.wait_for_everyone()
        return checkpoint


def make_train_state(
    model: WorldModel, config: TrainConfig, accelerator: Accelerator, checkpoint: Path | None
) -> TrainState:
    """Start with a model's weights, or go on from a checkpoint. Raises: LssvwmError when that is damaged."""
    model.activation_checkpointing = config.activation_checkpointing
    if config.compile:
        compile_where_possible(model, accelerator.device)
    if config.few:
        model.requires_grad_(False)
        for parameter in model.few_parameters():
            parameter.requires_grad_(True)
    ema = WorldModel(model.config).eval()
    ema.load_state_dict(model.state_dict())
    if checkpoint is not None:
        restore_weights(checkpoint, model, ema)
    sharded = config.shard_model and accelerator.num_processes > 1
    if sharded:
        shard(model, accelerator.device)
        shard(ema, accelerator.device)
    else:
        ema.to(accelerator.device)
    optimizer = torch.optim.AdamW(_parameter_groups(model, config), betas=(0.9, 0.99), fused=True)
    wrapped, optimizer = (model, optimizer) if sharded else accelerator.prepare(model, optimizer)
    steps = 0 if checkpoint is None else restore_optimizer(checkpoint, optimizer)
    return TrainState(model, wrapped, ema, optimizer, steps)


def _parameter_groups(model: WorldModel, config: TrainConfig) -> list[dict[str, Any]]:
    """Weight decay for matrices only."""
    learnt = [parameter for parameter in model.parameters() if parameter.requires_grad]
    matrices = [parameter for parameter in learnt if parameter.ndim >= 2]
    others = [parameter for parameter in learnt if parameter.ndim < 2]
    return [
        {"params": matrices, "weight_decay": config.weight_decay, "lr": config.learning_rate},
        {"params": others, "weight_decay": 0.0, "lr": config.learning_rate},
    ]
