"""The autoencoder: shapes, normalisation, its folder and what is refused there."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from lssvwm_core.model.autoencoder import (
    Autoencoder,
    AutoencoderConfig,
    load_autoencoder,
    save_autoencoder,
)
from lssvwm_core.model.frame_codec import pixels_of
from lssvwm_datasets.errors import LssvwmError

CONFIG = AutoencoderConfig(latent_channels=8, widths=(16, 32, 32))


@pytest.fixture(scope="module")
def frames():
    return torch.randint(256, (3, 64, 64, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def autoencoder(randomised):
    """Random weights, and statistics far from 0 and 1."""
    torch.manual_seed(0)
    model = randomised(Autoencoder(CONFIG))
    model.latent_mean.copy_(torch.linspace(-2, 2, 8))
    model.latent_std.copy_(torch.linspace(0.5, 3, 8))
    return model


@pytest.fixture
def folder(autoencoder, tmp_path):
    save_autoencoder(tmp_path, autoencoder)
    return tmp_path


@torch.no_grad()
@pytest.mark.parametrize("config", [AutoencoderConfig(), CONFIG, AutoencoderConfig(widths=(16, 16))])
@pytest.mark.parametrize("size", [64, 128])
def test_shapes_follow_the_compression(config, size):
    model = Autoencoder(config)
    assert config.compression == {3: 16, 2: 8}[len(config.widths)]
    shape = model.latent_shape(size, size)
    assert shape == (config.latent_channels, size // config.compression, size // config.compression)
    latents = model.encode(torch.zeros(2, size, size, 3, dtype=torch.uint8))
    assert (latents.shape, latents.dtype) == ((2, *shape), torch.float32)
    decoded = model.decode(latents)
    assert (decoded.shape, decoded.dtype) == ((2, size, size, 3), torch.uint8)


def test_frames_that_do_not_divide_are_refused(autoencoder):
    with pytest.raises(ValueError, match="frames are 64x72; the autoencoder needs multiples of 16"):
        autoencoder.encode(torch.zeros(1, 64, 72, 3, dtype=torch.uint8))


@torch.no_grad()
def test_encode_normalises_and_decode_undoes_it(autoencoder, frames):
    raw = autoencoder.raw_latents(pixels_of(frames))
    torch.testing.assert_close(raw.square().mean(dim=1), torch.ones(3, 4, 4), rtol=1e-3, atol=1e-3)
    decoded = autoencoder.decode(autoencoder.encode(frames)).int()
    direct = (autoencoder.reconstruct(pixels_of(frames)) + 1) * 127.5
    assert (decoded - direct.clamp(0, 255).permute(0, 2, 3, 1)).abs().max() < 0.51
    assert decoded.unique().numel() > 50

    autoencoder.latent_mean.copy_(raw.mean(dim=(0, 2, 3)))
    autoencoder.latent_std.copy_(raw.std(dim=(0, 2, 3)))
    normalised = autoencoder.encode(frames)
    torch.testing.assert_close(normalised.mean(dim=(0, 2, 3)), torch.zeros(8), rtol=0, atol=1e-4)
    torch.testing.assert_close(normalised.std(dim=(0, 2, 3)), torch.ones(8), rtol=0, atol=1e-4)


@torch.no_grad()
def test_pixels_beyond_the_range_are_clipped_not_wrapped(autoencoder):
    """The last convolution alone decides: a bias far out makes every pixel black or white."""
    last = autoencoder.decoder[-2]
    last.weight.zero_()
    for bias, pixel in ((-9.0, 0), (-1.0, 0), (0.0, 128), (1.0, 255), (9.0, 255)):
        last.bias.fill_(bias)
        assert (autoencoder.decode(torch.zeros(1, 8, 4, 4)) == pixel).all()


@torch.no_grad()
def test_a_folder_holds_the_same_autoencoder(autoencoder, folder, frames):
    loaded = load_autoencoder(folder)
    assert loaded.config == autoencoder.config
    assert not loaded.training
    for name, tensor in autoencoder.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor)
    torch.testing.assert_close(loaded.encode(frames), autoencoder.encode(frames))
    difference = loaded.decode(loaded.encode(frames)).int() - autoencoder.decode(autoencoder.encode(frames)).int()
    assert difference.abs().max() <= 1  # rounding, in another memory format


def test_half_precision_takes_half_the_room(autoencoder, folder, tmp_path):
    save_autoencoder(tmp_path / "half", autoencoder, torch.float16)
    whole, half = ((path / "model.safetensors").stat().st_size for path in (folder, tmp_path / "half"))
    assert half < 0.6 * whole
    loaded = load_autoencoder(tmp_path / "half")
    assert {tensor.dtype for tensor in loaded.state_dict().values()} == {torch.float32}
    torch.testing.assert_close(loaded.latent_mean, autoencoder.latent_mean, rtol=1e-3, atol=1e-3)


def rewrite_config(**changes):
    def damage(folder):
        path = folder / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return damage


def rewrite_weights(change):
    def damage(folder):
        tensors = load_file(folder / "model.safetensors")
        change(tensors)
        save_file(tensors, folder / "model.safetensors")

    return damage


def truncate(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-10])


DAMAGES = {
    "no config": (lambda folder: (folder / "config.json").unlink(), "not a model folder; expected config.json"),
    "no weights": (lambda folder: (folder / "model.safetensors").unlink(), r"model.safetensors: no such file"),
    "not JSON": (lambda folder: (folder / "config.json").write_text("{"), "config.json: not readable as JSON"),
    "a JSON list": (
        lambda folder: (folder / "config.json").write_text("[]"),
        "config.json: Expected object, got array",
    ),
    "another kind": (rewrite_config(kind="world-model"), "describes 'world-model', expected kind 'autoencoder'"),
    "unknown fields": (
        rewrite_config(colour=1, depth=2),
        "unknown fields colour, depth; expected some of decoder_blocks",
    ),
    "a wrong type": (rewrite_config(widths=5), "config.json: .*widths"),
    "an impossible width": (rewrite_config(widths=[8, 8]), "config.json: .*widths"),
    "another width": (
        rewrite_config(latent_channels=16),
        r"latent_mean is \(8,\), expected \(16,\)",
    ),
    "truncated": (truncate, "model.safetensors: damaged or not a safetensors file"),
    "a missing tensor": (
        rewrite_weights(lambda tensors: tensors.pop("latent_std")),
        r"missing latent_std \(1 in all\)",
    ),
    "one too many": (rewrite_weights(lambda tensors: tensors.update(more=torch.zeros(1))), "unexpected more"),
    "a bent tensor": (
        rewrite_weights(lambda tensors: tensors.update(latent_mean=torch.zeros(4))),
        r"latent_mean is \(4,\), expected \(8,\)",
    ),
}


@pytest.mark.parametrize(("damage", "words"), DAMAGES.values(), ids=DAMAGES)
def test_a_folder_that_does_not_fit_is_refused_in_words(folder, damage, words):
    damage(folder)
    with pytest.raises(LssvwmError, match=words) as refusal:
        load_autoencoder(folder)
    assert str(folder) in str(refusal.value)
