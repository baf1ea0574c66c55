"""`lssvwm prepare`: recordings into shards."""

import time
from pathlib import Path
from typing import Annotated

import typer

from lssvwm_cli.console import core_count, duration, progress, say, show_json
from lssvwm_cli.record import MAZE_RECORDINGS

DATA = Path("data")
RECORDINGS = {"maze": MAZE_RECORDINGS}


def prepare(
    format: Annotated[str, typer.Argument(metavar="FORMAT", help="What the recordings are: maze.")],
    source: Annotated[
        Path | None, typer.Argument(help="Folder of recordings. [default: recordings/FORMAT, else the shipped samples]")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder of shards. [default: data/FORMAT]")] = None,
    autoencoder: Annotated[str, typer.Option(help="A shipped name, a folder, or a hub id.")] = "maze-autoencoder",
    jobs: Annotated[str, typer.Option(help="Processes, or auto: one a core.")] = "auto",
    shard_size: Annotated[int, typer.Option(min=1, help="Recordings a shard.")] = 16,
    keep_frames: Annotated[str, typer.Option(help="Keep exact frames of: validation, all or none.")] = "validation",
    split: Annotated[str | None, typer.Option(help="Only this split: train or validation.")] = None,
    device: Annotated[str, typer.Option(help="Where to encode: cpu or cuda.")] = "cpu",
    strict: Annotated[bool, typer.Option("--strict", help="A damaged recording is an error, not skipped.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print the index to stdout.")] = False,
) -> None:
    """Decode recordings, encode them, and write sharded HDF5 files of latents and actions with an index.

    An interrupted run goes on where it stopped when the command is given again.
    """
    from lssvwm_datasets.errors import LssvwmError
    from lssvwm_datasets.shards import read_index, read_shard_table
    from lssvwm_datasets.sources import FORMATS, SPLITS, find_recordings, sample_recordings

    if format not in FORMATS:
        raise LssvwmError(f"unknown format {format!r}; expected one of {', '.join(FORMATS)}")
    if split is not None and split not in SPLITS:
        raise LssvwmError(f"--split {split}: expected one of {', '.join(SPLITS)}")
    if source is None:
        source = RECORDINGS[format] if RECORDINGS[format].is_dir() else sample_recordings()
        say(f"source: {source}" + ("" if source == RECORDINGS[format] else " (the samples that ship with lssvwm)"))
    recordings = find_recordings(source, format)

    from lssvwm_core.device import pick_device
    from lssvwm_core.model.storage import resolve_model
    from lssvwm_core.prepare import copy_autoencoder, plan_shards, write_shards

    out = out or DATA / format
    splits = (split,) if split else SPLITS
    folder = copy_autoencoder(resolve_model(autoencoder), out)
    planned = plan_shards(
        recordings,
        out,
        folder,
        shard_size=shard_size,
        splits=splits,
        keep_frames=keep_frames,
        device=str(pick_device(device)),
        strict=strict,
    )
    total = sum(len(job.recordings) for job in planned)
    started, done, frames = time.monotonic(), 0, 0
    processes = core_count(jobs) if device == "cpu" else 1
    try:
        with progress("Preparing", total, "recordings") as update:
            for job in write_shards(planned, processes):
                done += len(job.recordings)
                frames += sum(episode.length for episode in read_shard_table(job.path)[1])
                update(done, f"{frames / (time.monotonic() - started):.0f} frames/s")
    except KeyboardInterrupt:
        say("\nstopped; the same command goes on with the shards that are missing")
        raise
    index = read_index(out)
    for entry in index["skipped"]:
        say(f"skipped {entry['id']}: {entry['reason']}")
    say(
        f"{out}: {index['episodes']} episodes, {index['frames']} frames in {len(index['shards'])} shards, "
        f"{len(index['skipped'])} recordings skipped ({duration(time.monotonic() - started)})"
    )
    if json:
        show_json(index)
