"""What a name means: a folder, a run, something that ships with the package, or a repository of the hub."""

import re
from importlib import resources
from pathlib import Path

from lssvwm_core.hub.client import DATASET, download
from lssvwm_core.model.storage import CONFIG_FILE, VAE_WEIGHTS_FILE, WEIGHTS_FILE
from lssvwm_core.training.run.folder import MODEL_FOLDER, RUNS, Run, run_of
from lssvwm_datasets.errors import LssvwmError
from lssvwm_datasets.shards import INDEX_FILE
from lssvwm_datasets.sources import sample_recordings

HUB_ID = re.compile(r"[\w.-]+/[\w.-]+(@[\w./-]+)?")
SHIPPED_WORLD = "maze-world"  # that commands take where nothing is trained
DATA = Path("data")  # where `lssvwm prepare` writes
VAE_FOLDER = "vae"  # of a pipeline of diffusers


def latest_run(root: Path = RUNS) -> Run | None:
    """The run with the newest checkpoint, None when there is none."""
    runs = [Run(folder.parent) for folder in root.glob("*/checkpoints")]
    saved = [(last.stat().st_mtime, run) for run in runs if (last := run.last)]
    return max(saved, key=lambda found: found[0])[1] if saved else None


def resolve_world(name: str | None) -> Path:
    """The folder of a world: a run or its name, a world's folder, a shipped name or a hub id.

    None: the latest run's, else `SHIPPED_WORLD`. Raises: LssvwmError.
    """
    if name is None:
        if run := latest_run():
            return run.world
        if SHIPPED_WORLD not in shipped_models():
            raise LssvwmError(
                "no trained world: none ships with this build and runs/ has none; train one: lssvwm train"
            )
        return shipped_models()[SHIPPED_WORLD]
    return local_world(name) or resolve_model(name)


def local_world(name: str) -> Path | None:
    """The folder of a world on this machine: a run or its name, a world's folder, a shipped name; None elsewhere.

    Raises: LssvwmError for a run without a checkpoint.
    """
    for folder in (Path(name), RUNS / name):
        if run := run_of(folder):
            return run.world
        if (folder / MODEL_FOLDER / CONFIG_FILE).is_file():
            return folder / MODEL_FOLDER
    return Path(name) if Path(name).is_dir() else shipped_models().get(name)


def resolve_model(name: str, files: tuple[str, ...] = ()) -> Path:
    """The folder of a model named by a path, by a shipped name, or by a hub id (`user/name` or `user/name@revision`).

    Of a hub's repository only `files` are fetched, where named. Raises: LssvwmError when there is no such model.
    """
    if Path(name).is_dir():
        return Path(name)
    shipped = shipped_models()
    if name in shipped:
        return shipped[name]
    if HUB_ID.fullmatch(name) and not name.startswith("."):
        return download(name, files=files)
    raise LssvwmError(f"{name}: no such model; expected a folder, a hub id user/name, or one of {', '.join(shipped)}")


def resolve_autoencoder(name: str) -> Path:
    """As `resolve_model`, for an autoencoder of ours or of diffusers, also within a pipeline's folder (`vae/`)."""
    names = (CONFIG_FILE, WEIGHTS_FILE, VAE_WEIGHTS_FILE)
    folder = resolve_model(name, (*names, *(f"{VAE_FOLDER}/{name}" for name in names)))
    within = folder / VAE_FOLDER
    return within if (within / CONFIG_FILE).exists() and not (folder / CONFIG_FILE).exists() else folder


def shipped_models() -> dict[str, Path]:
    """Models that come with the package, by name."""
    root = Path(str(resources.files("lssvwm_core") / "weights"))
    return {path.name: path for path in sorted(root.iterdir()) if path.is_dir()} if root.is_dir() else {}


def resolve_data(name: str | Path | None, dataset: str = "maze", samples: bool = False) -> Path:
    """The folder of shards or recordings that a command starts from.

    Args:
        name: a folder, or a data set of the hub (`user/name@revision`); None: what is prepared of `dataset`. A name
            below a folder that exists is never looked up on the hub.
        samples: take the recordings that ship with the package where nothing is prepared.

    Raises: LssvwmError with what to do where there is nothing.
    """
    prepared = DATA / dataset
    if name is None and ((prepared / INDEX_FILE).exists() or not samples):
        name = prepared
    if name is None:
        shipped = sample_recordings(dataset)
        return shipped if shipped.is_dir() else sample_recordings()
    path = Path(name)
    if path.exists():
        return path
    if path == prepared or path.parent == DATA:
        raise LssvwmError(f"{path}: nothing is prepared there; first: lssvwm prepare {path.name}")
    if not path.parent.is_dir() and HUB_ID.fullmatch(path.as_posix()):
        return download(path.as_posix(), DATASET)
    raise LssvwmError(
        f"{path}: no such folder; expected shards (from lssvwm prepare), recordings, or a hub id user/name"
    )
