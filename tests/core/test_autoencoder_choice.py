"""Which autoencoder encodes what: by default, and by measuring."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from lssvwm_cli import prepare
from lssvwm_cli.app import app
from lssvwm_core.model.autoencoder import load_autoencoder
from lssvwm_core.prepare.choice import best_shipped, default_autoencoder, good_enough
from lssvwm_core.resolve import shipped_models
from lssvwm_datasets.errors import LssvwmError
from lssvwm_datasets.sources import find_recordings, sample_recordings


def test_each_data_set_has_a_default_that_ships(monkeypatch: pytest.MonkeyPatch) -> None:
    assert default_autoencoder("maze") == "maze-autoencoder"
    models = {name: Path(name) for name in ("a-world", "maze-autoencoder", "game-autoencoder", "luanti-autoencoder")}
    for there, dataset, chosen in (
        (4, "luanti", "luanti-autoencoder"),
        (4, "maze", "maze-autoencoder"),
        (4, "minerl", "game-autoencoder"),
        (3, "luanti", "game-autoencoder"),
        (2, "minerl", "maze-autoencoder"),
    ):
        shipped = dict(list(models.items())[:there])
        monkeypatch.setattr("lssvwm_core.prepare.choice.shipped_models", lambda shipped=shipped: shipped)
        assert default_autoencoder(dataset) == chosen


def test_the_best_that_ships_is_found_by_measuring() -> None:
    name, reconstruction = best_shipped(find_recordings(sample_recordings()))
    assert name == "game-autoencoder"  # also for mazes
    assert good_enough(reconstruction)


def test_auto_trains_one_where_none_that_ships_is_good_enough_and_takes_it_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    maze = {"maze-autoencoder": shipped_models()["maze-autoencoder"]}
    monkeypatch.setattr("lssvwm_core.prepare.choice.shipped_models", lambda: maze)
    monkeypatch.setattr(prepare, "AUTO_MINUTES", 0.1)
    command = ["prepare", "luanti", "--autoencoder", "auto", "--dry-run", "--json"]
    first = CliRunner().invoke(app, command, catch_exceptions=False)
    assert "source: " in first.stderr
    assert "(the samples that ship with lssvwm)" in first.stderr
    assert "of the autoencoders that ship, maze-autoencoder does best: " in first.stderr
    assert "training one on these recordings for 0.1 minutes at most, into runs/luanti-autoencoder" in first.stderr
    recipe = json.loads(Path("runs/luanti-autoencoder/recipe.json").read_text())
    assert recipe["steps_done"] > 0
    again = CliRunner().invoke(app, command, catch_exceptions=False)
    assert "runs/luanti-autoencoder was trained on such recordings" in again.stderr
    first_psnr, second_psnr = (json.loads(one.stdout)["reconstruction_psnr"] for one in (first, again))
    assert first_psnr == second_psnr


def test_one_learns_from_several_formats(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    samples = sample_recordings().parent
    command = ["train-autoencoder", str(samples / "maze"), str(samples / "luanti"), "--out", "both", "--steps", "2"]
    CliRunner().invoke(app, [*command, "--max-frames", "400"], catch_exceptions=False)
    recipe = json.loads(Path("both/recipe.json").read_text())
    assert recipe["train_frames"] == 4 * 100
    assert recipe["validation_frames"] == 2 * 10


@pytest.mark.parametrize(("compression", "cells"), [(4, 16), (8, 8), (32, 2)])
def test_one_compresses_as_much_as_is_asked(
    compression: int, cells: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    command = ["train-autoencoder", str(sample_recordings()), "--steps", "1", "--max-frames", "40", "--batch-size", "2"]
    CliRunner().invoke(app, [*command, "--compression", str(compression)], catch_exceptions=False)
    assert load_autoencoder(Path("runs/autoencoder")).latent_shape(64, 64) == (32, cells, cells)
    with pytest.raises(LssvwmError, match="--compression 12: expected one of 4, 8, 16, 32"):
        CliRunner().invoke(app, [*command, "--compression", "12"], catch_exceptions=False)
