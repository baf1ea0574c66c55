"""What is shared: the folder for the hub, and what is said when the hub says no."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from lssvwm_core.hub import build_folder, push
from lssvwm_core.runs import Run
from lssvwm_core.world import load_world
from lssvwm_datasets.errors import LssvwmError
from tests.conftest import lssvwm


@pytest.fixture
def built(workspace: Path, tmp_path: Path) -> Path:
    build_folder(Run(workspace / "runs/test").world, tmp_path / "hub", "me/maze")
    return tmp_path / "hub"


def test_folder_loads_back_into_the_identical_world(workspace: Path, built: Path) -> None:
    ours = load_world(Run(workspace / "runs/test").world, torch.device("cpu"))
    theirs = load_world(built, torch.device("cpu"))
    for one, other in ((ours.model, theirs.model), (ours.autoencoder, theirs.autoencoder)):
        for name, tensor in one.state_dict().items():
            assert torch.equal(tensor, other.state_dict()[name]), name


def test_folder_holds_what_people_expect_and_nothing_else(built: Path) -> None:
    files = {path.relative_to(built).as_posix() for path in built.rglob("*") if path.is_file()}
    weights = {"config.json", "model.safetensors"}
    assert files == weights | {f"autoencoder/{name}" for name in weights} | {"README.md"}
    card = (built / "README.md").read_text()
    assert "lssvwm rollout --checkpoint me/maze" in card
    assert "Trained for 4 steps" in card
    assert "po2025longcontext" in card
    assert json.loads((built / "config.json").read_text())["autoencoder"] == "autoencoder"


def test_dry_run_shows_the_folder_and_uploads_nothing(workspace: Path, tmp_path: Path) -> None:
    done = lssvwm(workspace, "push-hub", "test", "--dry-run", "--out", str(tmp_path / "preview"))
    assert "model.safetensors" in done.stdout
    assert "would upload" in done.stderr
    assert (tmp_path / "preview/README.md").exists()


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"HF_TOKEN": "hf_wrong", "HF_HUB_OFFLINE": "1"}, "HF_HUB_OFFLINE"),
        ({"HF_TOKEN": "hf_wrong", "HF_ENDPOINT": "http://127.0.0.1:9"}, "cannot be reached"),
        ({"HF_ENDPOINT": "http://127.0.0.1:9"}, "hf auth login"),
    ],
)
def test_no_network_and_no_login_are_told(
    workspace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], message: str
) -> None:
    for name, value in {"HF_HUB_OFFLINE": "0", "HF_HOME": str(tmp_path), **environment}.items():
        monkeypatch.setenv(name, value)
    assert message in lssvwm(workspace, "push-hub", "test", fails=True).stderr


@pytest.mark.parametrize(
    ("status", "message"),
    [(401, "hf auth login"), (403, "no right to write"), (404, "no such repository"), (429, "patience"), (500, "500")],
)
def test_refusals_are_explained(built: Path, monkeypatch: pytest.MonkeyPatch, status: int, message: str) -> None:
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    def refuse(*_: Any, **__: Any) -> None:
        response: Any = SimpleNamespace(status_code=status, headers={}, request=None)
        raise HfHubHTTPError("refused", response=response)

    monkeypatch.setattr(HfApi, "create_repo", refuse)
    with pytest.raises(LssvwmError, match=message):
        push(built, "me/maze", "maze", private=False)


def test_default_repository_is_the_users(built: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import HfApi

    calls: dict[str, Any] = {}
    monkeypatch.setattr(HfApi, "whoami", lambda self: {"name": "ann"})
    monkeypatch.setattr(HfApi, "create_repo", lambda self, repo, **options: calls.update(repo=repo, **options))
    monkeypatch.setattr(
        HfApi, "upload_folder", lambda self, **options: calls.update(options) or SimpleNamespace(commit_url="url")
    )
    assert push(built, None, "maze-tiny", private=True) == "url"
    assert calls["repo"] == calls["repo_id"] == "ann/maze-tiny"
    assert calls["private"] is True
