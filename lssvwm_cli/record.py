"""`lssvwm record maze`: new episodes from the real environment."""

import time
from pathlib import Path
from typing import Annotated

import typer

from lssvwm_cli.console import core_count, duration, progress, say

app = typer.Typer(help="Record new episodes from a real environment.", no_args_is_help=True)
MAZE_RECORDINGS = Path("recordings/maze")


@app.callback()
def _group() -> None:
    """A group, so that `record maze` keeps its name when other environments join it."""


@app.command()
def maze(
    episodes: Annotated[int, typer.Option(min=0, help="Training episodes, each in a maze of its own.")] = 100,
    eval_episodes: Annotated[
        int | None, typer.Option(min=0, help="Evaluation episodes, in other mazes. [default: a tenth, at least 1]")
    ] = None,
    steps: Annotated[int, typer.Option(min=1, help="Steps an episode; it has one frame more.")] = 1000,
    size: Annotated[str, typer.Option(help="9x9, 11x11, 13x13 or 15x15.")] = "9x9",
    out: Annotated[Path, typer.Option(help="Folder; episodes that are there already are kept.")] = MAZE_RECORDINGS,
    jobs: Annotated[str, typer.Option(help="Processes, or auto: one a core.")] = "auto",
    seed: Annotated[int, typer.Option(min=0, help="Seed of the first training maze; the next has seed + 1.")] = 0,
    compact: Annotated[
        bool, typer.Option("--compact", help="Files a quarter smaller, ten times slower to write.")
    ] = False,
) -> None:
    """Record Memory Maze with an exploring agent, in the layout of the offline dataset."""
    from lssvwm_datasets.files import remove_partial_files
    from lssvwm_datasets.memory_maze.environment import load_tasks
    from lssvwm_datasets.memory_maze.recorder import plan, record_all

    held_out = max(1, episodes // 10) if eval_episodes is None else eval_episodes
    requests = plan(out, size, episodes, held_out, steps, seed, compact)
    load_tasks()  # fails here, in words, when the environment is missing
    remove_partial_files(out)
    there = sum(request.path.exists() for request in requests)
    if there:
        say(f"{there} of {len(requests)} episodes are there already")
    started, done = time.monotonic(), there
    try:
        with progress("Recording", len(requests), "episodes", there) as update:
            for _ in record_all(requests, core_count(jobs)):
                done += 1
                speed = (done - there) * (steps + 1) / (time.monotonic() - started)
                update(done, f"{speed:.0f} frames/s")
    except KeyboardInterrupt:
        say(f"\nstopped with {done} of {len(requests)} episodes; the same command goes on from there")
        raise
    took = time.monotonic() - started
    say(f"{len(requests)} episodes in {out} ({done - there} new, {duration(took)})")
