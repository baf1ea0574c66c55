"""The training loop. One process, several GPUs and `torchrun` are the same code, by Accelerate.

Everything random in a step follows from (seed, step, number of the clip), so a run that was interrupted and resumed has
exactly the weights of one that was not, and several processes train as one does.
"""

import contextlib
import json
import logging
import math
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.tracking import get_available_trackers
from torch import Tensor
from torch.utils.data import DataLoader, SequentialSampler, Subset

from lssvwm_core.averaging import update_average
from lssvwm_core.config import RunConfig, TrainConfig, load_config, save_config
from lssvwm_core.data import Batch, ClipDataset
from lssvwm_core.device import autocast, fastest_precision, keep_freed_memory
from lssvwm_core.diffusion import flow_loss, sample_noise_levels
from lssvwm_core.metrics import Meter, StepReport
from lssvwm_core.model.autoencoder import load_autoencoder
from lssvwm_core.model.config import ModelConfig, preset
from lssvwm_core.model.storage import AUTOENCODER_FOLDER, weights_sha256
from lssvwm_core.model.world_model import WorldModel
from lssvwm_core.runs import (
    Run,
    drop_metrics_after,
    load_checkpoint,
    save_checkpoint,
)
from lssvwm_core.world import World, load_model
from lssvwm_datasets.errors import LssvwmError
from lssvwm_datasets.shards import ShardHeader, ShardSet, open_shards, read_index
from lssvwm_datasets.sources import TRAIN

logger = logging.getLogger(__name__)
ActionScaling = tuple[tuple[float, float], ...]
Sampler = Callable[[World, int], None]  # renders a sample of a world at a step


@dataclass
class Outcome:
    """How a training ended."""

    step: int = 0
    stopped_by: str = "done"  # done, minutes, or a signal's name
    checkpoint: Path | None = None


def build_model(config: RunConfig, header: ShardHeader, action_scaling: ActionScaling = ()) -> WorldModel:
    """The model of a run: its preset for these latents, actions and poses. Raises: LssvwmError."""
    try:
        columns = {"action_names": header.action_names, "pose_names": header.pose_names}
        shape: dict[str, Any] = {**columns, "action_scaling": action_scaling, **config.model}
        model_config = preset(config.preset, header.latent_shape, **shape)
    except (ValueError, TypeError) as error:
        raise LssvwmError(f"[model] {error}") from error
    _check_stages(config.train, model_config)
    return WorldModel(model_config)


def open_run(folder: Path, config: RunConfig, resume: bool = True, adopt: bool = False) -> tuple[Run, RunConfig]:
    """The run to train: a new one, or the one that is there, continued.

    A run keeps its settings; how long to train may change. With `adopt` the settings of a run that is there are taken
    as they are, else they must be those of `config`. Raises: LssvwmError.
    """
    run = Run(folder)
    if not run.config_file.exists():
        return run, config
    if not resume:
        raise LssvwmError(f"{folder}: there is a run already; continue it without --no-resume or choose another --name")
    saved = load_config(run.config_file)
    wanted = replace(config, train=replace(config.train, steps=saved.train.steps, precision=saved.train.precision))
    if run.last is not None and wanted != saved and not adopt:
        raise LssvwmError(
            f"{folder}: was started with other settings ({_first_difference(saved, wanted)}); "
            "continue it with its own or choose another --name"
        )
    return run, replace(saved, train=replace(saved.train, steps=config.train.steps))


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
    from `init_from`. Raises: LssvwmError for data that does not fit the model, and when the loss is no longer finite
    (the last checkpoint is kept).
    """
    keep_freed_memory()
    outcome = outcome or Outcome()
    shards = open_shards(Path(config.data), TRAIN)
    _check_trackers(config.train.track)
    accelerator = Accelerator(
        cpu=device.type == "cpu", log_with=list(config.train.track) or None, project_dir=run.folder
    )
    precision = fastest_precision(device) if config.train.precision == "auto" else config.train.precision
    config = replace(config, train=replace(config.train, precision=precision))
    origin = init_from if run.last is None else run.last / "model"
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
    average = WorldModel(model.config).to(accelerator.device).eval()
    average.load_state_dict(model.state_dict())
    optimizer = torch.optim.AdamW(_parameter_groups(model, config.train), betas=(0.9, 0.99))
    wrapped, optimizer = accelerator.prepare(model, optimizer)
    step = 0
    if run.last is not None:
        step = outcome.step = load_checkpoint(run.last, model, average, optimizer)
    elif accelerator.is_main_process:
        _create(run, shards)
    if accelerator.is_main_process:
        save_config(run.config_file, config)
        drop_metrics_after(run.metrics_file, step)
    if config.train.track:
        accelerator.init_trackers(run.folder.name)

    def save() -> None:
        if accelerator.is_main_process:
            outcome.checkpoint = save_checkpoint(
                run, step, model, average, optimizer, shards.header, config.train.keep_checkpoints
            )
        accelerator.wait_for_everyone()

    batches = _loader(shards, model.config, config, accelerator, step)
    meter, started, resumed_at = Meter(accelerator.num_processes), time.monotonic(), step
    total = config.train.total_steps
    with _signals() as received:
        while step < total:
            learning_rate = config.train.learning_rate * schedule(step, config.train)
            for group in optimizer.param_groups:
                group["lr"] = learning_rate
            chunk = _chunk_of(step, config.train, model.config)
            loss, norm = _gradients(wrapped, meter.timed(batches), chunk, step, config.train, accelerator)
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
            stop = _stop_reason(received, minutes, started)
            if _agreed(stop is not None, accelerator):
                outcome.stopped_by = stop or "another process"
                break
            if step % config.train.checkpoint_every == 0 and step < total:
                save()
            every = config.train.sample_every
            if make_sample and every and step % every == 0 and accelerator.is_main_process:
                try:
                    make_sample(_sample_world(average, run, shards.header, accelerator.device), step)
                except LssvwmError as error:  # no validation split, say: no reason to end a training
                    logger.warning("no sample at step %d: %s", step, error)
        if step > resumed_at:
            save()
    if config.train.track:
        accelerator.end_training()


def _gradients(
    model: torch.nn.Module,
    batches: Iterator[Batch],
    chunk: int,
    step: int,
    config: TrainConfig,
    accelerator: Accelerator,
) -> tuple[float, float]:
    """Accumulate and clip the gradients of one step; returns the loss (mean over processes) and the gradient norm."""
    loss = torch.zeros((), device=accelerator.device)
    for part in range(config.accumulate):
        last = part == config.accumulate - 1
        with contextlib.nullcontext() if last else accelerator.no_sync(model):
            with autocast(accelerator.device, config.precision):
                part_loss = _loss(model, next(batches), chunk, step, part, config, accelerator) / config.accumulate
            accelerator.backward(part_loss)
        loss += part_loss.detach()
    norm = float(accelerator.clip_grad_norm_(model.parameters(), config.clip_norm))
    return float(accelerator.reduce(loss, "mean")), norm


def schedule(step: int, config: TrainConfig) -> float:
    """Learning rate over its maximum: linear warm-up, constant, linear fall to zero over the last `decay_share`."""
    warm = min(1.0, (step + 1) / max(1, config.warmup_steps))
    left = (config.total_steps - step) / max(1.0, config.decay_share * config.total_steps)
    return min(warm, 1.0, left)


def action_scaling(shards: ShardSet) -> ActionScaling:
    """(mean, standard deviation) of each action column by the index; 0 and 1 for those that are 0 or 1 anyway."""
    statistics = read_index(shards.folder).get("action_statistics", {})
    if not statistics:
        return ()
    rows = [statistics.get(name, {"mean": 0.0, "std": 1.0}) for name in shards.header.action_names]
    return tuple((row["mean"], row["std"] or 1.0) for row in rows)


def check_same_data(header: ShardHeader, shards: ShardSet, owner: Path) -> None:
    """Raises: LssvwmError when shards have another autoencoder, action set or pose than a model was trained with."""
    for what, trained, found in (
        ("autoencoder", header.autoencoder_sha256[:12], shards.header.autoencoder_sha256[:12]),
        ("actions", header.action_names, shards.header.action_names),
        ("poses", header.pose_names, shards.header.pose_names),
        ("latent shape", header.latent_shape, shards.header.latent_shape),
    ):
        if trained != found:
            raise LssvwmError(
                f"{shards.folder}: {what} {found}; {owner} was trained with {trained}; prepare the data for it"
            )


def _loss(
    model: torch.nn.Module,
    batch: Batch,
    chunk: int,
    step: int,
    part: int,
    config: TrainConfig,
    accelerator: Accelerator,
) -> Tensor:
    latents = batch["latents"]
    levels, noise = [], []
    for number, clip in zip(batch["numbers"].tolist(), latents, strict=True):
        rng = _generator(config.seed, step, part, number)
        levels.append(sample_noise_levels(1, len(clip), chunk, config.prefix_probability, rng))
        noise.append(torch.randn(clip.shape, generator=rng))
    device = accelerator.device
    conditions = {name: rows.to(device) for name, rows in batch["conditions"].items()}
    return flow_loss(
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


def _sample_world(average: WorldModel, run: Run, header: ShardHeader, device: torch.device) -> World:
    autoencoder = load_autoencoder(run.folder / AUTOENCODER_FOLDER).to(device)
    return World(average, autoencoder, header, device, chunk=average.config.chunk_sizes[0])


def _create(run: Run, shards: ShardSet) -> None:
    """Make the run's folder, with a copy of the autoencoder that lies beside the shards."""
    autoencoder = shards.folder / AUTOENCODER_FOLDER
    if not autoencoder.is_dir() or weights_sha256(autoencoder) != shards.header.autoencoder_sha256:
        raise LssvwmError(f"{autoencoder}: not the autoencoder that made the shards ({shards.header.autoencoder})")
    run.checkpoints.mkdir(parents=True, exist_ok=True)
    shutil.copytree(autoencoder, run.folder / AUTOENCODER_FOLDER, dirs_exist_ok=True)


def _check_stages(config: TrainConfig, model: ModelConfig) -> None:
    for stage in config.stages:
        for chunk in model.chunk_sizes:
            if stage.frames % chunk or stage.frames < 2 * chunk:
                raise LssvwmError(
                    f"clips of {stage.frames} frames; expected a multiple of the chunk, {chunk}, and two at least"
                )


def _check_trackers(wanted: tuple[str, ...]) -> None:
    installed = [str(tracker) for tracker in get_available_trackers()]
    missing = [tracker for tracker in wanted if tracker not in installed]
    if missing:
        raise LssvwmError(f"[train] track: {', '.join(missing)} is not installed; try: pip install {' '.join(missing)}")


def _first_difference(saved: RunConfig, wanted: RunConfig) -> str:
    for section in ("preset", "data", "model", "sampling", "train"):
        was, is_ = getattr(saved, section), getattr(wanted, section)
        if was != is_:
            return f"{section}: {was}, now {is_}"
    return "none"


def _stop_reason(received: list[str], minutes: float | None, started: float) -> str | None:
    if received:
        return received[0]
    return "minutes" if minutes is not None and time.monotonic() - started > 60 * minutes else None


def _agreed(stop: bool, accelerator: Accelerator) -> bool:
    """True on every process as soon as one wants to stop."""
    if accelerator.num_processes == 1:
        return stop
    return bool(accelerator.reduce(torch.tensor(float(stop), device=accelerator.device)).item() > 0)


@contextlib.contextmanager
def _signals() -> Iterator[list[str]]:
    """The names of SIGINT and SIGTERM as they arrive, instead of dying of them."""
    received: list[str] = []

    def note(number: int, _: FrameType | None) -> None:
        received.append(signal.Signals(number).name)

    previous = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield received
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
