"""The training loop: a run's batches, step by step, to checkpoints.

One process, several GPUs and `torchrun` are the same code, by Accelerate. Everything random in a step follows from
(seed, step, number of the clip), so a run that was interrupted and resumed has exactly the weights of one that was not
(on GPUs but for the order in which their kernels add), and several processes train as one does.
"""

import contextlib
import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs

from lssvwm_core.device import training_precision
from lssvwm_core.model.autoencoder import load_autoencoder
from lssvwm_core.model.storage import AUTOENCODER_FOLDER
from lssvwm_core.training.checkpoint import remove_left_overs
from lssvwm_core.training.data.clips import Batch
from lssvwm_core.training.data.loader import batches_from, dataset_of
from lssvwm_core.training.run.config import RunConfig, save_run_config
from lssvwm_core.training.run.folder import TEACHER_FOLDER, Run
from lssvwm_core.training.run.lock import locked
from lssvwm_core.training.run.setup import check_trackers, create_run, starting_model
from lssvwm_core.training.run.stopping import Stop, lost_processes_told, never, stop_reason
from lssvwm_core.training.step.distillation import load_distillation
from lssvwm_core.training.step.metrics import StepReport, append_report, drop_reports_after, meter_for
from lssvwm_core.training.step.sharding import gather_model
from lssvwm_core.training.step.train_state import TrainState, make_train_state
from lssvwm_core.training.step.train_step import Objective, flow_objective, train_step
from lssvwm_core.world import World
from lssvwm_datasets.errors import LssvwmError
from lssvwm_datasets.shards import ShardHeader, open_shards
from lssvwm_datasets.sources import TRAIN

logger = logging.getLogger(__name__)
MakeSample = Callable[[World, Path], None]  # rolls a world out into a video


@dataclass(frozen=True)
class CheckpointSaved:
    step: int
    folder: Path


@dataclass(frozen=True)
class Finished:
    """The last event of a training."""

    step: int
    stopped_by: str = "done"  # done, minutes, another process, or what `stop` said


Event = StepReport | CheckpointSaved | Finished


@dataclass(frozen=True)
class Job:
    """A training that is under way in this process."""

    run: Run
    config: RunConfig
    header: ShardHeader
    state: TrainState
    objective: Objective
    batches: Iterator[Batch]
    accelerator: Accelerator
    make_sample: MakeSample | None

    @property
    def is_main(self) -> bool:
        return self.accelerator.is_main_process


def train(
    run: Run,
    config: RunConfig,
    device: torch.device,
    minutes: float | None = None,
    init_from: Path | None = None,
    make_sample: MakeSample | None = None,
    stop: Stop = never,
    student_from: Path | None = None,
) -> Iterator[Event]:
    """Train until the configured step, for `minutes` at most, or until `stop` says why to end.

    The state is saved on the way and at the end, whatever ends it. Only weights are taken from `init_from`, the teacher
    where the run distils, whose student may begin with those of `student_from`. Raises: LssvwmError for data that do
    not fit the model, for a run that is being trained already, and when the loss is no longer finite (the last
    checkpoint is kept).
    """
    check_trackers(config.train.track)
    alike = DistributedDataParallelKwargs(broadcast_buffers=False)  # nothing in them changes; own histories differ
    accelerator = Accelerator(
        cpu=device.type == "cpu",
        log_with=list(config.train.track) or None,
        project_dir=run.folder,
        kwargs_handlers=[alike],
    )
    precision = training_precision(device) if config.train.precision == "auto" else config.train.precision
    config = replace(config, train=replace(config.train, precision=precision))
    lock = locked(run.folder) if accelerator.is_main_process else contextlib.nullcontext()
    with lock, lost_processes_told(run, accelerator):
        with torch.random.fork_rng(devices=[]):  # whoever draws numbers in this process too is not disturbed
            job = _start(run, config, accelerator, init_from, make_sample, student_from)
        yield from _steps(job, minutes, stop)


def _start(
    run: Run,
    config: RunConfig,
    accelerator: Accelerator,
    init_from: Path | None,
    make_sample: MakeSample | None,
    student_from: Path | None,
) -> Job:
    """What a training goes on from, or begins with."""
    shards = open_shards(Path(config.data), TRAIN)
    model, teacher = starting_model(run, config, shards, init_from, student_from)
    dataset = dataset_of(shards, model.config, config, accelerator.process_index)
    state = make_train_state(model, config.train, accelerator, run.last)
    if accelerator.is_main_process:
        if run.last is None:
            create_run(run, shards, teacher)
        remove_left_overs(run)
        save_run_config(run.config_file, config)
        drop_reports_after(run.metrics_file, state.steps)
    objective: Objective = flow_objective
    if config.distill:
        accelerator.wait_for_everyone()  # until the teacher is copied
        objective = load_distillation(run.folder / TEACHER_FOLDER, config.distill, accelerator.device, state.ema)
    if config.train.track:
        accelerator.init_trackers(run.folder.name)
    batches = batches_from(dataset, state.steps * config.train.accumulate, config.train.workers)
    return Job(run, config, shards.header, state, objective, batches, accelerator, make_sample)


def _steps(job: Job, minutes: float | None, stop: Stop) -> Iterator[Event]:
    state, train, total = job.state, job.config.train, job.config.train.total_steps
    resumed_at, started, reason = state.steps, time.monotonic(), None
    meter = meter_for(state.model.config, job.config, job.accelerator)
    _sample_if_due(job)  # one whose time was when the training was stopped or killed
    while state.steps < total and reason is None:
        try:
            result = train_step(state, job.objective, meter.timed(job.batches), train, job.accelerator)
        except FloatingPointError as error:
            raise LssvwmError(
                f"{error}: not finite; stopped. The last good checkpoint is {job.run.last or 'none yet'}; go on from "
                "it with --init-from, another --name and a lower --set train.learning_rate"
            ) from error
        meter.losses.append(result.loss)
        if state.steps % train.log_every == 0 or state.steps == total:
            report = meter.report(state.steps, result, time.monotonic() - started)
            _write_down(job, report)
            yield report
        reason = stop_reason(stop, minutes, started, job.accelerator)
        if reason is None and state.steps % train.checkpoint_every == 0 and state.steps < total:
            yield _save(job)
        if reason is None:
            _sample_if_due(job)
    if state.steps > resumed_at:
        yield _save(job)
    if train.track:
        job.accelerator.end_training()
    yield Finished(state.steps, reason or "done")


def _write_down(job: Job, report: StepReport) -> None:
    if job.is_main:
        append_report(job.run.metrics_file, report)
    if job.config.train.track:
        job.accelerator.log({"loss": report.loss, "learning_rate": report.learning_rate}, step=report.step)


def _save(job: Job) -> CheckpointSaved:
    job.state.save(job.run, job.header, job.config, job.accelerator)
    return CheckpointSaved(job.state.steps, job.run.checkpoint(job.state.steps))


def _sample_if_due(job: Job) -> None:
    """Let the average of the weights make a video where it is time for one, and none is there yet."""
    step, every, path = job.state.steps, job.config.train.sample_every, job.run.sample(job.state.steps)
    if job.make_sample is None or not every or step == 0 or step % every:
        return
    ema = gather_model(job.state.ema, keep=job.is_main)
    if not job.is_main or path.exists():
        return
    device = job.accelerator.device
    autoencoder = load_autoencoder(job.run.folder / AUTOENCODER_FOLDER).to(device)
    world = World(ema.to(device), autoencoder, job.header, device, ema.config.chunk_sizes[0], job.config.sampler)
    try:
        job.make_sample(world, path)
    except (LssvwmError, OSError) as error:  # no validation split, say: no reason to end a training
        logger.warning("no sample at step %d: %s", step, error)
