"""The training loop. One process, several GPUs and `torchrun` are the same code, by Accelerate.

Everything random in a step follows from (seed, step, number of the clip), so a run that was interrupted and resumed has
exactly the weights of one that was not, and several processes train as one does.
"""

import contextlib
import json
import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor
from torch.utils.data import DataLoader, SequentialSampler, Subset

from lssvwm_core.device import autocast, fastest_precision, keep_freed_memory
from lssvwm_core.diffusion import flow_loss, sample_noise_levels
from lssvwm_core.model.autoencoder import load_autoencoder
from lssvwm_core.model.config import ModelConfig
from lssvwm_core.model.storage import AUTOENCODER_FOLDER
from lssvwm_core.model.world_model import WorldModel
from lssvwm_core.training.averaging import update_average
from lssvwm_core.training.checkpoints import drop_metrics_after, load_progress, load_weights, save_checkpoint
from lssvwm_core.training.config import RunConfig, TrainConfig, save_config
from lssvwm_core.training.cost import flops_a_frame, peak_tflops
from lssvwm_core.training.data import Batch, ClipDataset
from lssvwm_core.training.distillation import TEACHER_FOLDER, load_distillation
from lssvwm_core.training.metrics import Meter, StepReport
from lssvwm_core.training.runs import Run
from lssvwm_core.training.setup import action_scaling, build_model, check_same_data, check_trackers, create_run
from lssvwm_core.training.sharding import shard, whole, whole_model
from lssvwm_core.training.stopping import agreed, lost_processes_told, noted_signals, stop_reason
from lssvwm_core.world import World, compile_where_possible, load_model
from lssvwm_datasets.errors import LssvwmError
from lssvwm_datasets.shards import ShardHeader, ShardSet, open_shards
from lssvwm_datasets.sources import TRAIN

logger = logging.getLogger(__name__)
Sampler = Callable[[World, int], None]  # renders a sample of a world at a step
Objective = Callable[[torch.nn.Module, Tensor, Tensor, Tensor, Mapping[str, Tensor], int], Tensor]  # as `flow_loss`


@dataclass
class Outcome:
    """How a training ended."""

    step: int = 0
    stopped_by: str = "done"  # done, minutes, or a signal's name
    checkpoint: Path | None = None


def train(
    run: Run,
    config: RunConfig,
    device: torch.device,
    minutes: float | None = None,
    init_from: Path | None = None,
    make_sample: Sampler | None = None,
    outcome: Outcome | None = None,
) -> Iterator[StepReport]:
    """Train until the configured step, for `minutes` at most, or until SIGINT or SIGTERM, yielding reports.

    The state is saved on the way and at the end, whatever ends it; `outcome` tells how it ended. Only weights are taken
    from `init_from`, the teacher where the run distils. Raises: LssvwmError for data that does not fit the model, and
    when the loss is no longer finite (the last checkpoint is kept).
    """
    keep_freed_memory()
    outcome = outcome or Outcome()
    shards = open_shards(Path(config.data), TRAIN)
    check_trackers(config.train.track)
    accelerator = Accelerator(
        cpu=device.type == "cpu", log_with=list(config.train.track) or None, project_dir=run.folder
    )
    precision = fastest_precision(device) if config.train.precision == "auto" else config.train.precision
    config = replace(config, train=replace(config.train, precision=precision))
    origin = init_from if run.last is None else run.last / "model"
    if origin is None and config.distill:
        raise LssvwmError(f"{run.folder}: distils {config.distill.teacher}; start it with: lssvwm distill")
    if origin is None:
        initial, scaling = None, action_scaling(shards)
    else:
        initial, header, _ = load_model(origin)
        check_same_data(header, shards, origin)
        scaling = initial.config.action_scaling  # its weights know no other
    torch.manual_seed(config.train.seed)
    model = build_model(config, shards.header, scaling)
    model.activation_checkpointing = config.train.activation_checkpointing
    if initial is not None and run.last is None:
        if initial.config != model.config:
            raise LssvwmError(f"{init_from}: its model differs from this run's; give the same preset and --set model.…")
        model.load_state_dict(initial.state_dict())
    if config.train.compile:
        compile_where_possible(model, accelerator.device)
    average = WorldModel(model.config).eval()
    average.load_state_dict(model.state_dict())
    if run.last is not None:
        load_weights(run.last, model, average)
    sharded = config.train.shard_model and accelerator.num_processes > 1
    if sharded:
        shard(model, accelerator.device)
        shard(average, accelerator.device)
    else:
        average.to(accelerator.device)
    optimizer = torch.optim.AdamW(_parameter_groups(model, config.train), betas=(0.9, 0.99))
    wrapped, optimizer = (model, optimizer) if sharded else accelerator.prepare(model, optimizer)
    step = 0
    if run.last is not None:
        step = outcome.step = load_progress(run.last, optimizer)
    elif accelerator.is_main_process:
        create_run(run, shards, initial if config.distill else None)
    if accelerator.is_main_process:
        save_config(run.config_file, config)
        drop_metrics_after(run.metrics_file, step)
    objective: Objective = flow_loss
    if config.distill:
        accelerator.wait_for_everyone()  # until the teacher is copied
        objective = load_distillation(run.folder / TEACHER_FOLDER, config.distill, accelerator.device)
    if config.train.track:
        accelerator.init_trackers(run.folder.name)

    def save() -> None:
        main = accelerator.is_main_process
        weights, optimizer_state = whole((model.state_dict(), optimizer.state_dict()), keep=main)
        world = whole_model(average, keep=main)
        if main:
            kept, steps = config.train.keep_checkpoints, config.sampling_steps
            outcome.checkpoint = save_checkpoint(run, step, weights, world, optimizer_state, shards.header, kept, steps)
        accelerator.wait_for_everyone()

    batches = _loader(shards, model.config, config, accelerator, step)
    meter, started, resumed_at = _meter(accelerator, model.config, config), time.monotonic(), step
    total = config.train.total_steps
    with noted_signals() as received, lost_processes_told(run, accelerator):
        while step < total:
            learning_rate = config.train.learning_rate * schedule(step, config.train)
            for group in optimizer.param_groups:
                group["lr"] = learning_rate
            chunk = _chunk_of(step, config.train, model.config)
            loss, norm = _gradients(wrapped, meter.timed(batches), chunk, step, config.train, accelerator, objective)
            if not (math.isfinite(loss) and math.isfinite(norm)):
                raise LssvwmError(
                    f"step {step + 1}: loss {loss}, gradient norm {norm}: not finite; stopped. The last good "
                    f"checkpoint is {run.last or 'none yet'}; go on from it with --init-from, another --name and "
                    "a lower --set train.learning_rate"
                )
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            update_average(average, model, config.train.ema_decay, step)
            step += 1
            outcome.step = step
            meter.losses.append(loss)

            if step % config.train.log_every == 0 or step == total:
                report = meter.report(step, learning_rate, norm, chunk, time.monotonic() - started)
                if accelerator.is_main_process:
                    with run.metrics_file.open("a") as file:
                        file.write(json.dumps(asdict(report)) + "\n")
                if config.train.track:
                    accelerator.log({"loss": report.loss, "learning_rate": learning_rate}, step=step)
                yield report
            stop = stop_reason(received, minutes, started)
            if agreed(stop is not None, accelerator):
                outcome.stopped_by = stop or "another process"
                break
            if step % config.train.checkpoint_every == 0 and step < total:
                save()
            every = config.train.sample_every
            if make_sample and every and step % every == 0:
                world = whole_model(average, keep=accelerator.is_main_process)
                if accelerator.is_main_process:
                    _sample(make_sample, _sample_world(world, run, shards.header, config, accelerator.device), step)
        if step > resumed_at:
            save()
    if config.train.track:
        accelerator.end_training()


def _sample(make_sample: Sampler, world: World, step: int) -> None:
    try:
        make_sample(world, step)
    except LssvwmError as error:  # no validation split, say: no reason to end a training
        logger.warning("no sample at step %d: %s", step, error)


def _meter(accelerator: Accelerator, model: ModelConfig, config: RunConfig) -> Meter:
    """It counts FLOPs on GPUs of which the peak is known, and where no teacher computes beside the model."""
    device = accelerator.device
    counted = device.type == "cuda" and config.distill is None
    peak = peak_tflops(torch.cuda.get_device_name(device)) if counted else None
    tokens = model.grid[0] * model.grid[1]
    return Meter(accelerator.num_processes, tokens, flops_a_frame(model) if peak else 0.0, peak)


def _gradients(
    model: torch.nn.Module,
    batches: Iterator[Batch],
    chunk: int,
    step: int,
    config: TrainConfig,
    accelerator: Accelerator,
    objective: Objective,
) -> tuple[float, float]:
    """Accumulate and clip the gradients of one step; returns the loss (mean over processes) and the gradient norm."""
    loss = torch.zeros((), device=accelerator.device)
    for part in range(config.accumulate):
        last = part == config.accumulate - 1
        with contextlib.nullcontext() if last else accelerator.no_sync(model):
            with autocast(accelerator.device, config.precision):
                part_loss = _loss(model, next(batches), chunk, step, part, config, accelerator, objective)
                part_loss = part_loss / config.accumulate
            accelerator.backward(part_loss)
        loss += part_loss.detach()
    norm = float(whole(accelerator.clip_grad_norm_(model.parameters(), config.clip_norm)))
    return float(accelerator.reduce(loss, "mean")), norm


def schedule(step: int, config: TrainConfig) -> float:
    """Learning rate over its maximum: linear warm-up, constant, linear fall to zero over the last `decay_share`."""
    warm = min(1.0, (step + 1) / max(1, config.warmup_steps))
    left = (config.total_steps - step) / max(1.0, config.decay_share * config.total_steps)
    return min(warm, 1.0, left)


def _loss(
    model: torch.nn.Module,
    batch: Batch,
    chunk: int,
    step: int,
    part: int,
    config: TrainConfig,
    accelerator: Accelerator,
    objective: Objective,
) -> Tensor:
    latents = batch["latents"]
    levels, noise = [], []
    for number, clip in zip(batch["numbers"].tolist(), latents, strict=True):
        rng = _generator(config.seed, step, part, number)
        levels.append(sample_noise_levels(1, len(clip), chunk, config.prefix_probability, rng))
        noise.append(torch.randn(clip.shape, generator=rng))
    device = accelerator.device
    conditions = {name: rows.to(device) for name, rows in batch["conditions"].items()}
    return objective(
        model, latents.to(device), torch.stack(noise).to(device), torch.cat(levels).to(device), conditions, chunk
    )


def _loader(
    shards: ShardSet, model: ModelConfig, config: RunConfig, accelerator: Accelerator, step: int
) -> Iterator[Batch]:
    """The batches of this process from `step` on."""
    accumulate = config.train.accumulate
    shapes = [(end * accumulate, stage.batch_size, stage.frames) for end, stage in config.train.stage_ends()]
    dataset = ClipDataset(
        shards, tuple(model.streams), config.sampling, shapes, config.train.seed, accelerator.process_index
    )
    rest = Subset(dataset, range(step * accumulate, len(dataset)))
    workers = config.train.workers
    return iter(DataLoader(rest, batch_size=None, sampler=SequentialSampler(rest), num_workers=workers))


def _chunk_of(step: int, config: TrainConfig, model: ModelConfig) -> int:
    """The chunk size of a step: drawn at random, the same in every process."""
    rng = _generator(config.seed, step)
    return model.chunk_sizes[int(torch.randint(len(model.chunk_sizes), (), generator=rng))]


def _generator(*key: int) -> torch.Generator:
    return torch.Generator().manual_seed(int(np.random.SeedSequence(key).generate_state(1)[0]))


def _parameter_groups(model: WorldModel, config: TrainConfig) -> list[dict[str, Any]]:
    """Weight decay for matrices only."""
    matrices = [parameter for parameter in model.parameters() if parameter.ndim >= 2]
    others = [parameter for parameter in model.parameters() if parameter.ndim < 2]
    return [
        {"params": matrices, "weight_decay": config.weight_decay, "lr": config.learning_rate},
        {"params": others, "weight_decay": 0.0, "lr": config.learning_rate},
    ]


def _sample_world(average: WorldModel, run: Run, header: ShardHeader, config: RunConfig, device: torch.device) -> World:
    autoencoder = load_autoencoder(run.folder / AUTOENCODER_FOLDER).to(device)
    return World(average.to(device), autoencoder, header, device, average.config.chunk_sizes[0], config.sampling_steps)
