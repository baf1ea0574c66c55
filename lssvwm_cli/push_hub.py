"""`lssvwm push-hub`."""

from pathlib import Path
from typing import Annotated

import typer

from lssvwm_cli.completion import choices, runs
from lssvwm_cli.console import say, show

WHAT = {"model": ("model",), "dataset": ("dataset",), "both": ("dataset", "model")}


def push_hub(
    run: Annotated[
        str | None,
        typer.Argument(help="The run or world's folder to share. [default: the latest run]", autocompletion=runs),
    ] = None,
    repo: Annotated[str | None, typer.Option(help="Repository of the hub, user/name. [default: `you/<run>`]")] = None,
    what: Annotated[
        str,
        typer.Option(
            help="What to share: model, dataset (its shards, as `<repo>-data`) or both.", autocompletion=choices(*WHAT)
        ),
    ] = "model",
    private: Annotated[bool, typer.Option("--private", help="Let nobody but you see it.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be uploaded; upload nothing.")] = False,
    out: Annotated[
        Path,
        typer.Option(help="Where a dry run puts the cards and the world to look at: a new folder, or its last one."),
    ] = Path("hub-preview"),
) -> None:
    """Share a world on the Hugging Face hub: weights, config, autoencoder, model card and a sample, in one commit."""
    from lssvwm_core.evaluation.results import EVALUATIONS
    from lssvwm_core.hub.client import own_repository, push
    from lssvwm_core.hub.folders import dataset_files, world_files, write_preview
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
    uploads = {}
    for kind in WHAT[what]:
        target = f"{repo}-data" if kind == "dataset" else repo
        if kind == "model":
            uploads[kind] = target, world, world_files(world, target, EVALUATIONS)
        elif facts.data is None:
            raise LssvwmError(f"--what {what}: {world} lies in no run, so its shards are not known; name a run")
        else:
            uploads[kind] = target, facts.data, dataset_files(facts.data, target)
    for kind, (target, source, files) in uploads.items():
        if not dry_run:
            say(f"uploaded: {push(files, target, kind, private)}")
            continue
        folder = out if what == kind else out / kind
        write_preview(files, folder)
        say(f"would upload {source} to {target}; see it, without shards, in {folder}:")
        for name, content in sorted(files.items()):
            show(f"{content.stat().st_size if isinstance(content, Path) else len(content.encode()):>12,}  {name}")
