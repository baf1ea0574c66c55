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
    space: Annotated[
        bool,
        typer.Option("--space", help="Share a Space too, `<repo>-space`, in which anyone walks around in the world."),
    ] = False,
    private: Annotated[bool, typer.Option("--private", help="Let nobody but you see it.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be uploaded; upload nothing.")] = False,
    out: Annotated[
        Path,
        typer.Option(help="Where a dry run puts the cards and the world to look at: a new folder, or its last one."),
    ] = Path("hub-preview"),
) -> None:
    """Share a world on the Hugging Face hub: weights, config, autoencoder, model card and a sample, in one commit."""
    import tempfile

    from lssvwm_core.evaluation.results import EVALUATIONS
    from lssvwm_core.hub.client import SPACE, own_repository, push
    from lssvwm_core.hub.folders import Files, dataset_files, own_facts, world_files, write_preview
    from lssvwm_core.hub.previews import write_previews
    from lssvwm_core.hub.space import space_files
    from lssvwm_core.resolve import resolve_data, resolve_world
    from lssvwm_core.world import load_world
    from lssvwm_datasets.errors import LssvwmError

    if repo is not None and repo.count("/") != 1:
        raise LssvwmError(f"--repo {repo}: expected user/name")
    if what not in WHAT:
        raise LssvwmError(f"--what {what}: expected one of {', '.join(WHAT)}")
    world = resolve_world(run)
    facts = own_facts(world)
    if repo is None:
        repo = f"you/{facts.name}" if dry_run else own_repository(facts.name)
    uploads: dict[str, tuple[str, Path, Files]] = {}
    with tempfile.TemporaryDirectory(prefix="lssvwm-") as made:
        for kind in WHAT[what]:
            if kind == "model":
                data = f"{repo}-data" if what == "both" else None
                uploads[kind] = repo, world, world_files(world, repo, EVALUATIONS, data)
            elif facts.data is None:
                raise LssvwmError(f"--what {what}: {world} lies in no run, so its shards are not known; name a run")
            else:
                target, folder = f"{repo}-data", Path(made, kind)
                folder.mkdir()
                uploads[kind] = (
                    target,
                    facts.data,
                    dataset_files(facts.data, target, write_previews(facts.data, folder)),
                )
        if space:
            loaded, folder = load_world(world), Path(made, SPACE)
            folder.mkdir()
            source = facts.data or resolve_data(None, loaded.header.dataset, samples=True)
            files = space_files(loaded, world_files(world, repo), repo, source, folder)
            uploads[SPACE] = f"{repo}-space", world, files
        for kind, (target, source, content) in uploads.items():
            if not dry_run:
                say(f"uploaded: {push(content, target, kind, private)}")
                continue
            folder = out if len(uploads) == 1 else out / kind
            write_preview(content, folder)
            say(f"would upload {source} to {target}; see it, without shards, in {folder}:")
            for name, part in sorted(content.items()):
                show(f"{part.stat().st_size if isinstance(part, Path) else len(part.encode()):>12,}  {name}")
