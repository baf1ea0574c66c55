"""The hub's client: one commit up, safetensors and JSON down, and what to do when the hub says no."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lssvwm_datasets.errors import LssvwmError

MODEL, DATASET, SPACE = "model", "dataset", "space"
CARD_FILE, SAMPLE_FILE = "README.md", "sample.mp4"
LOADED = {MODEL: ("*.json", "*.safetensors"), DATASET: ("*.json", "*.safetensors", "*.h5")}  # never a pickle
LOGIN_HELP = "log in with: hf auth login   (a token with write access, from huggingface.co/settings/tokens)"


def own_repository(name: str) -> str:
    """`user/name` for the user who is logged in. Raises: LssvwmError saying what to do."""
    import huggingface_hub as hub

    with _told(None):
        return f"{hub.HfApi().whoami()['name']}/{name}"


def push(files: Mapping[str, Path | str], repo: str, kind: str = MODEL, private: bool = False) -> str:
    """Upload files and texts under their names in one commit, and return its address.

    A repository that is there gets a new commit.
    Large files that arrived before an upload broke off are not sent again. Raises: LssvwmError saying what to do.
    """
    import huggingface_hub as hub

    api = hub.HfApi()
    with _told(repo):
        sdk = "docker" if kind == SPACE else None
        api.create_repo(repo, repo_type=kind, private=private, exist_ok=True, space_sdk=sdk)
        added = [
            hub.CommitOperationAdd(name, content if isinstance(content, Path) else content.encode())
            for name, content in files.items()
        ]
        commit = api.create_commit(repo, added, repo_type=kind, commit_message=f"Upload {kind} with lssvwm")
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


def repository_of(folder: Path) -> str | None:
    """`user/name` of what lies in the hub's cache, `models--user--name/snapshots/<revision>`; None elsewhere."""
    kept = folder.parent.parent.name.split("--") if folder.parent.name == "snapshots" else []
    return "/".join(kept[1:]) if len(kept) == 3 else None


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
    except ValueError as error:  # names that are none, the user's or those of files there
        raise LssvwmError(f"{repo}: {error}") from error
    except (HTTPError, OSError, RuntimeError) as error:
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
