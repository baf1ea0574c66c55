"""What goes to the hub, by exact names: the files of a world, and of shards. Nothing else ever leaves the machine."""

import json
import shutil
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lssvwm_core.evaluation.results import REPORT_FILE, SETTINGS_FILE
from lssvwm_core.hub.cards import Report, data_card, model_card
from lssvwm_core.hub.client import CARD_FILE, SAMPLE_FILE, repository_of
from lssvwm_core.model import storage
from lssvwm_core.model.storage import AUTOENCODER_FOLDER
from lssvwm_core.training.run.folder import MODEL_FOLDER, ORIGIN_FILE, RUN_CONFIG_FILE, RunFacts, run_facts
from lssvwm_core.world import load_model
from lssvwm_datasets.errors import LssvwmError
from lssvwm_datasets.files import written_whole
from lssvwm_datasets.index import INDEX_FILE, SHARD_SUFFIX, Index, read_index
from lssvwm_datasets.schema import read_json, read_text

Files = Mapping[str, Path | str]  # name in the repository -> a file as it is, or a text made for the hub
PREVIEW_FILE = ".lssvwm-preview"  # lists what a preview's folder holds


def world_files(
    world: Path, repo: str, evaluations: Path | None = None, data: str | None = None
) -> dict[str, Path | str]:
    """Weights, config, autoencoder, model card and sample video of a world.

    The card tells what `lssvwm eval` found about these weights, where `evaluations` has it; `data` is the hub's name of
    the data set it was trained on, where it is known. Raises: LssvwmError.
    """
    _, header, autoencoder = load_model(world)
    if storage.latents_sha256(autoencoder) != header.autoencoder_sha256:
        raise LssvwmError(f"{autoencoder}: not the autoencoder that {world} was trained with")
    facts = own_facts(world)
    config = read_json(own_file(world, storage.CONFIG_FILE), dict[str, Any])
    config["autoencoder"] = AUTOENCODER_FOLDER
    reports = reports_of(world, evaluations) if evaluations is not None else []
    if data is None and facts.data is not None:
        data = repository_of(facts.data)
    files: dict[str, Path | str] = {
        storage.WEIGHTS_FILE: own_file(world, storage.WEIGHTS_FILE),
        storage.CONFIG_FILE: json.dumps(config, indent=2) + "\n",
        **autoencoder_files(autoencoder.parent, autoencoder.name),
        CARD_FILE: model_card(
            repo, config, facts, reports, data or (repository_of(facts.data) if facts.data else None)
        ),
    }
    if facts.folder is not None and facts.sample is not None:
        files[SAMPLE_FILE] = own_file(facts.folder, facts.sample.relative_to(facts.folder).as_posix())
    return files


def own_facts(world: Path) -> RunFacts:
    """The facts of a world that may be shared: no link leads out of the run, or checkpoint, that its path names.

    The run's files that the facts are from are its own too. Raises: LssvwmError.
    """
    if world.name == MODEL_FOLDER:
        home = world.parents[2] if world.parts[-3:-2] == ("checkpoints",) else world.parent
        _inside(home, world)
    facts = run_facts(world)
    for name in (RUN_CONFIG_FILE, ORIGIN_FILE):
        if facts.folder is not None and (facts.folder / name).exists():
            own_file(facts.folder, name)
    return facts


def dataset_files(shards: Path, repo: str, previews: Files | None = None) -> dict[str, Path | str]:
    """Index, shards, autoencoder, data card and `previews` of a prepared folder.

    Raises: LssvwmError when there is no index, or where a file that it names is not one of the folder.
    """
    index = read_index(shards)
    return {
        **own_shards(shards, index),
        **autoencoder_files(shards, AUTOENCODER_FOLDER),
        **(previews or {}),
        CARD_FILE: data_card(repo, index, bool(previews)),
    }


def own_shards(folder: Path, index: Index, split: str | None = None) -> dict[str, Path]:
    """The index and the shards, all or those of a split, each a file of the folder itself. Raises: LssvwmError."""
    names = [INDEX_FILE, *(entry.file for entry in index.shards if split in (None, entry.split))]
    return {name: own_file(folder, name) for name in names}


def autoencoder_files(parent: Path, name: str) -> dict[str, Path]:
    """The files of the autoencoder in `parent/name`, under the names that they have beside shards and in a world."""
    weights = storage.weights_file(parent / name).name
    names = [storage.CONFIG_FILE, weights, *(["recipe.json"] if (parent / name / "recipe.json").exists() else [])]
    return {f"{AUTOENCODER_FOLDER}/{file}": own_file(parent, f"{name}/{file}") for file in names}


def own_file(folder: Path, name: str) -> Path:
    """A file of a folder that may be shared: a regular one inside it, not a link to somewhere else.

    In the hub's cache files are links to its own blobs, which is fine. Raises: LssvwmError.
    """
    path = folder / name
    real = _inside(folder, path)
    if not stat.S_ISREG(real.stat().st_mode):
        raise LssvwmError(f"{path}: not a regular file")
    return real


def _inside(folder: Path, path: Path) -> Path:
    """Where a path below a folder leads: within the folder, or to blobs of the hub's cache. Raises: LssvwmError."""
    try:
        home, real = folder.resolve(), path.resolve(strict=True)
    except (FileNotFoundError, RuntimeError) as error:  # RuntimeError: links in a circle
        raise LssvwmError(f"{path}: no such file") from error
    blobs = [parent.parent / "blobs" for parent in home.parents if parent.name == "snapshots"]
    if not any(real.is_relative_to(place) for place in (home, *blobs)):
        what = "folder" if real.is_dir() else "file"
        raise LssvwmError(f"{path}: a link to {real}, outside {folder}: not uploaded; put the {what} itself there")
    return real


def write_files(files: Files, folder: Path) -> None:
    """Copy files and write texts into a folder under their names."""
    for name, content in files.items():
        target = folder / name
        if isinstance(content, Path) and target.exists() and target.samefile(content):
            continue
        with written_whole(target) as partial:
            if isinstance(content, Path):
                shutil.copyfile(content, partial)
            else:
                partial.write_text(content, encoding="utf-8")


def write_preview(files: Files, folder: Path) -> None:
    """Write what would be uploaded, but for the shards, which may be large and stay where they are.

    Only a folder that is new, empty or an earlier preview is written to, and that through no link. Raises: LssvwmError.
    """
    listing = folder / PREVIEW_FILE
    made = set(read_text(listing).splitlines()) if listing.is_file() else set()
    there = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*")}
    links = {name for name, path in there.items() if path.is_symlink()}
    found = links | {name for name, path in there.items() if path.is_file()}
    strangers = links | (found - made - {PREVIEW_FILE})
    if strangers or folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        holds = f"it holds {min(strangers)}" if strangers else "it is no folder"
        raise LssvwmError(f"{folder}: not a preview of push-hub: {holds}; choose another --out")
    shown = {name: content for name, content in files.items() if "/" in name or not name.endswith(SHARD_SUFFIX)}
    write_files({PREVIEW_FILE: "\n".join(sorted({*found, *shown})) + "\n"}, folder)
    write_files(shown, folder)
    for name in found - set(shown) - {PREVIEW_FILE}:  # of an earlier preview
        (folder / name).unlink()


@dataclass(frozen=True)
class _Evaluated:
    """Which weights an evaluation is of."""

    weights: str = ""


def reports_of(world: Path, evaluations: Path) -> list[Report]:
    """The reports below a folder that tell of a world's weights, not of others. Raises: LssvwmError."""
    weights = storage.weights_sha256(world)
    return [
        read_json(settings.parent / REPORT_FILE, Report, "evaluate again")
        for settings in sorted(evaluations.glob(f"*/{SETTINGS_FILE}"))
        if (settings.parent / REPORT_FILE).is_file() and read_json(settings, _Evaluated).weights == weights
    ]
