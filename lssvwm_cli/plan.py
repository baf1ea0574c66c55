"""`lssvwm plan`: agents in a real environment, with and without a world's memory."""

from pathlib import Path
from typing import Annotated

import typer

from lssvwm_cli.console import progress, say, show_json
from lssvwm_cli.options import Checkpoint, Device, Json


def plan(
    checkpoint: Checkpoint = None,
    sight: Annotated[
        str, typer.Option(help="The sight head, which sees targets in latents: a shipped name or a folder.")
    ] = "maze-sight",
    episodes: Annotated[int, typer.Option(min=1, help="Episodes, each in a maze of its own.")] = 32,
    context: Annotated[int, typer.Option(min=1, help="Steps that an explorer walks before the agent acts.")] = 500,
    steps: Annotated[int, typer.Option(min=1, help="Steps in which the agent acts.")] = 300,
    agents: Annotated[
        str, typer.Option(help="Agents, with commas between: memory, memory cut, explorer, oracle. [default: all]")
    ] = "",
    size: Annotated[str, typer.Option(help="Size of the environment. [default: its smallest]")] = "",
    seed: Annotated[int, typer.Option(min=0, help="Seed of the first episode; the next has seed + 1.")] = 2_000_000,
    out: Annotated[Path, typer.Option(help="Folder to write plan.json to.")] = Path("evaluations/plan"),
    device: Device = "auto",
    json: Json = False,
) -> None:
    """Let agents look for targets in the real environment, and say what a world's memory is worth to them.

    Every agent begins after the same walk of an explorer. `memory` goes where the world remembers the target that is
    asked for; `memory cut` is the same planner, whose world sees its attention window alone; `explorer` goes anywhere;
    `oracle` knows the map and every target. An interrupted command goes on when it is given again.
    """
    from lssvwm_core.model.sight_head import load_sight_head
    from lssvwm_core.model.storage import weights_sha256
    from lssvwm_core.planning import trial
    from lssvwm_core.process import keep_freed_memory
    from lssvwm_core.resolve import resolve_model, resolve_world
    from lssvwm_core.world import load_world

    keep_freed_memory()
    folder, sight_folder = resolve_world(checkpoint), resolve_model(sight)
    world, head = load_world(folder, device), load_sight_head(sight_folder)
    chosen = tuple(name.strip() for name in agents.split(",")) if agents else trial.AGENTS
    options = trial.PlanOptions(episodes, size, seed, context, steps, chosen)
    environment, options = trial.check(world, head, options)
    assert environment.simulator is not None  # `check` has asked for it
    if environment.simulator.set_up_process:
        environment.simulator.set_up_process()
    identity = {"weights": weights_sha256(folder), "sight": weights_sha256(sight_folder)}
    played, total = [], episodes * len(chosen)
    try:
        with progress("Acting", total, "episodes") as update:
            for one in trial.run(world, environment, head.to(world.device), options, identity, out):
                played.append(one)
                update(len(played), f"{one.agent}: {one.reward:g}")
    except KeyboardInterrupt:
        say(f"\nstopped; what was played is in {out}, and the same command goes on from there")
        raise
    figures = trial.figures(played)
    if json:
        show_json(figures)
        return
    say(f"reward in {steps} steps after {context} of exploring, mean and 95 % interval:")
    for name, found in figures.items():
        say(f"{name:>20}: {found['mean']:5.2f}  ({found['low']:.2f} to {found['high']:.2f})")
    say(f"{out / trial.RESULTS}")
