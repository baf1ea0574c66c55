"""`lssvwm probe`: what a world's memory knows of walls and objects."""

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from lssvwm_cli.console import progress, say, show, show_json
from lssvwm_cli.gathering import gather_splits
from lssvwm_cli.options import Checkpoint, Device, Json

STEPS = "50,100,200,500,750,1000"


def probe(
    source: Annotated[
        Path | None, typer.Argument(help="Folder of recordings with maps and targets. [default: the samples that ship]")
    ] = None,
    checkpoint: Checkpoint = None,
    steps: Annotated[str, typer.Option(help="Numbers of steps seen at which the memory is asked.")] = STEPS,
    training_steps: Annotated[int, typer.Option(min=1, help="Training steps of each probe.")] = 2000,
    width: Annotated[int, typer.Option(min=1, help="Units of each of a probe's four layers.")] = 256,
    seed: Annotated[int, typer.Option(help="Seed of the probes.")] = 0,
    out: Annotated[Path, typer.Option(help="Folder to write probe.json and probe.md to.")] = Path("evaluations/probe"),
    device: Device = "auto",
    json: Json = False,
) -> None:
    """Ask the frozen memory where walls and objects are, after the offline probing benchmark of Memory Maze.

    Small networks are trained on the train split and judged on the held-out one: from the memory, from the memory cut
    to the attention window, and from the agent's pose alone.
    """
    from lssvwm_core.model.storage import weights_sha256
    from lssvwm_core.probe import report
    from lssvwm_core.probe.examples import CUT, MEMORY, POSE, gather
    from lssvwm_core.probe.map_probe import errors, new_probe, train_probe
    from lssvwm_core.process import keep_freed_memory
    from lssvwm_core.resolve import resolve_world
    from lssvwm_core.world import load_world
    from lssvwm_datasets.errors import LssvwmError
    from lssvwm_datasets.files import write_json, write_text

    keep_freed_memory()
    if not all(part.isascii() and part.isdigit() and int(part) > 0 for part in steps.split(",")):
        raise LssvwmError(f"--steps {steps}: expected whole numbers above 0, with commas between")
    counts = sorted({int(part) for part in steps.split(",")})
    folder = resolve_world(checkpoint)
    world = load_world(folder, device)
    if counts[0] < world.model.config.frame_window:
        raise LssvwmError(f"--steps {counts[0]}: expected at least {world.model.config.frame_window}, the window")
    train, held_out = gather_splits(source, world, "Watching", partial(gather, steps=counts))
    found = {}
    for what in (MEMORY, CUT, POSE):
        trained = new_probe(train, what, width, seed)
        with progress(f"Probing {what}", training_steps, "steps") as update:
            for done in train_probe(trained, train, what, training_steps, seed):
                update(done, "")
        found[what] = errors(trained, held_out, what)
    found["constant"] = report.constant(train, held_out)
    figures = report.figures(found, held_out.steps)
    facts = {"weights": weights_sha256(folder), "training_steps": training_steps, "width": width, "seed": seed}
    facts |= {"train_examples": len(train.steps), "held_out_examples": len(held_out.steps)}
    write_json(out / "probe.json", facts | {"figures": figures})
    write_text(out / "probe.md", report.markdown(figures))
    if json:
        show_json(figures)
    else:
        show(report.markdown(figures))
        say(f"{out / 'probe'}.json, .md")
