"""`lssvwm train`."""

import math
import time
import warnings
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    import torch

    from lssvwm_core.training.estimate import Estimate
    from lssvwm_core.training.run.config import RunConfig
    from lssvwm_core.training.run.folder import Run

from lssvwm_cli.compiling import keep_what_is_compiled
from lssvwm_cli.completion import presets, runs
from lssvwm_cli.console import duration, progress, say, say_made, show
from lssvwm_cli.options import Compile, Device, Minutes, Resume, Set, Shards, Threads
from lssvwm_cli.signals import Signals
from lssvwm_core.presets import PRESETS


def train(
    data: Shards = None,
    name: Annotated[
        str | None,
        typer.Option(help="Name of the run, a folder below runs/. [default: `<data>-<preset>`]", autocompletion=runs),
    ] = None,
    preset: Annotated[
        str | None,
        typer.Option(
            help=f"Size of the model: {', '.join(PRESETS)}. [default: what fits the device]", autocompletion=presets
        ),
    ] = None,
    config: Annotated[
        Path | None, typer.Option(help="TOML file with a preset and the sections [model], [sampling] and [train].")
    ] = None,
    set_: Set = None,
    steps: Annotated[
        int | None, typer.Option(min=1, help="Training step at which to end. [default: the stages of the config]")
    ] = None,
    minutes: Minutes = None,
    clip_frames: Annotated[int | None, typer.Option(min=1, help="Train on clips of so many frames throughout.")] = None,
    batch_size: Annotated[int | None, typer.Option(min=1, help="Clips in each step of each process.")] = None,
    resume: Resume = True,
    init_from: Annotated[
        str | None, typer.Option(help="Start from the weights (and shape) of a run, world or hub id.")
    ] = None,
    compile: Compile = False,
    shard_model: Annotated[
        bool,
        typer.Option(
            "--shard-model", help="Spread the model over the GPUs of torchrun (FSDP2), when it is too large for one."
        ),
    ] = False,
    estimate: Annotated[
        bool, typer.Option("--estimate", help="Print parameters, FLOPs, memory and time; train nothing.")
    ] = False,
    gpu: Annotated[str, typer.Option(help="With --estimate: a GPU such as H100, A100, 4090. [default: several]")] = "",
    device: Device = "auto",
    threads: Threads = None,
) -> None:
    """Train a world model on shards. Given again, the command continues its run; Ctrl-C saves first.

    Several GPUs: torchrun --nproc-per-node=N $(which lssvwm) train …
    """
    import torch

    from lssvwm_core.device import pick_device
    from lssvwm_core.presets import Stage
    from lssvwm_core.resolve import resolve_data, resolve_world
    from lssvwm_core.training.estimate import estimate_training
    from lssvwm_core.training.run.config import make_config, with_model
    from lssvwm_core.training.run.folder import RUNS
    from lssvwm_core.training.run.setup import open_run
    from lssvwm_core.world import load_model

    if threads:
        torch.set_num_threads(threads)
    where = pick_device(device)
    chosen = any((preset, config, set_, clip_frames, batch_size))
    initial = resolve_world(init_from) if init_from else None
    shape_is_chosen = preset or config or any(override.startswith("model.") for override in set_ or [])
    preset = preset or ("tiny" if where.type == "cpu" else "small")
    options: dict[str, Any] = {}
    if clip_frames or batch_size:
        options["stages"] = (Stage(clip_frames or 100, steps=10_000, batch_size=batch_size or 4),)
    if compile:
        options["compile"] = True
    if shard_model:
        options["shard_model"] = True
    if steps:
        options["steps"] = steps
    shards = resolve_data(data)
    wanted = make_config(preset, shards, config, set_ or ())
    wanted = replace(wanted, train=replace(wanted.train, **options))
    if initial and not shape_is_chosen:
        wanted = with_model(wanted, load_model(initial)[0].config)
    folder = RUNS / (name or f"{Path(data).name if data else shards.name}-{wanted.preset}")
    opened, settings = open_run(folder, wanted, resume, adopt=not chosen)
    if estimate:
        _show_estimate(estimate_training(settings, where, gpu), where)
        return
    run_and_tell(opened, settings, where, minutes, initial, shards)


def run_and_tell(
    run: "Run",
    config: "RunConfig",
    device: "torch.device",
    minutes: float | None,
    initial: Path | None,
    shards: Path,
    student: Path | None = None,
) -> None:
    """Train with a progress bar, and say how it ended and how to go on."""
    from lssvwm_core.process import keep_freed_memory
    from lssvwm_core.rendering import write_sample
    from lssvwm_core.training.loop import CheckpointSaved, Finished, train
    from lssvwm_core.training.step.metrics import StepReport

    keep_freed_memory()
    if config.train.compile:
        keep_what_is_compiled()
    warnings.filterwarnings("ignore", "FSDP2-wrapped module .* returned a view", UserWarning)  # nobody writes to it
    folder, total, started = run.folder, config.train.total_steps, time.monotonic()
    start = int(run.last.name) if run.last else 0
    if start:
        say(f"continuing {folder} from step {start}")
    extent = (math.ceil(60 * minutes), "seconds", 0) if minutes is not None else (total, "steps", start)
    checkpoint, end = run.last, Finished(start)
    with Signals() as signals:
        with progress(f"Training {folder.name}", *extent) as update:
            for event in train(
                run,
                config,
                device,
                minutes,
                initial,
                lambda world, out: write_sample(world, shards, out),
                signals,
                student,
            ):
                match event:
                    case StepReport():
                        note = f"step {event.step}  loss {event.loss:.4f}  {event.frames_per_second:.0f} frames/s"
                        update(event.step if minutes is None else round(event.seconds), note)
                    case CheckpointSaved():
                        checkpoint = event.folder
                    case Finished():
                        end = event
        say(f"step {end.step} of {total}, {duration(time.monotonic() - started)}; checkpoint: {checkpoint}")
        if end.step == start and end.stopped_by == "done":
            say("there was nothing left to do; train on with more --steps")
        if end.stopped_by != "done":
            say(f"stopped by {end.stopped_by}; go on with the same command")
        say_made(*sorted(run.samples.glob("*.mp4"))[-1:])
        signals.exit_if_any()


def _show_estimate(estimate: "Estimate", device: "torch.device") -> None:
    show(f"{estimate.parameters:,} parameters, {estimate.tokens} tokens a frame, {estimate.precision}")
    show(f"weights, gradients, AdamW and EMA: {estimate.state_bytes / 2**30:.2f} GiB")
    for number, stage in enumerate(estimate.stages, start=1):
        show(
            f"stage {number}: {stage.steps:,} steps of {stage.batch_size} × {stage.frames} frames, "
            f"{stage.flops / 1e12:.3g} TFLOP a step, activations {stage.activation_bytes / 2**30:.2f} GiB "
            f"({stage.checkpointed_bytes / 2**30:.2f} with train.activation_checkpointing)"
        )
    shares = ", ".join(f"{name} {share:.0%}" for name, share in estimate.stages[-1].shares.items())
    show(f"of the last stage's FLOPs: {shares}")
    again = ", with what checkpointing computes again" if estimate.checkpointing else ""
    show(f"in all {estimate.flops:.3g} FLOP a process, forward and backward{again}")
    show(f"at {estimate.assumed_mfu:.0%} of the peak, of which small models reach less, on a")
    for name, on in estimate.gpus.items():
        fits = "" if on.fits else f", but {estimate.needed_bytes / 1e9:.0f} GB do not fit its {on.gpu.memory:.0f}"
        show(f"  {name:<9} {_time(on.seconds)}{fits}")
    kind = "CPU" if device.type == "cpu" else "GPU"
    if estimate.here_seconds is None:
        show(f"  this {kind}  not timed: a step takes too long")
    else:
        show(f"  this {kind}  {_time(estimate.here_seconds)} (a step of each stage timed, {estimate.here_precision})")


def _time(seconds: float) -> str:
    units = ((86400, "days"), (3600, "hours"), (60, "minutes"), (1, "seconds"))
    size, unit = next((size, unit) for size, unit in units if seconds >= 2 * size or size == 1)
    return f"{seconds / size:.1f} {unit}"
