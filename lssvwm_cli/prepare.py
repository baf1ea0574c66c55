"""`lssvwm prepare` and `lssvwm index`: recordings into shards."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lssvwm_cli.completion import formats
from lssvwm_cli.console import core_count, duration, progress, say, show_json
from lssvwm_cli.options import Jobs
from lssvwm_cli.record import RECORDINGS

if TYPE_CHECKING:
    from lssvwm_core.prepare.plan import ShardJob
    from lssvwm_datasets.sources import Recording

DATA = Path("data")
MAZE = "maze"
EXECUTORS = ("processes", "ray")
AUTO_MINUTES, AUTO_FRAMES = 30, 50_000  # of training an autoencoder where none that ships is good enough
GPU_PROCESSES = 4  # decode beside each other for one GPU


def prepare(
    format: Annotated[
        str,
        typer.Argument(
            metavar="[FORMAT]",
            help="maze, luanti, minerl, vpt, teco, worldmem, csgo, lerobot, another environment, or folder: recordings "
            "of your own; without it, SOURCE is looked at.",
            autocompletion=formats,
        ),
    ] = MAZE,
    source: Annotated[
        Path | None,
        typer.Argument(
            help="Folder of recordings. [default: recordings/FORMAT; maze, luanti: else the shipped samples]"
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder to write the shards to. [default: data/FORMAT]")] = None,
    autoencoder: Annotated[
        str | None,
        typer.Option(
            help="What encodes the frames: a shipped name, a folder or a hub id; a VAE of diffusers will do. auto: the "
            "best that ships, or one that is trained on the recordings first. [default: what ships for FORMAT]"
        ),
    ] = None,
    jobs: Jobs = "auto",
    size: Annotated[
        str | None,
        typer.Option(
            help="Resize frames to squares of 64 pixels, or to height x width as in 360x640. [default: as recorded]"
        ),
    ] = None,
    action_offset: Annotated[
        int,
        typer.Option(help="How many frames later the actions come than the format says; the shards keep the number."),
    ] = 0,
    skip_list: Annotated[
        str | None,
        typer.Option(
            help="Recordings to leave out: a file with a name on each line, or `known` for those known to be bad."
        ),
    ] = None,
    max_memory: Annotated[
        str, typer.Option(help="What each process may hold of a recording in memory; one that needs more is skipped.")
    ] = "2GB",
    accept_quality: Annotated[
        bool, typer.Option("--accept-quality", help="Go on where the autoencoder loses much of the pictures.")
    ] = False,
    shard_size: Annotated[int, typer.Option(min=1, help="Recordings in each shard.")] = 16,
    keep_frames: Annotated[
        str, typer.Option(help="Which episodes keep their exact frames beside the latents: validation, all or none.")
    ] = "validation",
    split: Annotated[str | None, typer.Option(help="Prepare this split alone: train or validation.")] = None,
    device: Annotated[str, typer.Option(help="Where to encode: cpu or cuda.")] = "cpu",
    executor: Annotated[
        str, typer.Option(help="What does the work: processes here, or ray, the Ray cluster at RAY_ADDRESS.")
    ] = "processes",
    part: Annotated[
        str | None,
        typer.Option(help="Write part i of n of the shards, given as i/n; when all parts are done: lssvwm index."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what there is, how large it will be and how long it will take.")
    ] = False,
    strict: Annotated[
        bool, typer.Option("--strict", help="Stop at a damaged recording instead of skipping it.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print the index (or the estimate) to stdout.")] = False,
) -> None:
    """Decode recordings, encode them, and write sharded HDF5 files of latents and actions with an index.

    An interrupted run goes on where it stopped when the command is given again.
    """
    from dataclasses import replace

    from lssvwm_datasets.errors import LssvwmError
    from lssvwm_datasets.format import ReaderOptions, parse_bytes, parse_size
    from lssvwm_datasets.sources import SPLITS, find_recordings

    if split is not None and split not in SPLITS:
        raise LssvwmError(f"--split {split}: expected one of {', '.join(SPLITS)}")
    if executor not in EXECUTORS:
        raise LssvwmError(f"--executor {executor}: expected one of {', '.join(EXECUTORS)}")
    name, source = _format_and_source(format, source)
    options = ReaderOptions(
        parse_size(size) if size else None, action_offset, _names_to_skip(skip_list), parse_bytes(max_memory)
    )
    if executor == "ray":  # its workers have other working directories
        source = source.resolve()
    recordings = find_recordings(source, name, options)
    dataset = recordings[0].format.name
    counts = {split: sum(recording.split == split for recording in recordings) for split in SPLITS}
    say(f"found {dataset}: " + ", ".join(f"{count} {split}" for split, count in counts.items()) + " recordings")
    out = out or DATA / dataset
    if executor == "ray":
        out = out.resolve()

    from lssvwm_core.device import pick_device
    from lssvwm_core.prepare.choice import AUTO, default_autoencoder
    from lssvwm_core.prepare.plan import copy_autoencoder, part_of, plan_shards
    from lssvwm_core.prepare.quality import measure_reconstruction, require_quality
    from lssvwm_core.resolve import resolve_autoencoder

    device = str(pick_device(device))
    if autoencoder == AUTO:
        autoencoder = _best_autoencoder(recordings, dataset, source, device)
    autoencoder = autoencoder or default_autoencoder(dataset)
    folder = resolve_autoencoder(autoencoder)
    planned = plan_shards(
        recordings,
        out,
        folder,
        shard_size=shard_size,
        splits=(split,) if split else SPLITS,
        keep_frames=keep_frames,
        device=device,
        strict=strict,
    )
    processes = core_count(jobs)
    if device != "cpu" and jobs == "auto":
        processes = min(processes, GPU_PROCESSES)
    chosen = part_of(planned, part) if part else planned
    if dry_run or not all(job.path.exists() for job in planned):
        reconstruction = measure_reconstruction(
            [recording for job in planned for recording in job.recordings], folder, planned[0].device
        )
        say(f"{autoencoder} reconstructs them at {reconstruction}")
        if not (accept_quality or dry_run):
            require_quality(reconstruction, autoencoder, source)
        chosen = [replace(job, reconstruction_psnr=reconstruction.psnr) for job in chosen]
    if dry_run:
        _show_estimate(chosen, processes, out, json)
        return
    kept = copy_autoencoder(folder, out)
    chosen = [replace(job, autoencoder=kept) for job in chosen]
    if not chosen:
        say(f"{out}: part {part} has nothing to do; there are {len(planned)} shards")
    else:
        _write(chosen, processes, executor, out)
        if len(chosen) == len(planned):
            _tell_index(out, json)
        else:
            say(f"{out}: {len(chosen)} of {len(planned)} shards are here; with all parts done: lssvwm index {out}")


def _best_autoencoder(recordings: "list[Recording]", dataset: str, source: Path, device: str) -> str:
    """The best that ships; where that is not good enough, one that was or is trained on the recordings."""
    import torch

    from lssvwm_cli.train_autoencoder import train_and_show
    from lssvwm_core.model.autoencoder import AutoencoderConfig
    from lssvwm_core.prepare.choice import best_shipped, good_enough, trained_here
    from lssvwm_core.training.autoencoder import AutoencoderTraining

    name, reconstruction = best_shipped(recordings, device)
    own = trained_here(dataset)
    if good_enough(reconstruction):
        return name
    say(f"of the autoencoders that ship, {name} does best: {reconstruction}")
    if own.exists():
        say(f"{own} was trained on such recordings; to train it anew, remove it")
    else:
        say(f"training one on these recordings for {AUTO_MINUTES} minutes at most, into {own}")
        training = AutoencoderTraining(minutes=AUTO_MINUTES, max_frames=AUTO_FRAMES)
        train_and_show(recordings, own, AutoencoderConfig(name=own.name), training, torch.device(device))
    return str(own)


def _format_and_source(format: str, source: Path | None) -> tuple[str | None, Path]:
    """What the user means by one or two arguments; no format: it is to be found out. Raises: LssvwmError."""
    from lssvwm_datasets.errors import LssvwmError
    from lssvwm_datasets.sources import all_formats, format_names, sample_recordings

    if format not in (*format_names(), *all_formats()):
        if source is not None or not Path(format).exists():
            raise LssvwmError(
                f"{format!r} is neither a format ({', '.join(format_names())}) nor a folder of recordings"
            )
        return None, Path(format)
    if source is None:
        source, samples = RECORDINGS / format, sample_recordings(format)
        if samples.is_dir() and not source.is_dir():
            source = samples
        say(f"source: {source}" + (" (the samples that ship with lssvwm)" if source == samples else ""))
    return format, source


def _names_to_skip(skip_list: str | None) -> tuple[str, ...]:
    from lssvwm_datasets.errors import LssvwmError
    from lssvwm_datasets.schema import read_text
    from lssvwm_datasets.sources import all_formats

    if skip_list is None:
        return ()
    if skip_list == "known":
        return tuple(name for format in all_formats().values() for name in format.known_bad)
    try:
        return tuple(filter(None, map(str.strip, read_text(Path(skip_list)).splitlines())))
    except (OSError, LssvwmError) as error:
        raise LssvwmError(f"--skip-list {skip_list}: cannot be read ({error}); expected names, one a line") from error


def index(
    folder: Annotated[Path, typer.Argument(help="Folder of shards whose parts are all done.")],
    json: Annotated[bool, typer.Option("--json", help="Print the index to stdout.")] = False,
) -> None:
    """Join the parts of a prepared folder: check that no shard is missing and write its index, dataset.json."""
    from lssvwm_core.prepare.index import write_index

    write_index(folder)
    _tell_index(folder, json)


def _write(chosen: "list[ShardJob]", processes: int, executor: str, out: Path) -> None:
    from lssvwm_core.prepare.estimate import decoding_speed
    from lssvwm_core.prepare.write import write_shards
    from lssvwm_core.process import keep_freed_memory

    keep_freed_memory()
    total = sum(len(job.recordings) for job in chosen)
    started, done, frames = time.monotonic(), 0, 0
    try:
        with progress("Preparing", total, "recordings") as update:
            for shard in write_shards(chosen, processes, executor):
                done += len(shard.job.recordings)
                frames += shard.frames if shard.new else 0
                update(done, f"{frames / (time.monotonic() - started):.0f} frames/s")
    except KeyboardInterrupt:
        say("\nstopped; the same command goes on with the shards that are missing")
        raise
    took = time.monotonic() - started
    if frames:
        alone = decoding_speed(chosen) or 0
        say(
            f"{frames} frames in {duration(took)}: {frames / took:.0f} frames/s with {processes} processes; "
            f"decoding alone, one process reaches {alone:.0f} frames/s"
        )


def _tell_index(out: Path, json: bool) -> None:
    from dataclasses import asdict

    from lssvwm_datasets.index import read_index

    index = read_index(out)
    for skipped in index.skipped:
        say(f"skipped {skipped.id}: {skipped.reason}")
    for note in index.notes:
        say(f"note on {note.id}: {note.note}")
    say(
        f"{out}: {index.episodes} episodes, {index.frames} frames in {len(index.shards)} shards, "
        f"{len(index.skipped)} recordings skipped"
        + (f"; reconstructed at {index.reconstruction_psnr:.2f} dB" if index.reconstruction_psnr is not None else "")
    )
    if json:
        show_json({name: value for name, value in asdict(index).items() if name != "tables"})


def _show_estimate(chosen: "list[ShardJob]", processes: int, out: Path, json: bool) -> None:
    import shutil

    from lssvwm_core.prepare.estimate import bytes_on_disk, decoding_speed, encoding_speed, look_at_lengths, size_text

    recordings = [recording for job in chosen for recording in job.recordings]
    lengths = look_at_lengths(recordings)
    splits: dict[str, dict[str, int]] = {}
    for recording in recordings:
        figures = splits.setdefault(recording.split, {"recordings": 0, "frames": 0})
        figures["recordings"] += 1
        figures["frames"] += lengths.frames[recording.id]
    sample: list[Any] = []
    decode = decoding_speed(chosen, sample)
    encode = encoding_speed(chosen[0], sample) if sample else None
    frames, size = sum(lengths.frames.values()), bytes_on_disk(chosen, lengths)
    seconds = frames * (1 / decode + 1 / encode) / min(processes, len(chosen)) if decode and encode else None
    existing = next(folder for folder in (out, *out.resolve().parents) if folder.exists())
    estimate: dict[str, Any] = {
        "splits": splits,
        "recordings": len(recordings),
        "frames": frames,
        "frames_are": "exact" if lengths.exact else f"estimated by file size from {lengths.looked_at} recordings",
        "shards": len(chosen),
        "bytes": size,
        "bytes_free": shutil.disk_usage(existing).free,
        "processes": processes,
        "decoded_frames_per_second": decode and round(decode, 1),
        "encoded_frames_per_second": encode and round(encode, 1),
        "reconstruction_psnr": chosen[0].reconstruction_psnr if chosen else None,
        "seconds": seconds and round(seconds, 1),
    }
    if json:
        show_json(estimate)
        return
    for split, figures in splits.items():
        say(f"{split}: {figures['recordings']} recordings, {figures['frames']} frames")
    say(f"frames: {frames} ({estimate['frames_are']})")
    say(f"on disk: {size_text(size)} in {len(chosen)} shards; {size_text(estimate['bytes_free'])} free")
    if seconds is not None:
        say(
            f"time: about {duration(seconds)} with {processes} processes (a process decodes {decode:.0f} and "
            f"encodes {encode:.0f} frames/s)"
        )
