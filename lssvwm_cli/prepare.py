"""`lssvwm prepare`: recordings into shards."""

import time
from pathlib import Path
from typing import Annotated

import typer

from lssvwm_cli.console import core_count, duration, progress, say, show_json
from lssvwm_cli.record import MAZE_RECORDINGS

DATA = Path("data")
RECORDINGS = MAZE_RECORDINGS.parent
SAMPLES = "maze"  # the format of the recordings that ship


def prepare(
    format: Annotated[
        str,
        typer.Argument(
            metavar="[FORMAT]", help="maze, minerl, vpt, teco or worldmem; left out: what SOURCE is found to be."
        ),
    ] = SAMPLES,
    source: Annotated[
        Path | None,
        typer.Argument(help="Folder of recordings. [default: recordings/FORMAT; maze: else the shipped samples]"),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder of shards. [default: data/FORMAT]")] = None,
    autoencoder: Annotated[
        str, typer.Option(help="A shipped name, a folder or a hub id; ours, or a VAE of diffusers.")
    ] = "maze-autoencoder",
    jobs: Annotated[str, typer.Option(help="Processes, or auto: one a core.")] = "auto",
    size: Annotated[
        str | None, typer.Option(help="Resize frames: 64, or height x width, 360x640. [default: as recorded]")
    ] = None,
    action_offset: Annotated[
        int, typer.Option(help="Frames by which actions come later than the format says; kept in the shards.")
    ] = 0,
    skip_list: Annotated[
        str | None,
        typer.Option(help="Leave recordings out: a file of names, one a line, or `known`: those known to be bad."),
    ] = None,
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
    from lssvwm_datasets.format import ReaderOptions, parse_size
    from lssvwm_datasets.shards import read_index, read_shard_table
    from lssvwm_datasets.sources import FORMAT_NAMES, FORMATS, SPLITS, find_recordings, sample_recordings

    if split is not None and split not in SPLITS:
        raise LssvwmError(f"--split {split}: expected one of {', '.join(SPLITS)}")
    name: str | None = format
    if name not in (*FORMAT_NAMES, *FORMATS):
        if source is not None or not Path(format).exists():
            raise LssvwmError(f"{format!r} is neither a format ({', '.join(FORMAT_NAMES)}) nor a folder of recordings")
        name, source = None, Path(format)
    elif source is None:
        source = RECORDINGS / format
        if format == SAMPLES and not source.is_dir():
            source = sample_recordings()
        say(f"source: {source}" + (" (the samples that ship with lssvwm)" if source == sample_recordings() else ""))
    options = ReaderOptions(parse_size(size) if size else None, action_offset, _names_to_skip(skip_list))
    recordings = find_recordings(source, name, options)
    dataset = recordings[0].format.name
    counts = {split: sum(recording.split == split for recording in recordings) for split in SPLITS}
    say(f"found {dataset}: " + ", ".join(f"{count} {split}" for split, count in counts.items()) + " recordings")

    from lssvwm_core.device import pick_device
    from lssvwm_core.model.storage import resolve_autoencoder
    from lssvwm_core.prepare import copy_autoencoder, plan_shards, write_shards

    out = out or DATA / dataset
    splits = (split,) if split else SPLITS
    folder = copy_autoencoder(resolve_autoencoder(autoencoder), out)
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
    for entry in index["notes"]:
        say(f"note on {entry['id']}: {entry['note']}")
    say(
        f"{out}: {index['episodes']} episodes, {index['frames']} frames in {len(index['shards'])} shards, "
        f"{len(index['skipped'])} recordings skipped ({duration(time.monotonic() - started)})"
    )
    if json:
        show_json(index)


def _names_to_skip(skip_list: str | None) -> tuple[str, ...]:
    from lssvwm_datasets.errors import LssvwmError
    from lssvwm_datasets.sources import FORMATS

    if skip_list is None:
        return ()
    if skip_list == "known":
        return tuple(name for format in FORMATS.values() for name in format.known_bad)
    try:
        return tuple(filter(None, map(str.strip, Path(skip_list).read_text(encoding="utf-8").splitlines())))
    except (OSError, ValueError) as error:
        raise LssvwmError(f"--skip-list {skip_list}: cannot be read ({error}); expected names, one a line") from error
