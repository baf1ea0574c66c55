"""`lssvwm train-autoencoder`."""

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lssvwm_cli.console import progress, say
from lssvwm_cli.options import Device
from lssvwm_cli.record import RECORDINGS
from lssvwm_cli.signals import Signals

if TYPE_CHECKING:
    import torch

    from lssvwm_core.model.autoencoder import AutoencoderConfig
    from lssvwm_core.training.autoencoder import AutoencoderTraining
    from lssvwm_datasets.sources import Recording


def train_autoencoder(
    sources: Annotated[
        list[Path] | None,
        typer.Argument(help="Folders of recordings, also of several formats.", show_default=str(RECORDINGS / "maze")),
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder to write the autoencoder to.")] = Path("runs/autoencoder"),
    steps: Annotated[int, typer.Option(min=1, help="Training steps.")] = 6000,
    minutes: Annotated[
        float | None, typer.Option(help="End after so many minutes; the learning rate falls in time for it.")
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Frames in each step.")] = 48,
    learning_rate: Annotated[float, typer.Option(help="The highest learning rate.")] = 2e-3,
    size: Annotated[
        str | None, typer.Option(help="Resize frames to squares of 64 pixels, or to height x width as in 360x640.")
    ] = None,
    latent_channels: Annotated[int, typer.Option(min=1, help="Channels of the latents.")] = 32,
    compression: Annotated[
        int,
        typer.Option(
            help="Pixels along one side of a latent's cell: 4, 8, 16 or 32. Fewer are finer, and slower worlds."
        ),
    ] = 16,
    max_frames: Annotated[
        int, typer.Option(min=1, help="Frames to hold in memory at most, spread over the recordings.")
    ] = 200_000,
    init_from: Annotated[
        str | None, typer.Option(help="Continue from an autoencoder: a shipped name, a folder or a hub id.")
    ] = None,
    decoder_only: Annotated[
        bool,
        typer.Option("--decoder-only", help="Leave the encoder of --init-from as it is: worlds and shards still fit."),
    ] = False,
    sharpness: Annotated[
        float,
        typer.Option(min=0, help="How much to be as sharp as the frames beside as near to them, such as 0.1."),
    ] = 0.0,
    seed: Annotated[int, typer.Option(help="Seed of the training.")] = 0,
    device: Device = "auto",
) -> None:
    """Train an autoencoder on recordings; Ctrl-C keeps what was learnt so far."""
    from lssvwm_core.device import pick_device
    from lssvwm_core.model.autoencoder import COMPRESSIONS, AutoencoderConfig, widths_for
    from lssvwm_core.process import keep_freed_memory
    from lssvwm_core.resolve import resolve_model
    from lssvwm_core.training.autoencoder import AutoencoderTraining
    from lssvwm_datasets.errors import LssvwmError
    from lssvwm_datasets.format import ReaderOptions, parse_size
    from lssvwm_datasets.sources import find_recordings

    if compression not in COMPRESSIONS:
        raise LssvwmError(f"--compression {compression}: expected one of {', '.join(map(str, COMPRESSIONS))}")
    keep_freed_memory()
    training = AutoencoderTraining(
        steps,
        minutes,
        batch_size,
        learning_rate,
        max_frames=max_frames,
        seed=seed,
        sharpness=sharpness,
        decoder_only=decoder_only,
    )
    options = ReaderOptions(size=parse_size(size) if size else None)
    recordings = [
        recording
        for source in sources or [RECORDINGS / "maze"]
        for recording in find_recordings(source, options=options)
    ]
    config = AutoencoderConfig(out.name, latent_channels, widths_for(compression))
    initial = resolve_model(init_from) if init_from else None
    train_and_show(recordings, out, config, training, pick_device(device), initial)


def train_and_show(
    recordings: "list[Recording]",
    out: Path,
    config: "AutoencoderConfig",
    training: "AutoencoderTraining",
    device: "torch.device",
    initial: Path | None = None,
) -> None:
    """Train, and show how it goes on; a signal ends it, and the process, with what was learnt written."""
    from lssvwm_core.training.autoencoder import train_autoencoder as train
    from lssvwm_datasets.schema import read_text

    signals = Signals()
    with contextlib.ExitStack() as noted, progress("Training", 100, "%") as update:
        for report in train(recordings, out, config, training, device, initial, signals):
            if report.psnr is None:
                noted.enter_context(signals)  # from now on there is something to save
                continue
            note = f"step {report.step}  {report.psnr:.2f} dB  {report.frames_per_second:.0f} frames/s"
            update(round(100 * report.fraction), note)
    if name := signals():
        say(f"stopped by {name}; what was learnt is in {out}: go on with --init-from {out}")
        signals.exit_if_any()
    say(read_text(out / "recipe.json"))
    say(f"autoencoder in {out}")
