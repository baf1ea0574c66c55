"""`lssvwm export`: episodes for other programs."""

from pathlib import Path
from typing import Annotated

import typer

from lssvwm_cli.completion import choices, runs
from lssvwm_cli.console import progress, say

FORMATS = ("folder", "lerobot", "webdataset")


def export(
    source: Annotated[
        str | None,
        typer.Argument(help="Shards, recordings or a hub id. [default: data/maze, else the shipped samples]"),
    ] = None,
    format: Annotated[
        str, typer.Option(help="What to write: folder, lerobot or webdataset.", autocompletion=choices(*FORMATS))
    ] = "folder",
    out: Annotated[Path | None, typer.Option(help="A new folder to write to. [default: exports/FORMAT]")] = None,
    split: Annotated[str | None, typer.Option(help="Export this split alone: train or validation.")] = None,
    size: Annotated[str | None, typer.Option(help="Resize the frames of recordings, as prepare does.")] = None,
    rollouts: Annotated[
        str | None,
        typer.Option(help="Export what this world makes of the validation episodes' actions.", autocompletion=runs),
    ] = None,
    context: Annotated[int, typer.Option(min=0, help="Recorded frames that a rollout begins with.")] = 100,
    episodes: Annotated[int | None, typer.Option(min=1, help="Export no more than so many episodes.")] = None,
    seed: Annotated[int, typer.Option(help="The same seed gives the same rollouts.")] = 0,
) -> None:
    """Write episodes as videos and tables that other programs read, and that prepare reads as the same episodes."""
    from itertools import islice

    from lssvwm_core.export import EXPORTS, export_episodes
    from lssvwm_core.export.episodes import recorded, rolled_out
    from lssvwm_core.resolve import resolve_data, resolve_world
    from lssvwm_core.world import load_world
    from lssvwm_datasets.errors import LssvwmError
    from lssvwm_datasets.format import parse_size
    from lssvwm_datasets.sources import SPLITS

    if format not in EXPORTS:
        raise LssvwmError(f"--format {format}: expected one of {', '.join(EXPORTS)}")
    if split is not None and split not in SPLITS:
        raise LssvwmError(f"--split {split}: expected one of {', '.join(SPLITS)}")
    if rollouts is None:
        chosen = recorded(resolve_data(source, samples=True), split, parse_size(size) if size else None)
    else:
        world = load_world(resolve_world(rollouts))
        chosen = rolled_out(world, resolve_data(source, world.header.dataset, samples=True), context, seed)
    out = out or Path("exports") / format
    count = frames = 0
    with progress("Exporting", min(chosen.count, episodes or chosen.count), "episodes") as update:
        for exported in export_episodes(islice(chosen.episodes, episodes), EXPORTS[format], out):
            count, frames = count + 1, frames + exported.episode.length
            update(count, f"{frames} frames")
    say(f"{out}: {count} episodes, {frames} frames\nto read them again: {EXPORTS[format].again.format(out=out)}")
