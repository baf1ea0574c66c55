"""`lssvwm train`."""

import math
import time
from pathlib import Path
from typing import Annotated

import typer

from lssvwm_cli.console import duration, progress, say


def train(
    data: Annotated[Path, typer.Option(help="Folder of shards, from lssvwm prepare, or a hub id.")] = Path("data/maze"),
    name: Annotated[str | None, typer.Option(help="Of the run, below runs/. [default: <data>-<preset>]")] = None,
    preset: Annotated[str | None, typer.Option(help="tiny, small or base. [default: what fits the device]")] = None,
    config: Annotated[Path | None, typer.Option(help="TOML file: preset, [model], [sampling], [train].")] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", help="SECTION.FIELD=VALUE, such as model.depth=6.")] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Where to end. [default: the stages of the config]")] = None,
    minutes: Annotated[float | None, typer.Option(help="Stop and save after so many minutes.")] = None,
    clip_frames: Annotated[int | None, typer.Option(min=1, help="Clips of this length throughout.")] = None,
    batch_size: Annotated[int | None, typer.Option(min=1, help="Clips a step, in each process.")] = None,
    resume: Annotated[bool, typer.Option(help="Continue the run if it is there.")] = True,
    init_from: Annotated[
        str | None, typer.Option(help="Start from the weights (and shape) of a run, world or hub id.")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads. [default: all]")] = None,
) -> None:
    """Train a world model on shards. Given again, the command continues its run; Ctrl-C saves first.

    Several GPUs: torchrun --nproc-per-node=N $(which lssvwm) train …
    """
    import torch

    from lssvwm_core.device import pick_device
    from lssvwm_core.resolve import resolve_shards, resolve_world
    from lssvwm_core.rollout import write_sample
    from lssvwm_core.training.config import make_config, with_model
    from lssvwm_core.training.loop import Outcome
    from lssvwm_core.training.loop import train as run_training
    from lssvwm_core.training.runs import RUNS
    from lssvwm_core.training.setup import open_run
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
    if steps:
        overrides.append(f"train.steps={steps}")
    shards = resolve_shards(data)
    wanted = make_config(preset, shards, config, overrides)
    if initial and not shape_is_chosen:
        wanted = with_model(wanted, load_model(initial)[0].config)
    folder = RUNS / (name or f"{data.name}-{wanted.preset}")
    opened, settings = open_run(folder, wanted, resume, adopt=not chosen)
    total = settings.train.total_steps
    start = int(opened.last.name) if opened.last else 0
    if start:
        say(f"continuing {folder} from step {start}")
    outcome, started = Outcome(), time.monotonic()
    timed = minutes is not None
    extent = (math.ceil(60 * minutes), "seconds", 0) if minutes is not None else (total, "steps", start)
    with progress(f"Training {folder.name}", *extent) as update:
        reports = run_training(
            opened,
            settings,
            where,
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
