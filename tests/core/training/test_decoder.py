"""A decoder that is trained on by itself, and how sharp it is asked to be."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from torch.nn import functional as F

from lssvwm_core.model.autoencoder import AutoencoderConfig, load_autoencoder
from lssvwm_core.model.frame_codec import pixels_of
from lssvwm_core.model.storage import SHIPPED, latents_sha256, weights_sha256
from lssvwm_core.training.autoencoder import AutoencoderTraining, gather_frames, local_sharpness, train_autoencoder
from lssvwm_core.world import load_world
from lssvwm_datasets.errors import LssvwmError
from lssvwm_datasets.sources import find_recordings, sample_recordings
from tests.conftest import PREPARE, lssvwm

TRAINING = AutoencoderTraining(steps=3, batch_size=4, max_frames=40, warmup_steps=1)


def train(out: Path, training: AutoencoderTraining, initial: Path | None) -> Path:
    recordings = find_recordings(sample_recordings(), "maze")
    config = AutoencoderConfig("small", latent_channels=8, widths=(16, 16, 32), decoder_blocks=1)
    for _ in train_autoencoder(recordings, out, config, training, torch.device("cpu"), initial):
        pass
    return out


@pytest.fixture
def decoder(workspace: Path, tmp_path: Path) -> Path:
    return train(tmp_path / "decoder", replace(TRAINING, decoder_only=True), workspace / "autoencoder")


def test_the_encoder_stays_and_the_decoder_learns(workspace: Path, decoder: Path) -> None:
    before, after = load_autoencoder(workspace / "autoencoder").state_dict(), load_autoencoder(decoder).state_dict()
    changed = {name.split(".")[0] for name in before if not torch.equal(before[name], after[name])}
    assert changed == {"decoder"}
    assert latents_sha256(decoder) == weights_sha256(workspace / "autoencoder") != weights_sha256(decoder)


def test_latents_are_known_by_the_first_of_several(workspace: Path, tmp_path: Path, decoder: Path) -> None:
    again = train(tmp_path / "again", replace(TRAINING, decoder_only=True, seed=1), decoder)
    assert latents_sha256(again) == weights_sha256(workspace / "autoencoder")
    whole = train(tmp_path / "whole", TRAINING, decoder)
    assert latents_sha256(whole) == weights_sha256(whole), "its encoder was trained too"


def test_worlds_and_shards_fit_the_new_decoder_only(workspace: Path, tmp_path: Path, decoder: Path) -> None:
    for name in ("data", "runs"):
        shutil.copytree(workspace / name, tmp_path / name)
    world = ("eval", "retrieval", "--checkpoint", "runs/test", "--json", "--videos", "0")
    short = (*world, "--context", "10", "--frames", "10", "--episodes", "1")
    figures = [json.loads(lssvwm(tmp_path, *short, "--out", "before").stdout)["rows"]]
    before = load_world(tmp_path / "runs/test").decode(torch.zeros(1, 8, 4, 4))
    for folder in ("data/maze", "runs/test"):
        shutil.copytree(decoder, tmp_path / folder / "autoencoder", dirs_exist_ok=True)
    assert not np.array_equal(load_world(tmp_path / "runs/test").decode(torch.zeros(1, 8, 4, 4)), before)
    assert "with other settings (decoder: None, now" in lssvwm(tmp_path, *short, "--out", "before", fails=True).stderr
    figures.append(json.loads(lssvwm(tmp_path, *short, "--out", "after").stdout)["rows"])
    assert figures[0] != figures[1]
    assert "step 5 of 5" in lssvwm(tmp_path, "train", "--name", "test", "--steps", "5", "--threads", "1").stderr

    whole = train(tmp_path / "whole", TRAINING, workspace / "autoencoder")
    shutil.copytree(whole, tmp_path / "runs/test/autoencoder", dirs_exist_ok=True)
    with pytest.raises(LssvwmError, match="not the autoencoder that"):
        load_world(tmp_path / "runs/test")


def test_shards_of_the_same_encoder_go_together(workspace: Path, tmp_path: Path, decoder: Path) -> None:
    shutil.copytree(workspace / "data", tmp_path / "data")
    shutil.copytree(decoder, tmp_path / "autoencoder")
    shutil.copytree(sample_recordings(), tmp_path / "recordings/maze")
    missing, *_ = sorted((tmp_path / "data/maze").glob("train*.h5"))
    with h5py.File(missing) as file:
        expected = file["latents"][:]
    missing.unlink()
    lssvwm(tmp_path, *PREPARE)
    with h5py.File(missing) as file:
        np.testing.assert_array_equal(file["latents"], expected)


def test_a_decoder_alone_needs_an_encoder(tmp_path: Path) -> None:
    command = ("train-autoencoder", str(sample_recordings()), "--decoder-only", "--steps", "1", "--max-frames", "40")
    assert "name it with --init-from" in lssvwm(tmp_path, *command, fails=True).stderr
    assert not (tmp_path / "runs").exists()
    lssvwm(tmp_path, *command, "--init-from", "maze-autoencoder", "--batch-size", "1", "--sharpness", "0.1")
    assert json.loads((tmp_path / "runs/autoencoder/recipe.json").read_text())["training"]["sharpness"] == 0.1


def test_sharpness_tells_scale_direction_colour_and_place() -> None:
    ramp = torch.arange(32.0).expand(32, 32) / 32
    found = local_sharpness(torch.stack([ramp, 2 * ramp.T, 0 * ramp])[None])[0].unflatten(0, (3, 3, 4))  # scale, way
    inner = found[..., :-1, :-1]  # the last blocks hold the edge, where there is nothing to compare with
    for number, side in enumerate((1, 2, 4)):
        right, down, across = inner[number]
        for changes, colours in ((right, (1, 0, 0, 1 / 3)), (down, (0, 2, 0, 2 / 3)), (across, (0, 0, 0, 0))):
            expected = torch.tensor(colours)[:, None, None] * side / 32
            torch.testing.assert_close(changes, expected.expand_as(changes))


def test_sharpness_falls_by_blur_where_it_was() -> None:
    one_sharp = torch.zeros(1, 3, 32, 32)
    one_sharp[..., 8:16, 16:24] = torch.rand(3, 8, 8, generator=torch.Generator().manual_seed(0))
    sharp, blurred = local_sharpness(one_sharp)[0], local_sharpness(F.avg_pool2d(one_sharp, 3, 1, 1))[0]
    assert (sharp[:12].flatten(1).argmax(dim=1) == 1 * 4 + 2).all()
    assert (blurred[:12].amax() < sharp[:12].amax() / 2).all()


def test_dots_do_not_pass_for_lines() -> None:
    """As much of a change from pixel to pixel, but another one."""
    y, x = torch.meshgrid(torch.arange(32), torch.arange(32), indexing="ij")
    dots, lines = ((pattern % 2).float().expand(1, 3, 32, 32) for pattern in (x + y, x))
    assert (local_sharpness(dots) - local_sharpness(lines)).abs().amax(dim=(0, 2, 3)).max() > 0.9


def test_a_decoder_that_is_asked_to_be_sharp_is_as_sharp_as_its_frames(tmp_path: Path) -> None:
    """More than one that is not asked, from the same weights, with the same frames in the same order."""
    frames = torch.from_numpy(gather_frames(find_recordings(sample_recordings(), "maze"), "validation", 40))
    training = replace(TRAINING, steps=25, batch_size=8, learning_rate=1e-3, ema_decay=0.9, decoder_only=True)
    errors = []
    for weight in (0.0, 0.3):
        folder = train(tmp_path / str(weight), replace(training, sharpness=weight), SHIPPED / "maze-autoencoder")
        model = load_autoencoder(folder)
        with torch.inference_mode():
            made = model.decode(model.encode(frames))
        errors.append((local_sharpness(pixels_of(made)) - local_sharpness(pixels_of(frames))).abs().mean().item())
    assert errors[1] < 0.95 * errors[0]
