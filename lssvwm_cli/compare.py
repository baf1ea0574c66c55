"""`lssvwm compare`: ours beside its baselines, trained and measured with one command."""

from pathlib import Path
from typing import Annotated

import typer

from lssvwm_cli.console import progress, say, say_made
from lssvwm_cli.options import Batch, Device, LpipsWeights, Set, Shards
from lssvwm_cli.signals import Signals


def compare(
    variants: Annotated[str, typer.Option(help="What to compare, with commas. [default: all]")] = "",
    budget: Annotated[
        str,
        typer.Option(help="How much each training may take: steps=2000, minutes=20 (on this machine) or flops=1e16."),
    ] = "steps=1500",
    scale: Annotated[str, typer.Option(help="cpu (hours on two cores), small (a GPU) or paper.")] = "cpu",
    data: Shards = None,
    out: Annotated[Path, typer.Option(help="Folder of runs, evaluations and report.")] = Path("comparison"),
    episodes: Annotated[int | None, typer.Option(min=1, help="Held-out episodes. [default: the scale's]")] = None,
    set_: Set = None,
    stages: Annotated[
        str,
        typer.Option(help="`FRAMESxBATCH*SHARE` of the training, with commas: `40x6*2,100x3`. [default: the scale's]"),
    ] = "",
    tasks: Annotated[
        str, typer.Option(help="TASK=CONTEXT+FRAMES, with commas: retrieval=100+100. [default: the scale's]")
    ] = "",
    seed: Annotated[int, typer.Option(help="Seed of training and evaluation.")] = 0,
    batch: Batch = 4,
    lpips_weights: LpipsWeights = None,
    device: Device = "auto",
) -> None:
    """Train variants on the same data with the same budget, evaluate them, and write one report.

    Given again, the command goes on where it stopped. Variants: ours, mamba2, mamba2-local, causal-window, causal-full,
    block-1, no-long-context, no-pose-address, no-recall.
    """
    from dataclasses import replace

    from lssvwm_core.compare import SCALES, Budget, Comparison, parse_stages, parse_tasks
    from lssvwm_core.device import pick_device
    from lssvwm_core.model.variants import VARIANTS
    from lssvwm_core.process import keep_freed_memory
    from lssvwm_core.resolve import resolve_data
    from lssvwm_datasets.errors import LssvwmError

    names = tuple(filter(None, variants.split(","))) or tuple(VARIANTS)
    unknown = [name for name in names if name not in VARIANTS]
    if unknown:
        raise LssvwmError(f"--variants {', '.join(unknown)}: expected some of {', '.join(VARIANTS)}")
    if scale not in SCALES:
        raise LssvwmError(f"--scale {scale}: expected one of {', '.join(SCALES)}")
    chosen = SCALES[scale]
    chosen = replace(
        chosen,
        stages=parse_stages(stages) if stages else chosen.stages,
        tasks=parse_tasks(tasks) if tasks else chosen.tasks,
        episodes=episodes or chosen.episodes,
    )
    comparison = Comparison(
        names, chosen, Budget.parse(budget), resolve_data(data), out, tuple(set_ or ()), seed, batch, lpips_weights
    )
    keep_freed_memory()
    with Signals() as signals:
        for job in comparison.jobs(pick_device(device), signals):
            with progress(job.title, job.total, job.unit) as update:
                for done, note in job.run():
                    update(done, note)
                    if signals() and not job.ends_itself:
                        break
            if name := signals():
                say(f"stopped by {name}; what is done is in {out}, and the same command goes on from there")
                signals.exit_if_any()
    say(comparison.report())
    say(f"report: {out / 'report.md'}")
    say_made(*sorted(out.glob("*.png")))
