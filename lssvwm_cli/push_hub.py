"""`lssvwm push-hub`."""

import tempfile
from pathlib import Path
from typing import Annotated

import typer

from lssvwm_cli.console import say


def push_hub(
    run: Annotated[str | None, typer.Argument(help="A run or a world's folder. [default: the latest run]")] = None,
    repo: Annotated[str | None, typer.Option(help="user/name. [default: you/<the run's name>]")] = None,
    private: Annotated[bool, typer.Option("--private", help="Only you can see it.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Build and show the folder; upload nothing.")] = False,
    out: Annotated[Path, typer.Option(help="Where a dry run builds the folder.")] = Path("hub-preview"),
) -> None:
    """Share a world on the Hugging Face hub: weights, config, autoencoder, model card and a sample, in one commit."""
    from lssvwm_core.hub import build_folder, push, run_facts
    from lssvwm_core.runs import resolve_world
    from lssvwm_datasets.errors import LssvwmError

    if repo is not None and repo.count("/") != 1:
        raise LssvwmError(f"--repo {repo}: expected user/name")
    world = resolve_world(run)
    name = run_facts(world).name
    if dry_run:
        build_folder(world, out, repo or f"USER/{name}")
        say(f"would upload {world} to {repo or f'<you>/{name}'}; built in {out}:")
        for path in sorted(path for path in out.rglob("*") if path.is_file()):
            print(f"{path.stat().st_size:>12,}  {path.relative_to(out)}")
        return
    with tempfile.TemporaryDirectory() as folder:
        build_folder(world, Path(folder), repo or f"USER/{name}")
        say(f"uploaded: {push(Path(folder), repo, name, private)}")
