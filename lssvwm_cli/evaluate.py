"""`lssvwm eval`: the paper's tasks, and the full turn."""

from pathlib import Path
from typing import Annotated

import typer

from lssvwm_cli.console import progress, say, say_made, show_json
from lssvwm_cli.options import (
    Batch,
    Checkpoint,
    Chunk,
    Conditions,
    Device,
    Guidance,
    HeldOut,
    Json,
    LpipsWeights,
    Steps,
    Temperature,
)


def tasks(incomplete: str) -> list[str]:
    """What the shell offers for the task."""
    from lssvwm_core.evaluation.tasks import TASKS

    return [name for name in TASKS if name.startswith(incomplete)]


def evaluate(
    task: Annotated[
        str,
        typer.Argument(
            help="What the world is asked to do; an unknown name lists what there is. As in the paper: retrieval "
            "(back along the context's poses) and reasoning (on from the context).",
            autocompletion=tasks,
        ),
    ],
    checkpoint: Checkpoint = None,
    data: HeldOut = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder to write the report to. [default: `evaluations/<task>-<world>`]")
    ] = None,
    context: Annotated[
        int | None, typer.Option(help="Frames that the world sees first. [default by task: 400, 576, 240, 100]")
    ] = None,
    frames: Annotated[int | None, typer.Option(help="Frames to generate. [default by task: 400, 224, 560, 20]")] = None,
    episodes: Annotated[int, typer.Option(min=1, help="Validation episodes to measure at most.")] = 8,
    seed: Annotated[int, typer.Option(help="Seed of the first rollout of each episode.")] = 0,
    seeds: Annotated[int, typer.Option(min=1, help="Rollouts of each episode, each with a seed of its own.")] = 1,
    steps: Steps = None,
    guidance: Guidance = None,
    temperature: Temperature = None,
    chunk: Chunk = None,
    batch: Batch = 4,
    conditions: Conditions = "",
    videos: Annotated[int, typer.Option(min=0, help="Episodes to make a video of.")] = 2,
    lpips_weights: LpipsWeights = None,
    fvd_weights: Annotated[
        Path | None,
        typer.Option(
            help="A TorchScript I3D for FVD. [default: a Fréchet distance of latents instead, which is not FVD]"
        ),
    ] = None,
    device: Device = "auto",
    json: Json = False,
) -> None:
    """Measure a world's long memory on held-out episodes; given again, the command goes on where it stopped.

    Beside the model: the model with its memory cut to the attention window, the last context frame repeated, and the
    autoencoder's own ceiling. Per-frame figures are kept in OUT/episodes.
    """
    from lssvwm_core.device import pick_device
    from lssvwm_core.evaluation.report import markdown
    from lssvwm_core.evaluation.run import VIDEOS_FOLDER, EvalOptions
    from lssvwm_core.evaluation.tasks import make_task
    from lssvwm_core.evaluation.world_evaluation import WorldEvaluation, load_measures
    from lssvwm_core.resolve import resolve_data, resolve_world
    from lssvwm_core.world import load_world

    wanted = make_task(task, context, frames)
    folder = resolve_world(checkpoint)
    where = pick_device(device)
    world = load_world(folder, where).sampled_with(steps, chunk, guidance, temperature)
    wanted = wanted.for_world(world)
    source = resolve_data(data, world.header.dataset, samples=True)
    streams = tuple(filter(None, conditions.split(","))) or tuple(world.model.config.streams)
    options = EvalOptions(wanted, episodes, seed, seeds, batch, streams, videos)
    measures = load_measures(world, where, lpips_weights, fvd_weights)
    evaluation = WorldEvaluation(folder, world, source, options, measures)
    out = out or evaluation.default_out
    say(f"world: {folder}\ndata: {source}\nreport: {out}")
    running = evaluation.run(out)
    start = next(running)
    try:
        with progress(f"Evaluating {wanted.name}", start.total, "frames", start.done) as update:
            for now in running:
                update(now.done, "")
    except KeyboardInterrupt:
        say(f"\nstopped; the episodes done so far are in {out}, and the same command goes on from there")
        raise
    figures = evaluation.report(out)
    if json:
        show_json(figures)
    else:
        say(markdown(wanted, figures))
    say_made(*sorted(out.glob("*.png")), *sorted((out / VIDEOS_FOLDER).glob("*.mp4")))
