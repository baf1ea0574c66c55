"""`lssvwm train-reward`: a reward for agents in a world, learnt from recordings."""

from pathlib import Path
from typing import Annotated

import typer

from lssvwm_cli.console import progress, say, show_json
from lssvwm_cli.gathering import gather_splits
from lssvwm_cli.options import Checkpoint, Device, Json


def train_reward(
    source: Annotated[
        Path | None, typer.Argument(help="Folder of recordings with rewards. [default: the samples that ship]")
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder to write the reward head to.")] = Path("runs/reward"),
    checkpoint: Checkpoint = None,
    steps: Annotated[int, typer.Option(min=1, help="Training steps.")] = 1000,
    seed: Annotated[int, typer.Option(help="Seed of the training.")] = 0,
    device: Device = "auto",
    json: Json = False,
) -> None:
    """Learn from recordings what a frame is worth, for agents in an imagined world: `WorldEnv(reward=OUT)`."""
    from dataclasses import asdict

    from lssvwm_core.training.reward import gather, train_reward_head
    from lssvwm_core.world import load_world

    world = load_world(checkpoint, device)
    train, held_out = gather_splits(source, world, "Encoding", gather)
    with progress("Training", steps, "steps") as update:
        for report in train_reward_head(train, held_out, world, out, steps, seed):
            update(report.step, "" if report.loss is None else f"loss {report.loss:.4f}")
    say(
        f"held-out frames: {report.rewarded:.3f} predicted where there was a reward, {report.others:.3f} elsewhere; "
        f"told apart {report.auc:.1%} of the time\nreward head in {out}"
    )
    if json:
        show_json(asdict(report))
