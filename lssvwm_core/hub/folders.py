"""The folders that people expect on the hub: of a world, and of shards."""

import json
import shutil
from pathlib import Path

from lssvwm_core.evaluation.results import REPORT_FILE, SETTINGS_FILE
from lssvwm_core.hub.cards import Report, data_card, model_card
from lssvwm_core.hub.client import CARD_FILE, SAMPLE_FILE
from lssvwm_core.model import storage
from lssvwm_core.model.storage import AUTOENCODER_FOLDER
from lssvwm_core.training.run.folder import run_facts
from lssvwm_core.world import load_model
from lssvwm_datasets.errors import LssvwmError
from lssvwm_datasets.shards import INDEX_FILE, read_index


def build_world(world: Path, folder: Path, repo: str, evaluations: Path | None = None) -> None:
    """Write what goes to the hub: weights, config, autoencoder, model card, sample video.

    The card tells what `lssvwm eval` found about these weights, where `evaluations` has it. Raises: LssvwmError.
    """
    _, header, autoencoder = load_model(world)
    if storage.weights_sha256(autoencoder) != header.autoencoder_sha256:
        raise LssvwmError(f"{autoencoder}: not the autoencoder that {world} was trained with")
    facts = run_facts(world)
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(world / storage.WEIGHTS_FILE, folder / storage.WEIGHTS_FILE)
    config = json.loads((world / storage.CONFIG_FILE).read_text())
    config["autoencoder"] = AUTOENCODER_FOLDER
    (folder / storage.CONFIG_FILE).write_text(json.dumps(config, indent=2) + "\n")
    copy_autoencoder(autoencoder, folder)
    if facts.sample is not None:
        shutil.copyfile(facts.sample, folder / SAMPLE_FILE)
    reports = reports_of(world, evaluations) if evaluations is not None else []
    (folder / CARD_FILE).write_text(model_card(repo, config, facts, reports))


def reports_of(world: Path, evaluations: Path) -> list[Report]:
    """The reports below a folder that tell of a world's weights, not of others."""
    weights = storage.weights_sha256(world)
    return [
        json.loads((settings.parent / REPORT_FILE).read_text())
        for settings in sorted(evaluations.glob(f"*/{SETTINGS_FILE}"))
        if (settings.parent / REPORT_FILE).is_file() and json.loads(settings.read_text()).get("weights") == weights
    ]


def copy_autoencoder(autoencoder: Path, folder: Path) -> None:
    """Put an autoencoder's files where a world's folder expects them."""
    target = folder / AUTOENCODER_FOLDER
    target.mkdir(parents=True, exist_ok=True)
    for name in (storage.CONFIG_FILE, storage.weights_file(autoencoder).name, "recipe.json"):
        if (autoencoder / name).is_file() and autoencoder.resolve() != target.resolve():
            shutil.copyfile(autoencoder / name, target / name)


def build_dataset(shards: Path, folder: Path, repo: str) -> None:
    """Write what goes to the hub of a folder of shards: links to index, shards and autoencoder, and a data card.

    Raises: LssvwmError when there is no index.
    """
    index = read_index(shards)
    names = [INDEX_FILE, *(shard["file"] for shard in index["shards"])]
    names += [f"{AUTOENCODER_FOLDER}/{file.name}" for file in (shards / AUTOENCODER_FOLDER).iterdir()]
    (folder / AUTOENCODER_FOLDER).mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).unlink(missing_ok=True)
        (folder / name).symlink_to((shards / name).resolve())
    (folder / CARD_FILE).write_text(data_card(repo, index))
