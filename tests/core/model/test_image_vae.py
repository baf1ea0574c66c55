"""A VAE of diffusers as the autoencoder: read from its own layout, deterministic, and carried to the rollout."""

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from lssvwm_core.model.autoencoder import load_autoencoder
from lssvwm_core.model.frame_codec import pixels_of
from lssvwm_core.model.storage import CONFIG_FILE, VAE_WEIGHTS_FILE
from lssvwm_core.resolve import resolve_autoencoder
from lssvwm_core.training.run.folder import Run
from lssvwm_datasets.errors import LssvwmError
from lssvwm_datasets.shards import open_shards
from lssvwm_datasets.sources import sample_recordings
from tests.conftest import lssvwm, train_command

diffusers = pytest.importorskip("diffusers")
SCALING, SHIFT = 0.5, 0.25


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny VAE with random weights, as diffusers saves it; 8 pixels to a cell."""
    torch.manual_seed(0)
    down, up = ["DownEncoderBlock2D"] * 4, ["UpDecoderBlock2D"] * 4
    vae = diffusers.AutoencoderKL(
        down_block_types=down,
        up_block_types=up,
        block_out_channels=(8, 8, 8, 8),
        norm_num_groups=4,
        latent_channels=4,
        sample_size=64,
        scaling_factor=SCALING,
        shift_factor=SHIFT,
    )
    folder = tmp_path_factory.mktemp("vae") / "tiny"
    vae.save_pretrained(folder)
    return folder


@pytest.fixture
def folder(saved: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(saved, tmp_path / "tiny"))


@torch.inference_mode()
def test_latents_are_the_scaled_mode_and_decode_undoes_it(saved: Path) -> None:
    frames = torch.randint(256, (2, 64, 96, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    codec, vae = load_autoencoder(saved), diffusers.AutoencoderKL.from_pretrained(saved)
    mode = vae.encode(pixels_of(frames)).latent_dist.mode()
    latents = codec.encode(frames)
    assert latents.shape[1:] == codec.latent_shape(64, 96) == (4, 8, 12)
    torch.testing.assert_close(latents, (mode - SHIFT) * SCALING)
    expected = ((vae.decode(mode).sample + 1) * 127.5).round().clamp(0, 255).permute(0, 2, 3, 1)
    assert (codec.decode(latents).float() - expected).abs().max() <= 1


def test_a_vae_within_a_pipeline_is_found(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "pipeline").mkdir()
    shutil.move(folder, tmp_path / "pipeline/vae")
    assert resolve_autoencoder(str(tmp_path / "pipeline")) == tmp_path / "pipeline/vae"


def test_prepare_train_and_rollout_with_a_vae(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(sample_recordings(), tmp_path / "recordings/maze")
    lssvwm(tmp_path, "prepare", "maze", "--autoencoder", "tiny", "--accept-quality", "--shard-size", "1", "--jobs", "1")
    shards = open_shards(tmp_path / "data/maze", "validation")
    assert (shards.header.autoencoder, shards.header.latent_shape) == ("AutoencoderKL", (4, 8, 8))
    frames, stored = shards.read(shards.episodes[0], "frames"), shards.read(shards.episodes[0], "latents")
    assert frames is not None
    with torch.inference_mode():
        latents = load_autoencoder(folder).encode(torch.from_numpy(frames[:3])).numpy()
    np.testing.assert_allclose(stored[:3], latents, atol=2e-3)
    lssvwm(tmp_path, *train_command("vae", 2))
    shutil.rmtree(folder)  # the run has its own
    assert (Run(tmp_path / "runs/vae").folder / "autoencoder" / VAE_WEIGHTS_FILE).exists()
    lssvwm(tmp_path, "rollout", "--frames", "20", "--context", "10", "--steps", "1", "--out", "video.mp4")
    assert (tmp_path / "video.mp4").stat().st_size > 1000


def test_damaged_folders_are_told(folder: Path) -> None:
    tensors = load_file(folder / VAE_WEIGHTS_FILE)
    name = "encoder.conv_in.weight"
    save_file({key: value for key, value in tensors.items() if key != name}, folder / VAE_WEIGHTS_FILE)
    with pytest.raises(LssvwmError, match=rf"{VAE_WEIGHTS_FILE}: .*{name}"):
        load_autoencoder(folder)
    save_file({**tensors, name: torch.zeros(3, 3)}, folder / VAE_WEIGHTS_FILE)
    with pytest.raises(LssvwmError, match=VAE_WEIGHTS_FILE):
        load_autoencoder(folder)
    (folder / VAE_WEIGHTS_FILE).write_bytes(b"no tensors")
    with pytest.raises(LssvwmError, match=VAE_WEIGHTS_FILE):
        load_autoencoder(folder)
    (folder / VAE_WEIGHTS_FILE).unlink()
    (folder / "diffusion_pytorch_model.bin").write_bytes(b"a pickle")
    with pytest.raises(LssvwmError, match="safetensors only"):
        load_autoencoder(folder)


def test_other_models_of_diffusers_are_refused(folder: Path) -> None:
    config = json.loads((folder / CONFIG_FILE).read_text())
    (folder / CONFIG_FILE).write_text(json.dumps({**config, "_class_name": "VQModel"}))
    with pytest.raises(LssvwmError, match="describes 'VQModel'"):
        load_autoencoder(folder)


def test_the_extra_is_named_where_it_is_missing(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "diffusers", None)
    with pytest.raises(LssvwmError, match=r"lssvwm\[diffusers\]"):
        load_autoencoder(saved)
