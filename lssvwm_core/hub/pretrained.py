"""`from_pretrained`, `save_pretrained` and `push_to_hub` for worlds, by the hub's own mixin."""

from pathlib import Path
from typing import Any

import torch
from huggingface_hub import ModelCard, ModelHubMixin, snapshot_download

from lssvwm_core.hub.cards import model_card
from lssvwm_core.hub.client import LOADED, MODEL
from lssvwm_core.hub.folders import autoencoder_files, write_files
from lssvwm_core.model.storage import AUTOENCODER_FOLDER
from lssvwm_core.resolve import local_world
from lssvwm_core.world import World, load_world, save_world, world_config
from lssvwm_datasets.errors import LssvwmError


class PretrainedWorld(World, ModelHubMixin):
    """A world with its autoencoder, as one thing to load and to share: one cannot be rolled out without the other.

    `PretrainedWorld.from_pretrained("user/name", revision=…, device="cuda")` reads what `lssvwm push-hub` writes, and
    `world.push_to_hub("user/name")` writes what every command of lssvwm reads. A folder does instead of a hub id.
    Weights are those in memory, so the card tells nothing of their training; that of `lssvwm push-hub` does.
    """

    @classmethod
    def from_pretrained(  # type: ignore[override]  # names that every command knows come first
        cls, name: str | Path, *, revision: str | None = None, **options: Any
    ) -> "PretrainedWorld":
        """The world of a run, a folder, a shipped name or a hub id (`user/name`, `user/name@revision`).

        Args:
            options: `device`, and those of the hub's mixin, such as `token` and `cache_dir`.

        Raises: LssvwmError for a damaged world; what the hub's client raises for one that is not there.
        """
        repo, _, named = str(name).partition("@")
        local = local_world(str(name))
        return super().from_pretrained(str(local or repo), revision=revision or named or None, **options)

    @classmethod
    def _from_pretrained(
        cls,
        *,
        model_id: str,
        revision: str | None,
        cache_dir: str | Path | None,
        force_download: bool,
        local_files_only: bool,
        token: str | bool | None,
        device: str | torch.device = "cpu",
        **_: Any,  # what the mixin read in config.json; `load_world` checks it
    ) -> "PretrainedWorld":
        folder = Path(model_id)
        if not folder.is_dir():
            folder = Path(
                snapshot_download(
                    model_id,
                    revision=revision,
                    cache_dir=cache_dir,
                    force_download=force_download,
                    local_files_only=local_files_only,
                    token=token,
                    allow_patterns=list(LOADED[MODEL]),
                )
            )
        return cls(**vars(load_world(folder, device)))

    def _save_pretrained(self, save_directory: Path) -> None:
        if self.autoencoder.folder is None:
            raise LssvwmError("the autoencoder was made in memory; save it, and load it with load_autoencoder")
        save_world(save_directory, self.model, self.header, AUTOENCODER_FOLDER, self.sampler)
        folder = self.autoencoder.folder
        write_files(autoencoder_files(folder.parent, folder.name), save_directory)

    def push_to_hub(self, repo_id: str, **options: Any) -> str:
        """Upload the world, as the mixin does, with a card that names the repository."""
        return super().push_to_hub(repo_id, model_card_kwargs={"repo_id": repo_id}, **options)

    def generate_model_card(self, *args: Any, repo_id: str = "user/name", **kwargs: Any) -> ModelCard:
        return ModelCard(model_card(repo_id, world_config(self.model, self.header, AUTOENCODER_FOLDER, self.sampler)))
