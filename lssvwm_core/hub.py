"""Sharing worlds on the Hugging Face hub: the folder people expect there, uploaded in one commit."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lssvwm_core.model import storage
from lssvwm_core.model.storage import AUTOENCODER_FOLDER
from lssvwm_datasets.errors import LssvwmError

CARD_FILE, SAMPLE_FILE = "README.md", "sample.mp4"
UPLOADED = (storage.CONFIG_FILE, storage.WEIGHTS_FILE, CARD_FILE, SAMPLE_FILE, f"{AUTOENCODER_FOLDER}/*")
LOADED = ("*.json", "*.safetensors")  # never a pickle
LOGIN_HELP = "log in with: hf auth login   (a token with write access, from huggingface.co/settings/tokens)"


@dataclass(frozen=True)
class RunFacts:
    """What the model card tells of a world's training, where it is known."""

    name: str
    config: str | None  # the run's config.toml
    step: int | None
    sample: Path | None


def run_facts(world: Path) -> RunFacts:
    """The facts of a world, from its run where it lies in one (`runs/<name>/checkpoints/<step>/model`)."""
    checkpoint, run = world.resolve().parent, world.resolve().parents[2]
    if not (checkpoint.name.isdigit() and (run / "config.toml").is_file()):
        return RunFacts(world.name, None, None, None)
    samples = sorted((run / "samples").glob("*.mp4"))
    return RunFacts(run.name, (run / "config.toml").read_text(), int(checkpoint.name), samples[-1] if samples else None)


def build_folder(world: Path, folder: Path, repo: str) -> None:
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
    for name in (storage.CONFIG_FILE, storage.WEIGHTS_FILE, "recipe.json"):
        if (autoencoder / name).is_file():
            (folder / AUTOENCODER_FOLDER).mkdir(exist_ok=True)
            shutil.copyfile(autoencoder / name, folder / AUTOENCODER_FOLDER / name)
    if facts.sample is not None:
        shutil.copyfile(facts.sample, folder / SAMPLE_FILE)
    (folder / CARD_FILE).write_text(model_card(repo, config, facts))


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


def push(folder: Path, repo: str | None, name: str, private: bool) -> str:
    """Upload a built folder in one commit and return its address. Raises: LssvwmError saying what to do."""
    import huggingface_hub as hub
    from huggingface_hub.errors import (  # type: ignore[attr-defined]  # HTTPError comes from its HTTP client
        HfHubHTTPError,
        HTTPError,
        LocalTokenNotFoundError,
        OfflineModeIsEnabled,
    )

    api = hub.HfApi()
    try:
        repo = repo or f"{api.whoami()['name']}/{name}"
        (folder / CARD_FILE).write_text((folder / CARD_FILE).read_text().replace("USER/", f"{repo.split('/')[0]}/"))
        api.create_repo(repo, private=private, exist_ok=True)
        commit = api.upload_folder(
            repo_id=repo, folder_path=folder, allow_patterns=list(UPLOADED), commit_message="Upload world with lssvwm"
        )
    except LocalTokenNotFoundError as error:
        raise LssvwmError(f"you are not logged in to the hub; {LOGIN_HELP}") from error
    except OfflineModeIsEnabled as error:
        raise LssvwmError("the hub is switched off by HF_HUB_OFFLINE; unset it to push") from error
    except HfHubHTTPError as error:
        raise LssvwmError(_explain(error, repo)) from error
    except (HTTPError, OSError, ValueError) as error:
        raise LssvwmError(f"the hub cannot be reached ({error}); nothing was changed there: try again later") from error
    return str(commit.commit_url)


def download(name: str) -> Path:
    """The folder of a world or autoencoder on the hub (`user/name` or `user/name@revision`), from the cache when there.

    Only safetensors and JSON are fetched. Raises: LssvwmError.
    """
    import huggingface_hub as hub
    from huggingface_hub.errors import (  # type: ignore[attr-defined]  # HTTPError comes from its HTTP client
        HfHubHTTPError,
        HTTPError,
        LocalEntryNotFoundError,
    )

    repo, _, revision = name.partition("@")
    try:
        return Path(hub.snapshot_download(repo, revision=revision or None, allow_patterns=list(LOADED)))
    except LocalEntryNotFoundError as error:
        raise LssvwmError(
            f"{name}: neither a folder, a shipped name, nor in the hub's cache, and the hub is out of reach"
        ) from error
    except HfHubHTTPError as error:
        raise LssvwmError(_explain(error, repo)) from error
    except (HTTPError, OSError, ValueError) as error:
        raise LssvwmError(f"{name}: the hub cannot be reached ({error})") from error


def _explain(error: Any, repo: str | None) -> str:
    status = getattr(error.response, "status_code", None)
    if status == 401:
        return f"{repo}: the hub does not know you (401): not logged in, or no such repository; {LOGIN_HELP}"
    if status == 403:
        return f"{repo}: no right to write there (403); choose --repo under your own name, or a token with write access"
    if status == 404:
        return f"{repo}: no such repository on the hub (404), or it is private and you are not logged in"
    if status == 429:
        return f"{repo}: the hub asks for patience (429); try again in some minutes"
    return f"{repo}: the hub answered {status}: {error}; nothing was committed: try again later"


def _streams(data: dict[str, Any]) -> list[str]:
    return [name for name in ("action", "pose") if data[f"{name}_names"]]
