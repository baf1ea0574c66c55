"""`lssvwm push-hub`."""

import tempfile
from pathlib import Path
from typing import Annotated

import typer

from lssvwm_cli.completion import choices, runs
from lssvwm_cli.console import say, show

WHAT = {"model": ("model",), "dataset": ("dataset",), "both": ("dataset", "model")}


def push_hub(
    run: Annotated[
        str | None, typer.Argument(help="A run or a world's folder. [default: the latest run]", autocompletion=runs)
    ] = None,
    repo: Annotated[str | None, typer.Option(help="user/name. [default: `you/<run>`]")] = None,
    what: Annotated[
        str, typer.Option(help="model, dataset (its shards, as `<repo>-data`), or both.", autocompletion=choices(*WHAT))
    ] = "model",
    private: Annotated[bool, typer.Option("--private", help="Only you can see it.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Build and show the folder; upload nothing.")] = False,
    out: Annotated[Path, typer.Option(help="Where a dry run builds the folder.")] = Path("hub-preview"),
) -> None:
    """Share a world on the Hugging Face hub: weights, config, autoencoder, model card and a sample, in one commit."""
    from lssvwm_core.evaluation.results import EVALUATIONS
    from lssvwm_core.hub.client import own_repository, push
    from lssvwm_core.hub.folders import build_dataset, build_world
    from lssvwm_core.resolve import resolve_world
    from lssvwm_core.training.run.folder import run_facts
    from lssvwm_datasets.errors import LssvwmError

    if repo is not None and repo.count("/") != 1:
        raise LssvwmError(f"--repo {repo}: expected user/name")
    if what not in WHAT:
        raise LssvwmError(f"--what {what}: expected one of {', '.join(WHAT)}")
    world = resolve_world(run)
    facts = run_facts(world)
    if repo is None:
        repo = f"you/{facts.name}" if dry_run else own_repository(facts.name)
    with tempfile.TemporaryDirectory() as scratch:
        for kind in WHAT[what]:
            target = f"{repo}-data" if kind == "dataset" else repo
            folder = (out if what == kind else out / kind) if dry_run else Path(scratch, kind)
            if kind == "model":
                source = world
                build_world(world, folder, target, EVALUATIONS)
            elif facts.data is None:
                raise LssvwmError(f"--what {what}: {world} lies in no run, so its shards are not known; name a run")
            else:
                source = facts.data
                build_dataset(source, folder, target)
            if dry_run:
                say(f"would upload {source} to {target}; built in {out}:")
                for path in sorted(path for path in folder.rglob("*") if path.is_file()):
                    show(f"{path.stat().st_size:>12,}  {path.relative_to(folder)}")
            else:
                say(f"uploaded: {push(folder, target, kind, private)}")
