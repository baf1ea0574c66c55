"""`lssvwm train-sight`: what sees targets in a world's frames, for `lssvwm plan`."""

from pathlib import Path
from typing import Annotated

import typer

from lssvwm_cli.console import progress, say
from lssvwm_cli.gathering import gather_splits
from lssvwm_cli.options import Checkpoint, Device


def train_sight(
    source: Annotated[
        Path | None, typer.Argument(help="Folder of recordings with targets. [default: the samples that ship]")
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder to write the sight head to.")] = Path("runs/sight"),
    checkpoint: Checkpoint = None,
    steps: Annotated[int, typer.Option(min=1, help="Training steps.")] = 2000,
    seed: Annotated[int, typer.Option(help="Seed of the training.")] = 0,
    device: Device = "auto",
) -> None:
    """Learn to see from a frame's latents which targets are in sight, and where."""
    from lssvwm_core.model.sight_head import save_sight_head
    from lssvwm_core.training.sight import gather, new_sight_head, told_apart, train_sight_head
    from lssvwm_core.world import load_world
    from lssvwm_datasets.files import write_json

    world = load_world(checkpoint, device)
    train, held_out = gather_splits(source, world, "Encoding", gather)
    head = new_sight_head(train, world, seed)
    with progress("Training", steps, "steps") as update:
        for step, loss in train_sight_head(head, train, world.device, steps, seed):
            update(step, f"loss {loss:.4f}")
    told = told_apart(head, held_out, world.device)
    save_sight_head(out, head)
    frames = len(train.latents)
    write_json(out / "recipe.json", {"steps": steps, "seed": seed, "train_frames": frames, "validation_auc": told})
    say(f"held-out frames: a target in sight is told from one that is not {told:.1%} of the time\nsight head in {out}")
