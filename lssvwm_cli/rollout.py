"""`lssvwm rollout`."""

import time
from pathlib import Path
from typing import Annotated

import typer

from lssvwm_cli.compiling import keep_what_is_compiled
from lssvwm_cli.console import progress, say, say_made, show_json
from lssvwm_cli.options import (
    Checkpoint,
    Chunk,
    Compile,
    Conditions,
    Device,
    Episode,
    Guidance,
    Json,
    Start,
    Steps,
    Temperature,
)


def rollout(
    frames: Annotated[int, typer.Option(min=1, help="Frames of the video, context included.")] = 800,
    out: Annotated[Path, typer.Option(help="The video to write: .mp4 or .gif.")] = Path("video.mp4"),
    checkpoint: Checkpoint = None,
    data: Start = None,
    episode: Episode = 0,
    context: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="Recorded frames that the world sees first. [default: 240, but half of --frames at most, and what the "
            "episode has]",
        ),
    ] = None,
    actions: Annotated[
        str, typer.Option(help="recorded (and then the explorer's), explore, or a list such as `forward*10,left*5`.")
    ] = "recorded",
    conditions: Conditions = "",
    steps: Steps = None,
    guidance: Guidance = None,
    temperature: Temperature = None,
    chunk: Chunk = None,
    seed: Annotated[int, typer.Option(help="The same seed gives the same video.")] = 0,
    side_by_side: Annotated[
        bool, typer.Option("--side-by-side", help="Show the recording beside the rollout.")
    ] = False,
    map: Annotated[bool, typer.Option("--map", help="Draw the maze and the path from above, as OUT.map.png.")] = False,
    upscale: Annotated[int, typer.Option(min=1, help="Side of a frame's pixel, in pixels of the video.")] = 4,
    fps: Annotated[
        float | None, typer.Option(help="Frames a second of the video. [default: four times the recording's]")
    ] = None,
    save_state: Annotated[Path | None, typer.Option(help="Save the world's memory at the end.")] = None,
    load_state: Annotated[
        Path | None, typer.Option(help="Continue from a saved memory; all --frames are then new.")
    ] = None,
    compile: Compile = False,
    device: Device = "auto",
    json: Json = False,
) -> None:
    """Roll a world out into a video; each frame costs the same, however long it is."""
    from lssvwm_core.device import pick_device
    from lssvwm_core.episodes import load_episode
    from lssvwm_core.rendering import RenderOptions, render
    from lssvwm_core.resolve import resolve_data, resolve_world
    from lssvwm_core.world import compile_where_possible, load_world

    folder = resolve_world(checkpoint)
    world = load_world(folder, pick_device(device)).sampled_with(steps, chunk, guidance, temperature)
    if compile:
        keep_what_is_compiled()
        compile_where_possible(world.model, world.device)
    source = resolve_data(data, world.header.dataset, samples=True)
    streams = tuple(filter(None, conditions.split(","))) or tuple(world.model.config.streams)
    options = RenderOptions(
        frames, context, actions, streams, seed, side_by_side, upscale, fps, map, save_state, load_state
    )
    recording = None if load_state else load_episode(world, source, episode)
    start = f"{source}, episode {episode} ({recording.id})" if recording else load_state
    say(f"world: {folder}\nstart: {start}")
    started = time.monotonic()
    with progress("Rolling out", frames, "frames") as update:
        for done in render(world, recording, options, out):
            update(done.frames, f"{done.frames_per_second:.1f} frames/s" if done.frames_per_second else "")
    summary = {
        "video": str(out),
        "frames": done.frames,
        "generated": done.generated,
        "seconds": round(time.monotonic() - started, 2),
        "generated_frames_per_second": done.frames_per_second and round(done.frames_per_second, 2),
        "first_100_frames_per_second": done.first_speed and round(done.first_speed, 2),
        "last_100_frames_per_second": done.last_speed and round(done.last_speed, 2),
        "state_bytes": done.state_bytes,
    }
    if json:
        show_json(summary)
    else:
        for name, value in summary.items():
            if value is not None:  # as the speed of a rollout that is too short to tell it
                say(f"  {name.replace('_', ' ')}: {value}")
        say_made(out, *([out.with_suffix(".map.png")] if map else []))
