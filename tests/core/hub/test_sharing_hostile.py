"""What leaves the machine, and what a dry run touches: nothing but the files that a folder holds itself."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from lssvwm_core.hub.folders import dataset_files, world_files, write_preview
from lssvwm_core.training.run.folder import Run
from lssvwm_datasets.errors import LssvwmError
from tests.conftest import lssvwm

SHARD = "train-00000-of-00003.h5"


@pytest.fixture
def home(workspace: Path, tmp_path: Path) -> Path:
    """A copy of the workspace's data and run, with a private file beside them."""
    for name in ("data", "runs/test"):
        shutil.copytree(workspace / name, tmp_path / name, symlinks=True)
    (tmp_path / "private.h5").write_text("mine")
    return tmp_path


def rename_first_shard(folder: Path, name: str) -> None:
    index = json.loads((folder / "dataset.json").read_text())
    index["shards"][0]["file"] = name
    (folder / "dataset.json").write_text(json.dumps(index))


def tree(folder: Path) -> dict[str, bytes | str]:
    """Every file below a folder with its content, every link with its target."""
    return {
        str(path.relative_to(folder)): os.readlink(path) if path.is_symlink() else path.read_bytes()
        for path in folder.rglob("*")
        if path.is_symlink() or path.is_file()
    }


def test_an_index_that_names_files_elsewhere_touches_none(home: Path) -> None:
    rename_first_shard(home / "data/maze", "../../private.h5")
    before = tree(home)
    error = lssvwm(home, "push-hub", "test", "--what", "dataset", "--dry-run", "--out", ".", fails=True).stderr
    assert "bare name of a shard" in error
    assert tree(home) == before
    for name in (f"{home}/private.h5", "../maze/../../private.h5"):
        rename_first_shard(home / "data/maze", name)
        with pytest.raises(LssvwmError, match="bare name of a shard"):
            dataset_files(home / "data/maze", "me/maze")


@pytest.mark.parametrize("out", [".", "data/maze", "runs/test", "other"])
def test_a_dry_run_refuses_a_folder_that_holds_anything_else(home: Path, out: str) -> None:
    (home / "other").mkdir()
    (home / "other/README.md").write_text("mine")
    before = tree(home)
    for files in (dataset_files(home / "data/maze", "me/maze"), world_files(Run(home / "runs/test").world, "me/maze")):
        with pytest.raises(LssvwmError, match="choose another --out"):
            write_preview(files, home / out)
        assert tree(home) == before


def test_a_dry_run_leaves_shards_where_they_are_and_can_be_repeated(home: Path) -> None:
    before = tree(home)
    for _ in range(2):
        done = lssvwm(home, "push-hub", "test", "--what", "both", "--dry-run")
        assert f"  {SHARD}\n" in done.stdout
    after = tree(home)
    made = {name for name in set(after) - set(before) if not Path(name).name.startswith(".")}
    weights = ("config.json", "model.safetensors")
    assert made == {
        *(f"hub-preview/{kind}/autoencoder/{name}" for kind in ("model", "dataset") for name in weights),
        *(f"hub-preview/model/{name}" for name in weights),
        "hub-preview/dataset/dataset.json",
        "hub-preview/dataset/preview/metadata.jsonl",
        *(f"hub-preview/dataset/preview/train-{number:03d}.mp4" for number in range(3)),
        "hub-preview/dataset/preview/validation-000.mp4",
        *(f"hub-preview/{kind}/README.md" for kind in ("model", "dataset")),
    }
    assert {name: after[name] for name in before} == before
    assert not [name for name, content in after.items() if isinstance(content, str) and name not in before]


def test_a_preview_removes_what_an_earlier_one_made_and_nothing_else(tmp_path: Path) -> None:
    write_preview({"a/sample.mp4": "old", "README.md": "old"}, tmp_path / "preview")
    write_preview({"README.md": "new"}, tmp_path / "preview")
    assert [path.name for path in (tmp_path / "preview").rglob("[!.]*") if path.is_file()] == ["README.md"]
    assert (tmp_path / "preview/README.md").read_text() == "new"
    (tmp_path / "preview/mine").touch()
    with pytest.raises(LssvwmError, match="it holds mine"):
        write_preview({"README.md": "newer"}, tmp_path / "preview")
    assert (tmp_path / "preview/README.md").read_text() == "new"


@pytest.mark.parametrize("name", ["autoencoder", "README.md", ".lssvwm-preview", "autoencoder/config.json"])
def test_a_preview_is_not_written_through_links(tmp_path: Path, name: str) -> None:
    """A folder that says it is a preview, and leads elsewhere."""
    elsewhere, preview = tmp_path / "elsewhere", tmp_path / "preview"
    elsewhere.mkdir()
    (elsewhere / "config.json").write_text("mine")
    (preview / name).parent.mkdir(parents=True)
    (preview / ".lssvwm-preview").write_text(f"{name}\n")
    (preview / name).unlink(missing_ok=True)
    (preview / name).symlink_to(elsewhere / "config.json" if "." in name else elsewhere)
    before = tree(tmp_path)
    with pytest.raises(LssvwmError, match="choose another --out"):
        write_preview({"autoencoder/config.json": "{}", "README.md": "new"}, preview)
    assert tree(tmp_path) == before


def linked(path: Path, target: Path) -> None:
    path.unlink()
    path.symlink_to(target)


HOSTILE: dict[str, tuple[Callable[[Path], object], str]] = {
    "a shard that is a link": (
        lambda home: linked(home / f"data/maze/{SHARD}", home / "private.h5"),
        "outside",
    ),
    "a shard that is a pipe": (
        lambda home: ((home / f"data/maze/{SHARD}").unlink(), os.mkfifo(home / f"data/maze/{SHARD}")),
        "not a regular file",
    ),
    "a shard that is missing": (lambda home: (home / f"data/maze/{SHARD}").unlink(), "no such file"),
    "links in a circle": (
        lambda home: linked(home / f"data/maze/{SHARD}", home / f"data/maze/{SHARD}"),
        "no such file",
    ),
    "an autoencoder of links": (
        lambda home: linked(home / "data/maze/autoencoder/config.json", home / "private.h5"),
        "outside",
    ),
    "an autoencoder elsewhere": (
        lambda home: (
            (home / "data/maze/autoencoder").rename(home / "elsewhere"),
            (home / "data/maze/autoencoder").symlink_to(home / "elsewhere"),
        ),
        "outside",
    ),
}


@pytest.mark.parametrize(("make", "message"), HOSTILE.values(), ids=HOSTILE.keys())
def test_only_regular_files_of_the_folder_are_shared(home: Path, make: Callable[[Path], object], message: str) -> None:
    make(home)
    with pytest.raises(LssvwmError, match=message):
        dataset_files(home / "data/maze", "me/maze")


def test_files_that_nobody_asked_for_stay(home: Path) -> None:
    world = Run(home / "runs/test").world
    for folder in (home / "data/maze", home / "data/maze/autoencoder", home / "runs/test/autoencoder", world):
        (folder / "notes.txt").symlink_to(home / "private.h5")
        (folder / "other.h5").write_text("mine")
    for files in (dataset_files(home / "data/maze", "me/maze"), world_files(world, "me/maze")):
        assert not [name for name in files if Path(name).name in ("notes.txt", "other.h5")]


def test_a_private_file_in_place_of_weights_or_sample_is_refused(home: Path) -> None:
    run = Run(home / "runs/test")
    (run.folder / "samples").mkdir(exist_ok=True)
    (run.folder / "samples/000004.mp4").symlink_to(home / "private.h5")
    with pytest.raises(LssvwmError, match="outside"):
        world_files(run.world, "me/maze")
    shutil.rmtree(run.folder / "samples")
    (home / "videos").mkdir()
    (home / "videos/000004.mp4").write_text("mine")
    (run.folder / "samples").symlink_to(home / "videos")
    with pytest.raises(LssvwmError, match="outside"):
        world_files(run.world, "me/maze")
    (run.folder / "samples").unlink()
    shutil.move(run.world / "model.safetensors", home / "weights")
    (run.world / "model.safetensors").symlink_to(home / "weights")
    with pytest.raises(LssvwmError, match="outside"):
        world_files(run.world, "me/maze")


def test_what_lies_in_the_cache_of_the_hub_may_be_shared_again(home: Path, tmp_path: Path) -> None:
    repository = tmp_path / "cache/datasets--me--maze"
    snapshot = repository / "snapshots/abc"
    (snapshot / "autoencoder").mkdir(parents=True)
    (repository / "blobs").mkdir()
    for name, content in tree(home / "data/maze").items():
        blob = repository / "blobs" / name.replace("/", "-")
        blob.write_bytes(content if isinstance(content, bytes) else content.encode())
        (snapshot / name).symlink_to(os.path.relpath(blob, (snapshot / name).parent))
    files = dataset_files(snapshot, "me/maze")
    assert SHARD in files
    linked(snapshot / SHARD, home / "private.h5")
    with pytest.raises(LssvwmError, match="outside"):
        dataset_files(snapshot, "me/maze")
