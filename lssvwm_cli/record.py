"""`lssvwm record NAME`: new episodes from a real environment."""

import time
from pathlib import Path
from typing import Annotated

import typer

from lssvwm_cli.completion import environments
from lssvwm_cli.console import core_count, duration, progress, say
from lssvwm_cli.options import Jobs

RECORDINGS = Path("recordings")


def record(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME",
            help="The environment to record: maze, luanti, or another that is known.",
            autocompletion=environments,
        ),
    ],
    episodes: Annotated[
        int, typer.Option(min=0, help="Training episodes to record, each in a world of its own.")
    ] = 100,
    eval_episodes: Annotated[
        int | None,
        typer.Option(min=0, help="Evaluation episodes to record, in other worlds. [default: a tenth, at least 1]"),
    ] = None,
    steps: Annotated[int, typer.Option(min=1, help="Steps of each episode, which has one frame more.")] = 1000,
    size: Annotated[
        str | None,
        typer.Option(
            help="For maze the size of the worlds: 9x9, 11x11, 13x13 or 15x15; for luanti that of the pictures: 64, "
            "128. [default: the smallest]"
        ),
    ] = None,
    view: Annotated[
        int | None, typer.Option(help="How far can be seen; for luanti 16 to 96 blocks. [default: 48 blocks]")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder to write to; episodes that are there already are kept. [default: recordings/NAME]"),
    ] = None,
    jobs: Jobs = "auto",
    seed: Annotated[
        int,
        typer.Option(
            min=0,
            help="Seed of the first training world, below 1,000,000; the next has seed + 1. Those of evaluation "
            "are 1,000,000 higher.",
        ),
    ] = 0,
    compact: Annotated[
        bool, typer.Option("--compact", help="Write files that are a quarter smaller, which takes ten times longer.")
    ] = False,
) -> None:
    """Record new episodes from a real environment, with an agent that explores it.

    An interrupted recording goes on where it stopped when the command is given again.
    """
    from lssvwm_datasets.environments import environment_named
    from lssvwm_datasets.errors import LssvwmError
    from lssvwm_datasets.files import remove_partial_files
    from lssvwm_datasets.recorder import plan, record_all

    recorder = environment_named(name).recorder
    if recorder is None:
        raise LssvwmError(f"{name}: this environment cannot be recorded here; prepare recordings that others made")
    out = out or RECORDINGS / name
    requests = plan(
        recorder,
        out,
        train_episodes=episodes,
        eval_episodes=max(1, episodes // 10) if eval_episodes is None else eval_episodes,
        steps=steps,
        seed=seed,
        size=size,
        compact=compact,
        view=view,
    )
    if recorder.set_up_process:
        recorder.set_up_process()
    recorder.check()
    remove_partial_files(out)
    there = sum(request.path.exists() for request in requests)
    if there:
        say(f"{there} of {len(requests)} episodes are there already")
    started, done = time.monotonic(), there
    try:
        with progress("Recording", len(requests), "episodes", there) as update:
            for _ in record_all(recorder, requests, core_count(jobs)):
                done += 1
                speed = (done - there) * (steps + 1) / (time.monotonic() - started)
                update(done, f"{speed:.0f} frames/s")
    except KeyboardInterrupt:
        say(f"\nstopped with {done} of {len(requests)} episodes; the same command goes on from there")
        raise
    took = time.monotonic() - started
    say(f"{len(requests)} episodes in {out} ({done - there} new, {duration(took)})")
