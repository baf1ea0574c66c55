"""PSNR, SSIM, LPIPS and Fréchet distance against independent implementations."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from torch import nn

from lssvwm_core.evaluation.features import CLIP_FRAMES, i3d_features
from lssvwm_core.evaluation.lpips import HEADS_FILE, Lpips, load_lpips
from lssvwm_core.evaluation.metrics import frechet_distance, psnr, sharpness, ssim
from lssvwm_datasets.errors import LssvwmError

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def pair() -> tuple[np.ndarray, np.ndarray]:
    """Smooth pictures and noisy ones of other contrast, (T, H, W, 3)."""
    rng = np.random.default_rng(0)
    ramp = np.add.outer(np.arange(40), 2 * np.arange(48))[None, :, :, None] + rng.integers(0, 90, (3, 1, 1, 3))
    noisy = 0.7 * ramp + rng.normal(0, 25, (3, 40, 48, 3))
    return ramp.clip(0, 255).astype(np.uint8), noisy.clip(0, 255).astype(np.uint8)


def test_psnr_is_scikit_images(pair: tuple[np.ndarray, np.ndarray]) -> None:
    expected = [peak_signal_noise_ratio(y, x, data_range=255) for x, y in zip(*pair, strict=True)]
    np.testing.assert_allclose(psnr(*pair), expected, rtol=1e-9)


def test_psnr_of_identical_frames_is_finite() -> None:
    black = np.zeros((1, 4, 4, 3), np.uint8)
    assert psnr(black, black)[0] == pytest.approx(78.13, abs=0.01)
    assert psnr(black, black + 255)[0] == pytest.approx(0)


def test_ssim_is_scikit_images(pair: tuple[np.ndarray, np.ndarray]) -> None:
    wang = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 255}
    expected = [structural_similarity(x, y, channel_axis=-1, **wang) for x, y in zip(*pair, strict=True)]
    np.testing.assert_allclose(ssim(*pair), expected, rtol=1e-6)
    np.testing.assert_allclose(ssim(pair[0], pair[0]), 1)


def test_sharpness_falls_with_blur_and_rises_with_noise() -> None:
    rng = np.random.default_rng(0)
    truth = np.repeat(np.repeat(rng.integers(60, 200, (3, 8, 8, 3)), 4, axis=1), 4, axis=2).astype(np.uint8)
    blurred = truth.astype(float)
    for axis in (1, 2):
        blurred = (blurred + np.roll(blurred, 1, axis) + np.roll(blurred, 2, axis)) / 3
    noisy = (truth + rng.normal(0, 10, truth.shape)).clip(0, 255).astype(np.uint8)
    assert sharpness(truth, truth).mean() == pytest.approx(1)
    assert sharpness(blurred.astype(np.uint8), truth).mean() < 0.95
    assert sharpness(noisy, truth).mean() > 1.05
    ramp = np.tile(np.arange(32, dtype=np.uint8), (1, 32, 1))[..., None].repeat(3, axis=3)
    assert sharpness(3 * ramp, ramp).mean() == pytest.approx(3), "in proportion to the slope"


def test_frechet_distance_against_its_formula() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(50, 6)), rng.normal(1, 2, size=(40, 6)) @ rng.normal(size=(6, 6))
    cov_a, cov_b = np.cov(a.T), np.cov(b.T)
    root = sqrtm(cov_a @ cov_b).real
    expected = ((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(cov_a + cov_b - 2 * root)
    assert frechet_distance(a, b) == pytest.approx(expected)
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-9)
    few = rng.normal(size=(4, 6))  # fewer samples than dimensions
    assert frechet_distance(few, few + 1) == pytest.approx(6, abs=1e-6)


@pytest.fixture
def alexnet_file(tmp_path: Path) -> Path:
    """Weights of the names and shapes that torchvision publishes, at random."""
    torch.manual_seed(0)
    state = {f"features.{name}": tensor for name, tensor in Lpips().features.state_dict().items()}
    path = tmp_path / "hub" / "checkpoints" / "alexnet-owt-7be5be79.pth"
    path.parent.mkdir(parents=True)
    torch.save(state | {"classifier.1.bias": torch.zeros(1)}, path)
    return path


def test_lpips_is_that_of_torchmetrics(
    alexnet_file: Path, pair: tuple[np.ndarray, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its network comes from torchvision, for which AlexNet's layers in torchvision's order stand in here."""
    functional = pytest.importorskip("torchmetrics.functional.image.lpips")
    ours = load_lpips(alexnet_file, CPU)
    assert isinstance(ours, Lpips)
    layers = nn.Sequential(*ours.features, nn.MaxPool2d(3, 2))
    monkeypatch.setattr(functional, "_get_tv_model_features", lambda *_: layers)
    theirs = functional._LPIPS(pretrained=True, net="alex").eval()
    frames = [torch.from_numpy(f).permute(0, 3, 1, 2) / 127.5 - 1 for f in pair]
    with torch.no_grad():
        expected = theirs(*frames).flatten().numpy()
    np.testing.assert_allclose(ours.score(*pair), expected, rtol=1e-4)
    assert (expected > 0.01).all()
    np.testing.assert_allclose(ours.score(pair[0], pair[0]), 0)


def test_lpips_weights_are_looked_up_in_the_cache_and_else_missed_in_words(
    alexnet_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    assert isinstance(load_lpips(None, CPU), Lpips)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "empty"))
    assert "--lpips-weights" in str(load_lpips(None, CPU))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert "pip install 'lssvwm[eval]'" in str(load_lpips(alexnet_file, CPU))


def test_a_damaged_or_foreign_lpips_file_is_told(tmp_path: Path) -> None:
    path = tmp_path / "alexnet.pth"
    for content in (b"", b"not weights", None):
        torch.save({"features.0.weight": torch.zeros(1)}, path) if content is None else path.write_bytes(content)
        with pytest.raises(LssvwmError, match=str(path)):
            load_lpips(path, CPU)
    with pytest.raises(LssvwmError, match="nowhere"):
        load_lpips(tmp_path / "nowhere", CPU)


def test_the_heads_are_where_torchmetrics_keeps_them() -> None:
    spec = importlib.util.find_spec("torchmetrics")
    assert spec is not None
    assert (Path(spec.submodule_search_locations[0]) / HEADS_FILE).is_file()  # type: ignore[index]


class MeanColour(nn.Module):
    """As an I3D is called; the features are the mean colour, in [-1, 1]."""

    def forward(self, x: torch.Tensor, rescale: bool, resize: bool, return_features: bool) -> torch.Tensor:
        assert x.shape[1:] == (3, 16, 224, 224)
        assert not rescale
        assert not resize
        assert return_features
        return x.mean(dim=[2, 3, 4])


def test_fvd_calls_a_torchscript_i3d_on_whole_clips(tmp_path: Path) -> None:
    path = tmp_path / "i3d.pt"
    torch.jit.script(MeanColour()).save(str(path))
    frames = np.zeros((2 * CLIP_FRAMES + 3, 8, 8, 3), np.uint8)
    frames[CLIP_FRAMES:] = (255, 0, 255)
    found = i3d_features(path, CPU).extract(frames)
    np.testing.assert_allclose(found, [[-1, -1, -1], [1, -1, 1]], atol=1e-6)
    assert len(i3d_features(path, CPU).extract(frames[:5])) == 0
    path.write_bytes(b"no script")
    with pytest.raises(LssvwmError, match="not a TorchScript file"):
        i3d_features(path, CPU)
