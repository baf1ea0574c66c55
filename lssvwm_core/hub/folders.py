"""The folders that people expect on the hub: of a world, and of shards."""

import json
import shutil
from pathlib import Path

from lssvwm_core.hub.cards import data_card, model_card
from lssvwm_core.hub.client import CARD_FILE, SAMPLE_FILE
from lssvwm_core.model import storage
from lssvwm_core.model.storage import AUTOENCODER_FOLDER
from lssvwm_core.training.runs import run_facts
from lssvwm_core.world import load_model
from lssvwm_datasets.errors import LssvwmError
from lssvwm_datasets.shards import INDEX_FILE, read_index


def build_world(world: Path, folder: Path, repo: str) -> None:
    """Write what goes to the hub: weights, config, autoencoder, model card, sample video. Raises: LssvwmError."""
    _, header, autoencoder = load_model(world)
    if storage.weights_sha256(autoencoder) != header.autoencoder_sha256:
        raise LssvwmError(f"{autoencoder}: not the autoencoder that {world} was trained with")
    facts = run_facts(world)
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(world / storage.WEIGHTS_FILE, folder / storage.WEIGHTS_FILE)
    config = json.loads((world / storage.CONFIG_FILE).read_text())
    config["autoencoder"] = AUTOENCODER_FOLDER
    (folder / storage.CONFIG_FILE).write_text(json.dumps(config, indent=2) + "\n")
    for name in (storage.CONFIG_FILE, storage.weights_file(autoencoder).name, "recipe.json"):
        if (autoencoder / name).is_file():
            (folder / AUTOENCODER_FOLDER).mkdir(exist_ok=True)
            shutil.copyfile(autoencoder / name, folder / AUTOENCODER_FOLDER / name)
    if facts.sample is not None:
        shutil.copyfile(facts.sample, folder / SAMPLE_FILE)
    (folder / CARD_FILE).write_text(model_card(repo, config, facts))


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
