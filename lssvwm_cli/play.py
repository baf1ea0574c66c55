"""`lssvwm play`."""

from pathlib import Path
from typing import Annotated

import typer

from lssvwm_cli.completion import runs
from lssvwm_cli.console import say
from lssvwm_cli.options import Device, Guidance, Start, Temperature

PLAYED_STEPS = 4  # at most, by default: a key is answered sooner


def play(
    checkpoint: Annotated[
        str | None,
        typer.Argument(
            help="A run, a world's folder, a shipped name or a hub id. [default: the latest run]", autocompletion=runs
        ),
    ] = None,
    data: Start = None,
    context: Annotated[int, typer.Option(min=1, help="Recorded frames that the world sees first.")] = 100,
    steps: Annotated[
        int | None,
        typer.Option(min=1, max=32, help="Denoising steps for each frame. [default: the world's, 4 at most]"),
    ] = None,
    guidance: Guidance = None,
    temperature: Temperature = None,
    seed: Annotated[int, typer.Option(min=0, max=2**31 - 1, help="The same seed and keys give the same frames.")] = 0,
    fps: Annotated[
        float | None, typer.Option(min=0.1, max=60, help="Frames a second. [default: the recording's]")
    ] = None,
    terminal: Annotated[bool, typer.Option("--terminal", help="Play here, without a browser.")] = False,
    host: Annotated[str, typer.Option(help="Address to serve at; any but this machine's own gets a token.")] = (
        "127.0.0.1"
    ),
    origin: Annotated[
        list[str] | None,
        typer.Option(help="Address that the browser shows, if a proxy lies between, with its path; may be repeated."),
    ] = None,
    public: Annotated[
        bool, typer.Option("--public", help="Let in everyone without a token, as a Space of the hub does.")
    ] = False,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to serve at; 0 takes any that is free.")] = 8765,
    slots: Annotated[Path, typer.Option(help="Where saved worlds and videos go.")] = Path("runs/play"),
    threads: Annotated[
        int | None, typer.Option(min=1, help="CPU threads for the world. [default: half of the cores]")
    ] = None,
    device: Device = "auto",
) -> None:
    """Walk around in a world, in the browser or the terminal."""
    import signal
    import sys

    import torch

    from lssvwm_cli.console import core_count
    from lssvwm_core.device import pick_device
    from lssvwm_core.episodes import episode_count
    from lssvwm_core.play.game import Game
    from lssvwm_core.play.session import Session
    from lssvwm_core.resolve import resolve_data, resolve_world
    from lssvwm_core.training.run.folder import run_facts
    from lssvwm_core.world import load_world
    from lssvwm_datasets.errors import LssvwmError

    if not terminal:
        try:
            from lssvwm_core.play import messages, server, web
            from lssvwm_core.play.door import Door, Origin
        except ModuleNotFoundError as error:
            raise LssvwmError(
                f"the page needs {error.name}: pip install 'lssvwm[play]'   (or play here: lssvwm play --terminal)"
            ) from error
        door = Door(host, [Origin.parse(address) for address in origin or []], public)
        listener = server.listen(host, port)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # ends the session: a recording is finished
    torch.set_num_threads(threads or max(1, core_count("auto") // 2))
    folder = resolve_world(checkpoint)
    world = load_world(folder, pick_device(device))
    world = world.sampled_with(steps or min(world.steps, PLAYED_STEPS), guidance=guidance, temperature=temperature)
    source = resolve_data(data, world.header.dataset, samples=True)
    title = run_facts(folder).title
    say(f"world: {title} ({folder}), {world.steps} denoising steps a frame\nstart: {source}")
    game = Game(world, source, slots, context, seed)
    with Session(game, fps) as session:
        if terminal:
            from lssvwm_core.play.terminal import play as play_here

            play_here(session, title)
        else:
            app = web.PlayApp(session, episode_count(source, world), title, door)
            for link in door.links(listener.getsockname()[1]):
                say(f"play: {link}   (Ctrl-C ends it)")
            server.make_server(app.starlette(), 16 * messages.MAX_BYTES).run(sockets=[listener])
