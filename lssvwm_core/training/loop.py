"""The training loop. One process, several GPUs and `torchrun` are the same code, by Accelerate.

Everything random in a step follows from (seed, step, number of the clip), so a run that was interrupted and resumed has
exactly the weights of one that was not, and several processes train as one does.
"""

import json
import logging
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from accelerate import Accelerator
from torch.utils.data import DataLoader, SequentialSampler, Subset

from lssvwm_core.device import training_precision
from lssvwm_core.diffusion import flow_loss
from lssvwm_core.model.autoencoder import load_autoencoder
from lssvwm_core.model.config import ModelConfig
from lssvwm_core.model.storage import AUTOENCODER_FOLDER
from lssvwm_core.model.world_model import WorldModel
from lssvwm_core.training.checkpoint import drop_metrics_after
from lssvwm_core.training.data.clips import Batch, ClipDataset
from lssvwm_core.training.data.odometry import fit_odometry
from lssvwm_core.training.run.config import RunConfig, TrainConfig, save_run_config
from lssvwm_core.training.run.folder import MODEL_FOLDER, TEACHER_FOLDER, Run
from lssvwm_core.training.run.setup import action_scaling, build_model, check_same_data, check_trackers, create_run
from lssvwm_core.training.run.stopping import agreed, lost_processes_told, noted_signals, stop_reason
from lssvwm_core.training.step.cost import flops_a_frame, peak_tflops
from lssvwm_core.training.step.distillation import load_distillation
from lssvwm_core.training.step.metrics import Meter, StepReport
from lssvwm_core.training.step.sharding import gather_model
from lssvwm_core.training.step.train_state import make_train_state
from lssvwm_core.training.step.train_step import Objective, chunk_of, train_step
from lssvwm_core.world import World, load_model
from lssvwm_datasets.errors import LssvwmError
from lssvwm_datasets.shards import ShardHeader, ShardSet, open_shards
from lssvwm_datasets.sources import TRAIN

logger = logging.getLogger(__name__)
SampleWriter = Callable[[World, int], None]  # renders a sample of a world at a step


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
    make_sample: SampleWriter | None = None,
    outcome: Outcome | None = None,
) -> Iterator[StepReport]:
    """Train until the configured step, for `minutes` at most, or until SIGINT or SIGTERM, yielding reports.

    The state is saved on the way and at the end, whatever ends it; `outcome` tells how it ended. Only weights are taken
    from `init_from`, the teacher where the run distils. Raises: LssvwmError for data that does not fit the model, and
    when the loss is no longer finite (the last checkpoint is kept).
    """
    outcome = outcome or Outcome()
    shards = open_shards(Path(config.data), TRAIN)
    check_trackers(config.train.track)
    accelerator = Accelerator(
        cpu=device.type == "cpu", log_with=list(config.train.track) or None, project_dir=run.folder
    )
    precision = training_precision(device) if config.train.precision == "auto" else config.train.precision
    config = replace(config, train=replace(config.train, precision=precision))
    model, teacher = _starting_model(run, config, shards, init_from)
    state = make_train_state(model, config.train, accelerator, run.last)
    resumed_at = outcome.step = state.steps
    if run.last is None and accelerator.is_main_process:
        create_run(run, shards, teacher)
    if accelerator.is_main_process:
        save_run_config(run.config_file, config)
        drop_metrics_after(run.metrics_file, state.steps)
    objective: Objective = flow_loss
    if config.distill:
        accelerator.wait_for_everyone()  # until the teacher is copied
        objective = load_distillation(run.folder / TEACHER_FOLDER, config.distill, accelerator.device)
    if config.train.track:
        accelerator.init_trackers(run.folder.name)

    batches = _loader(shards, model.config, config, accelerator, state.steps)
    meter, started, total = _meter(accelerator, model.config, config), time.monotonic(), config.train.total_steps
    with noted_signals() as received, lost_processes_told(run, accelerator):
        while state.steps < total:
            step = state.steps + 1
            learning_rate = config.train.learning_rate * schedule(state.steps, config.train)
            chunk = chunk_of(state.steps, model.config.chunk_sizes, config.train)
            loss, norm = train_step(
                state.wrapped, objective, meter.timed(batches), state.steps, chunk, config.train, accelerator
            )
            if not (math.isfinite(loss) and math.isfinite(norm)):
                raise LssvwmError(
                    f"step {step}: loss {loss}, gradient norm {norm}: not finite; stopped. The last good "
                    f"checkpoint is {run.last or 'none yet'}; go on from it with --init-from, another --name and "
                    "a lower --set train.learning_rate"
                )
            state.step(learning_rate, config.train.ema_decay)
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
                outcome.checkpoint = state.save(run, shards.header, config, accelerator)
            every = config.train.sample_every
            if make_sample and every and step % every == 0:
                ema = gather_model(state.ema, keep=accelerator.is_main_process)
                if accelerator.is_main_process:
                    _sample(make_sample, ema.to(accelerator.device), run, shards.header, config, step)
        if state.steps > resumed_at:
            outcome.checkpoint = state.save(run, shards.header, config, accelerator)
    if config.train.track:
        accelerator.end_training()


def _starting_model(
    run: Run, config: RunConfig, shards: ShardSet, init_from: Path | None
) -> tuple[WorldModel, WorldModel | None]:
    """The model of a run, with the weights of `init_from` where it begins with them, and the teacher it begins with."""
    origin = init_from if run.last is None else run.last / MODEL_FOLDER
    if origin is None and config.distill:
        raise LssvwmError(f"{run.folder}: distils {config.distill.teacher}; start it with: lssvwm distill")
    if origin is None:
        initial, scaling, odometry = None, action_scaling(shards), fit_odometry(shards)
    else:
        initial, header, _ = load_model(origin)
        check_same_data(header, shards, origin)
        scaling, odometry = initial.config.action_scaling, initial.config.odometry  # its weights know no other
        if run.last is None and not config.distill and not odometry:
            odometry = fit_odometry(shards)  # no weights depend on it
    torch.manual_seed(config.train.seed)
    model = build_model(config, shards.header, scaling, odometry)
    if initial is None or run.last is not None:
        return model, None
    if replace(initial.config, odometry=model.config.odometry) != model.config:
        raise LssvwmError(f"{init_from}: its model differs from this run's; give the same preset and --set model.…")
    model.load_state_dict(initial.state_dict())
    return model, initial if config.distill else None


def _sample(
    make_sample: SampleWriter, ema: WorldModel, run: Run, header: ShardHeader, config: RunConfig, step: int
) -> None:
    device, chunk = next(ema.parameters()).device, ema.config.chunk_sizes[0]
    autoencoder = load_autoencoder(run.folder / AUTOENCODER_FOLDER).to(device)
    try:
        make_sample(World(ema, autoencoder, header, device, chunk, config.sampler), step)
    except LssvwmError as error:  # no validation split, say: no reason to end a training
        logger.warning("no sample at step %d: %s", step, error)


def _meter(accelerator: Accelerator, model: ModelConfig, config: RunConfig) -> Meter:
    """It counts FLOPs on GPUs of which the peak is known, and where no teacher computes beside the model."""
    device = accelerator.device
    counted = device.type == "cuda" and config.distill is None
    peak = peak_tflops(torch.cuda.get_device_name(device)) if counted else None
    tokens = model.grid[0] * model.grid[1]
    return Meter(accelerator.num_processes, tokens, flops_a_frame(model) if peak else 0.0, peak)


def schedule(step: int, config: TrainConfig) -> float:
    """Learning rate over its maximum: linear warm-up, constant, linear fall to zero over the last `decay_share`."""
    warm = min(1.0, (step + 1) / max(1, config.warmup_steps))
    left = (config.total_steps - step) / max(1.0, config.decay_share * config.total_steps)
    return min(warm, 1.0, left)


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
