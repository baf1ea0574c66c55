"""What leaves the machine, and what a dry run touches: nothing but the files that a folder holds itself."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from lssvwm_core.hub.folders import dataset_files, world_files, write_files, write_preview
from lssvwm_core.hub.space import write_start
from lssvwm_core.training.run.folder import Run
from lssvwm_core.world import load_world
from lssvwm_datasets.errors import LssvwmError
from lssvwm_datasets.shards import open_shards
from tests.conftest import lssvwm

SHARD, HELD_OUT = "train-00000-of-00003.h5", "validation-00000-of-00001.h5"


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


def whole_world(home: Path) -> Path:
    """A complete world outside the run: with its own autoencoder, and a name like a checkpoint's."""
    folder = home / "elsewhere/000004/model"
    write_files(world_files(Run(home / "runs/test").world, "me/maze"), folder)
    return folder


LINKED: dict[str, Callable[[Run, Path], Path]] = {  # which link of a run leads to the world elsewhere
    "model": lambda run, world: moved(run.world, world),
    "checkpoint": lambda run, world: moved(run.world.parent, world.parent),
    "checkpoints": lambda run, world: moved(run.checkpoints, world.parents[1]),
}


def moved(path: Path, target: Path) -> Path:
    """A link in place of a folder, to another one; returns the link."""
    shutil.rmtree(path)
    path.symlink_to(target)
    return path


@pytest.mark.parametrize("what", ["model", "dataset"])
@pytest.mark.parametrize("link", LINKED.values(), ids=LINKED.keys())
def test_a_world_that_its_run_does_not_hold_is_refused(
    home: Path, link: Callable[[Run, Path], Path], what: str
) -> None:
    run, world = Run(home / "runs/test"), whole_world(home)
    link(run, world)
    assert load_world(run.world).header.dataset == "maze"  # it can be loaded, as from any link
    before = tree(home)
    for name in ("test", "runs/test", "runs/test/checkpoints/000004", "runs/test/checkpoints/last"):
        error = lssvwm(home, "push-hub", name, "--what", what, "--dry-run", fails=True).stderr
        assert f"a link to {world}, outside runs/test: not uploaded" in error
    assert tree(home) == before


def test_a_checkpoint_that_is_no_run_holds_its_world_too(home: Path) -> None:
    whole_world(home).parent.rename(home / "whole")
    assert world_files(home / "whole/model", "me/maze")
    (home / "whole/model").rename(home / "weights")
    (home / "whole/model").symlink_to(home / "weights")
    assert "outside whole" in lssvwm(home, "push-hub", "whole", "--dry-run", fails=True).stderr


def test_links_that_a_user_names_and_links_within_a_run_are_shared(home: Path) -> None:
    world, run = whole_world(home), Run(home / "runs/test")
    (home / "named").symlink_to(world)
    lssvwm(home, "push-hub", "named", "--dry-run", "--out", "first")
    (home / "runs/other").symlink_to(run.folder)
    lssvwm(home, "push-hub", "other", "--dry-run", "--out", "second")
    run.checkpoint(4).rename(run.folder / "checkpoints/kept")
    run.checkpoint(4).symlink_to("kept")
    lssvwm(home, "push-hub", str(home / "runs/test"), "--dry-run", "--out", "third")
    for name in ("first", "second", "third"):
        assert (home / name / "model.safetensors").read_bytes() == (world / "model.safetensors").read_bytes()


@pytest.mark.parametrize("name", ["config.toml", "origin.json", "checkpoints/000004/model/config.json"])
def test_what_the_card_and_the_config_tell_is_the_runs_own(home: Path, name: str) -> None:
    path = home / "runs/test" / name
    content = path.read_text() if path.exists() else '{"base_model": "mine"}'
    (home / "private").write_text(content)
    path.unlink(missing_ok=True)
    path.symlink_to(home / "private")
    with pytest.raises(LssvwmError, match="outside"):
        world_files(Run(home / "runs/test").world, "me/maze")


@pytest.mark.parametrize("name", [HELD_OUT, "dataset.json"])
def test_a_space_starts_from_no_linked_shard(home: Path, name: str) -> None:
    (home / "data/maze" / name).rename(home / "mine")
    (home / "data/maze" / name).symlink_to(home / "mine")
    error = lssvwm(home, "push-hub", "test", "--space", "--dry-run", fails=True).stderr
    assert f"{name}: a link to {home / 'mine'}, outside data/maze: not uploaded" in error
    assert not (home / "hub-preview").exists()


def test_a_space_needs_only_the_shards_that_it_starts_from(home: Path, tmp_path: Path) -> None:
    (home / "data/maze" / SHARD).unlink()
    (tmp_path / "start").mkdir()
    (home / "shards").symlink_to(home / "data/maze")  # a folder that the user named
    write_start(load_world(home / "runs/test"), home / "shards", tmp_path / "start")
    assert len(open_shards(tmp_path / "start", "validation").episodes) == 1


def test_linked_shards_are_read(home: Path) -> None:
    shard = home / "data/maze" / SHARD
    whole = open_shards(shard.parent, "train")
    expected = [whole.read(episode, "latents") for episode in whole.episodes]
    shard.rename(home / "mine.h5")
    shard.symlink_to(home / "mine.h5")
    through = open_shards(shard.parent, "train")
    for episode, latents in zip(through.episodes, expected, strict=True):
        np.testing.assert_array_equal(through.read(episode, "latents"), latents)


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
