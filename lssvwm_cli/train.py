"""`lssvwm train`."""

import math
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    import torch

    from lssvwm_core.training.run.config import RunConfig
    from lssvwm_core.training.run.folder import Run

from lssvwm_cli.completion import presets, runs
from lssvwm_cli.console import duration, progress, say, show

LONGEST_TIMED_STEP = 1e12  # FLOP


def train(
    data: Annotated[
        str | None, typer.Option(help="Folder of shards, from lssvwm prepare, or a hub id. [default: data/maze]")
    ] = None,
    name: Annotated[
        str | None,
        typer.Option(help="Name of the run, a folder below runs/. [default: `<data>-<preset>`]", autocompletion=runs),
    ] = None,
    preset: Annotated[
        str | None,
        typer.Option(
            help="Size of the model: tiny, small or base. [default: what fits the device]", autocompletion=presets
        ),
    ] = None,
    config: Annotated[
        Path | None, typer.Option(help="TOML file with a preset and the sections [model], [sampling] and [train].")
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", help="Change a setting, SECTION.FIELD=VALUE, such as model.depth=6; may be given again."),
    ] = None,
    steps: Annotated[
        int | None, typer.Option(min=1, help="Training step at which to end. [default: the stages of the config]")
    ] = None,
    minutes: Annotated[float | None, typer.Option(help="Save and stop after so many minutes.")] = None,
    clip_frames: Annotated[int | None, typer.Option(min=1, help="Train on clips of so many frames throughout.")] = None,
    batch_size: Annotated[int | None, typer.Option(min=1, help="Clips in each step of each process.")] = None,
    resume: Annotated[bool, typer.Option(help="Continue the run if it is there already.")] = True,
    init_from: Annotated[
        str | None, typer.Option(help="Start from the weights (and shape) of a run, world or hub id.")
    ] = None,
    compile: Annotated[
        bool,
        typer.Option(help="Compile the model: the start is slow, the steps after it are faster. Needs a C++ compiler."),
    ] = False,
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
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads to use. [default: all]")] = None,
) -> None:
    """Train a world model on shards. Given again, the command continues its run; Ctrl-C saves first.

    Several GPUs: torchrun --nproc-per-node=N $(which lssvwm) train …
    """
    import torch

    from lssvwm_core.device import pick_device
    from lssvwm_core.resolve import resolve_data, resolve_world
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
    overrides = list(set_ or [])
    if clip_frames or batch_size:
        frames, size = clip_frames or 100, batch_size or 4
        overrides.append(f"train.stages=[{{frames = {frames}, steps = 10000, batch_size = {size}}}]")
    if compile:
        overrides.append("train.compile=true")
    if shard_model:
        overrides.append("train.shard_model=true")
    if steps:
        overrides.append(f"train.steps={steps}")
    shards = resolve_data(data)
    wanted = make_config(preset, shards, config, overrides)
    if initial and not shape_is_chosen:
        wanted = with_model(wanted, load_model(initial)[0].config)
    folder = RUNS / (name or f"{Path(data).name if data else shards.name}-{wanted.preset}")
    opened, settings = open_run(folder, wanted, resume, adopt=not chosen)
    if estimate:
        _estimate(settings, where, gpu)
        return
    run_and_tell(opened, settings, where, minutes, initial, shards)


def run_and_tell(
    run: "Run", config: "RunConfig", device: "torch.device", minutes: float | None, initial: Path | None, shards: Path
) -> None:
    """Train with a progress bar, and say how it ended and how to go on."""
    from lssvwm_core.process import keep_freed_memory
    from lssvwm_core.rendering import write_sample
    from lssvwm_core.training.loop import Outcome, train

    keep_freed_memory()
    folder, total = run.folder, config.train.total_steps
    start = int(run.last.name) if run.last else 0
    if start:
        say(f"continuing {folder} from step {start}")
    outcome, started = Outcome(), time.monotonic()
    timed = minutes is not None
    extent = (math.ceil(60 * minutes), "seconds", 0) if minutes is not None else (total, "steps", start)
    with progress(f"Training {folder.name}", *extent) as update:
        reports = train(
            run,
            config,
            device,
            minutes=minutes,
            init_from=initial,
            make_sample=lambda world, step: write_sample(world, shards, folder / "samples" / f"{step:06d}.mp4"),
            outcome=outcome,
        )
        for report in reports:
            note = f"step {report.step}  loss {report.loss:.4f}  {report.frames_per_second:.0f} frames/s"
            update(round(report.seconds) if timed else report.step, note)
    say(f"step {outcome.step} of {total}, {duration(time.monotonic() - started)}; checkpoint: {outcome.checkpoint}")
    if outcome.step == start:
        say("there was nothing left to do; train on with more --steps")
    if outcome.stopped_by != "done":
        say(f"stopped by {outcome.stopped_by}; go on with the same command")
    if outcome.stopped_by.startswith("SIG"):
        raise typer.Exit(130 if outcome.stopped_by == "SIGINT" else 143)


def _estimate(config: "RunConfig", device: "torch.device", gpu: str) -> None:
    """Print what a training will take: counted for GPUs, timed for this machine where a step is short."""
    from dataclasses import replace

    from lssvwm_core.bench.timing import step_seconds
    from lssvwm_core.device import training_precision
    from lssvwm_core.model.variants import parameters
    from lssvwm_core.training.run.setup import build_model
    from lssvwm_core.training.step import cost
    from lssvwm_datasets.shards import open_shards
    from lssvwm_datasets.sources import TRAIN

    gpus = cost.find_gpus(gpu)
    precision = "bf16" if config.train.precision == "auto" else config.train.precision
    config = replace(config, train=replace(config.train, precision=precision))
    model = build_model(config, open_shards(Path(config.data), TRAIN).header).config
    count = parameters(model)
    state_bytes = cost.STATE_BYTES * count
    show(f"{count:,} parameters, {model.grid[0] * model.grid[1]} tokens a frame, {precision}")
    show(f"weights, gradients, AdamW and EMA: {state_bytes / 2**30:.2f} GiB")
    stages = []
    for number, stage in enumerate(cost.estimate(config, model), start=1):
        stages.append(stage)
        show(
            f"stage {number}: {stage.steps:,} steps of {stage.batch_size} × {stage.frames} frames, "
            f"{stage.flops / 1e12:.3g} TFLOP a step, activations {stage.activation_bytes / 2**30:.2f} GiB "
            f"({stage.checkpointed_bytes / 2**30:.2f} with train.activation_checkpointing)"
        )
    shares = ", ".join(f"{name} {share:.0%}" for name, share in stages[-1].shares.items())
    show(f"of the last stage's FLOPs: {shares}")
    flops = sum(float(stage.computed_flops) * stage.steps for stage in stages)
    checkpointing = config.train.activation_checkpointing
    again = ", with what checkpointing computes again" if checkpointing else ""
    show(f"in all {flops:.3g} FLOP a process, forward and backward{again}")
    needed = state_bytes + max(
        stage.checkpointed_bytes if checkpointing else stage.activation_bytes for stage in stages
    )
    show(f"at {cost.ASSUMED_MFU:.0%} of the peak, of which small models reach less, on a")
    for name, known in gpus.items():
        fits = "" if needed < 1e9 * known.memory else f", but {needed / 1e9:.0f} GB do not fit its {known.memory:.0f}"
        show(f"  {name:<9} {_time(flops / (cost.ASSUMED_MFU * known.tflops * 1e12))}{fits}")
    if device.type == "cpu" and max(stage.flops for stage in stages) > LONGEST_TIMED_STEP:
        show("  this CPU  not timed: a step takes too long")
        return
    chunk = model.chunk_sizes[0]
    timed = [step_seconds(model, stage, chunk, device, repeats=1) for _, stage in config.train.stage_ends()]
    seconds = sum(once * stage.steps for once, stage in zip(timed, stages, strict=True)) * config.train.accumulate
    kind = "CPU" if device.type == "cpu" else "GPU"
    show(f"  this {kind}  {_time(seconds)} (a step of each stage timed, {training_precision(device)})")


def _time(seconds: float) -> str:
    units = ((86400, "days"), (3600, "hours"), (60, "minutes"), (1, "seconds"))
    size, unit = next((size, unit) for size, unit in units if seconds >= 2 * size or size == 1)
    return f"{seconds / size:.1f} {unit}"
