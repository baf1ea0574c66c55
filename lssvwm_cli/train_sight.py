"""`lssvwm train-sight`: what sees targets in a world's frames, for `lssvwm plan`."""

from pathlib import Path
from typing import Annotated

import typer

from lssvwm_cli.console import progress, say
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
    from lssvwm_core.training.sight import auc, gather, new_sight_head, train_sight_head
    from lssvwm_core.world import load_world
    from lssvwm_datasets.files import write_json
    from lssvwm_datasets.format import ReaderOptions
    from lssvwm_datasets.sources import TRAIN, VALIDATION, find_recordings, sample_recordings

    world = load_world(checkpoint, device)
    recordings = find_recordings(
        source or sample_recordings(), world.header.dataset, ReaderOptions(size=world.header.frame_size)
    )
    splits = []
    for split in (TRAIN, VALIDATION):
        count = sum(recording.split == split for recording in recordings)
        with progress(f"Encoding {split} recordings", count, "recordings") as update:
            splits.append(gather(recordings, split, world, update))
    head = new_sight_head(splits[0], world, seed)
    with progress("Training", steps, "steps") as update:
        for step, loss in train_sight_head(head, splits[0], world.device, steps, seed):
            update(step, f"loss {loss:.4f}")
    told = auc(head, splits[1], world.device)
    save_sight_head(out, head)
    frames = len(splits[0].latents)
    write_json(out / "recipe.json", {"steps": steps, "seed": seed, "train_frames": frames, "validation_auc": told})
    say(f"held-out frames: a target in sight is told from one that is not {told:.1%} of the time\nsight head in {out}")
