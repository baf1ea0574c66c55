"""Sharing worlds and shards on the Hugging Face hub: the folders people expect there, each uploaded in one commit."""

import json
import shutil
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tomli_w

from lssvwm_core.model import storage
from lssvwm_core.model.storage import AUTOENCODER_FOLDER
from lssvwm_datasets.errors import LssvwmError
from lssvwm_datasets.shards import INDEX_FILE, read_index

MODEL, DATASET = "model", "dataset"
CARD_FILE, SAMPLE_FILE = "README.md", "sample.mp4"
UPLOADED = {  # nothing else ever leaves the machine
    MODEL: (storage.CONFIG_FILE, storage.WEIGHTS_FILE, CARD_FILE, SAMPLE_FILE, f"{AUTOENCODER_FOLDER}/*"),
    DATASET: (INDEX_FILE, "*.h5", CARD_FILE, f"{AUTOENCODER_FOLDER}/*"),
}
LOADED = {MODEL: ("*.json", "*.safetensors"), DATASET: ("*.json", "*.safetensors", "*.h5")}  # never a pickle
LOGIN_HELP = "log in with: hf auth login   (a token with write access, from huggingface.co/settings/tokens)"


@dataclass(frozen=True)
class RunFacts:
    """What the model card tells of a world's training, where it is known."""

    name: str
    config: str | None  # the run's config.toml, without the path of its data
    data: Path | None  # its shards
    step: int | None
    sample: Path | None


def run_facts(world: Path) -> RunFacts:
    """The facts of a world, from its run where it lies in one (`runs/<name>/checkpoints/<step>/model`)."""
    checkpoint, run = world.resolve().parent, world.resolve().parents[2]
    if not (checkpoint.name.isdigit() and (run / "config.toml").is_file()):
        return RunFacts(world.name, None, None, None, None)
    samples = sorted((run / "samples").glob("*.mp4"))
    config = tomllib.loads((run / "config.toml").read_text())
    data = Path(config.pop("data"))
    return RunFacts(run.name, tomli_w.dumps(config), data, int(checkpoint.name), samples[-1] if samples else None)


def build_world(world: Path, folder: Path, repo: str) -> None:
    """Write what goes to the hub: weights, config, autoencoder, model card, sample video. Raises: LssvwmError."""
    from lssvwm_core.world import load_model

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


def data_card(repo: str, index: dict[str, Any]) -> str:
    height, width = index["frame_size"]
    return f"""---
license: other
tags: [world-model, video, latents, lssvwm]
---
# {repo}

Latents and actions of `{index["dataset"]}`, made by [lssvwm](https://huggingface.co/models?library=lssvwm):
{index["episodes"]} episodes, {index["frames"]} frames of {width}×{height} pixels at {index["fps"]:g} Hz, in
{len(index["shards"])} HDF5 shards. The licence is that of the recordings.

- latents: {"×".join(map(str, index["latent_shape"]))} float16 a frame, of the autoencoder in `{AUTOENCODER_FOLDER}/`
- actions: {", ".join(index["action_names"])}
- poses: {", ".join(index["pose_names"]) or "none"}

```bash
pip install lssvwm
lssvwm train --data {repo}
```
"""


def model_card(repo: str, config: dict[str, Any], facts: RunFacts) -> str:
    data, model = config["data"], config["model"]
    sample = f'<video controls src="{SAMPLE_FILE}"></video>\n\n' if facts.sample else ""
    recipe = f"Trained for {facts.step} steps with this config:\n\n```toml\n{facts.config}```\n" if facts.config else ""
    return f"""---
license: apache-2.0
library_name: lssvwm
pipeline_tag: image-to-video
tags: [world-model, state-space-model, diffusion, long-context]
---
# {repo}

A long-context state-space video world model, trained with [lssvwm](https://huggingface.co/models?library=lssvwm) on
`{data["dataset"]}` ({data["frame_size"][1]}×{data["frame_size"][0]} pixels, {data["fps"]:g} Hz).
{model["depth"]} layers of width {model["width"]}; conditions: {", ".join(_streams(data)) or "none"}.

{sample}## Use
```bash
pip install lssvwm
lssvwm rollout --checkpoint {repo} --frames 800 --out video.mp4
```

## Training
{recipe or "The recipe was not recorded."}
Autoencoder: `{data["autoencoder"]}` (sha256 {data["autoencoder_sha256"][:12]}), in `{AUTOENCODER_FOLDER}/`.

## Citation
```bibtex
@inproceedings{{po2025longcontext,
  title     = {{Long-Context State-Space Video World Models}},
  author    = {{Po, Ryan and Nitzan, Yotam and Zhang, Richard and Chen, Berlin and Dao, Tri and Shechtman, Eli and
               Wetzstein, Gordon and Huang, Xun}},
  booktitle = {{ICCV}},
  year      = {{2025}}
}}
```
"""


def own_repository(name: str) -> str:
    """`user/name` for the user who is logged in. Raises: LssvwmError saying what to do."""
    import huggingface_hub as hub

    with _told(None):
        return f"{hub.HfApi().whoami()['name']}/{name}"


def push(folder: Path, repo: str, kind: str = MODEL, private: bool = False) -> str:
    """Upload a built folder in one commit and return its address; a repository that is there gets a new commit.

    Large files that arrived before an upload broke off are not sent again. Raises: LssvwmError saying what to do.
    """
    import huggingface_hub as hub

    api = hub.HfApi()
    with _told(repo):
        api.create_repo(repo, repo_type=kind, private=private, exist_ok=True)
        commit = api.upload_folder(
            repo_id=repo,
            repo_type=kind,
            folder_path=folder,
            allow_patterns=list(UPLOADED[kind]),
            commit_message=f"Upload {kind} with lssvwm",
        )
    return str(commit.commit_url)


def download(name: str, kind: str = MODEL, files: tuple[str, ...] = ()) -> Path:
    """The folder of a world, an autoencoder or shards on the hub (`user/name` or `user/name@revision`), cached.

    Only safetensors, JSON and HDF5 are fetched, never a pickle; of these, only `files` where they are named.
    Raises: LssvwmError.
    """
    import huggingface_hub as hub
    from huggingface_hub.errors import LocalEntryNotFoundError

    repo, _, revision = name.partition("@")
    try:
        with _told(repo):
            wanted = list(files or LOADED[kind])
            return Path(hub.snapshot_download(repo, repo_type=kind, revision=revision or None, allow_patterns=wanted))
    except LocalEntryNotFoundError as error:
        raise LssvwmError(
            f"{name}: neither here, nor shipped, nor in the hub's cache, and the hub is out of reach"
        ) from error


def shards_folder(name: Path) -> Path:
    """A folder of shards: `name` itself, or a dataset of the hub (`user/name@revision`) where nothing is there.

    A name below a folder that exists is never looked up on the hub. Raises: LssvwmError as `download`.
    """
    local = name.exists() or name.parent.is_dir() or not storage.HUB_ID.fullmatch(name.as_posix())
    return name if local else download(name.as_posix(), DATASET)


@contextmanager
def _told(repo: str | None) -> Iterator[None]:
    """Turns what the hub's client raises into an LssvwmError that says what to do."""
    from huggingface_hub.errors import (  # type: ignore[attr-defined]  # HTTPError comes from its HTTP client
        HfHubHTTPError,
        HTTPError,
        LocalEntryNotFoundError,
        LocalTokenNotFoundError,
        OfflineModeIsEnabled,
    )

    try:
        yield
    except LocalEntryNotFoundError:
        raise
    except LocalTokenNotFoundError as error:
        raise LssvwmError(f"you are not logged in to the hub; {LOGIN_HELP}") from error
    except OfflineModeIsEnabled as error:
        raise LssvwmError("the hub is switched off by HF_HUB_OFFLINE; unset it") from error
    except HfHubHTTPError as error:
        raise LssvwmError(_explain(error, repo)) from error
    except (HTTPError, OSError, ValueError, RuntimeError) as error:
        if isinstance(error.__cause__, HfHubHTTPError):  # of a large file
            raise LssvwmError(_explain(error.__cause__, repo)) from error
        raise LssvwmError(
            f"the hub cannot be reached, or the connection broke off ({error.__cause__ or error}); nothing was "
            "committed: try again later"
        ) from error


def _explain(error: Any, repo: str | None) -> str:
    status = getattr(error.response, "status_code", None)
    if status == 401:
        return f"{repo}: the hub does not know you (401): not logged in, or no such repository; {LOGIN_HELP}"
    if status == 403:
        return f"{repo}: no right to write there (403); choose --repo under your own name, or a token with write access"
    if status == 404:
        return f"{repo}: no such repository on the hub (404), or it is private and you are not logged in"
    if status == 409:
        return f"{repo}: the repository was changed meanwhile, or the name is taken (409); try again, or another --repo"
    if status == 429:
        return f"{repo}: the hub asks for patience (429); try again in some minutes"
    return f"{repo}: the hub answered {status}: {str(error).splitlines()[0]}; nothing was committed: try again later"


def _streams(data: dict[str, Any]) -> list[str]:
    return [name for name in ("action", "pose") if data[f"{name}_names"]]
