"""How near generated frames are to the truth: PSNR, SSIM, sharpness and detail, Fréchet distance of sets of clips."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

SSIM_RADIUS, SSIM_SIGMA = 5, 1.5  # of the Gaussian window, in pixels (Wang et al., 2004)
LOST_BELOW = 20.0  # dB
HALF_OF_HIGHEST = 0.25  # cycles a pixel
SSIM_C1, SSIM_C2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2


def psnr(frames: NDArray[np.uint8], truth: NDArray[np.uint8]) -> NDArray[np.float64]:
    """(T, H, W, 3) uint8 each -> PSNR in dB of each frame; at most 78 dB, for identical ones."""
    error = np.square(frames.astype(np.float64) - truth).mean(axis=(1, 2, 3))
    return 10 * np.log10(255**2 / np.maximum(error, 1e-3))


def ssim(frames: NDArray[np.uint8], truth: NDArray[np.uint8]) -> NDArray[np.float64]:
    """(T, H, W, 3) uint8 each -> SSIM of each frame (Wang et al., 2004), the mean over channels.

    As scikit-image with gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=255.
    """
    x, y = (torch.from_numpy(f).permute(0, 3, 1, 2).flatten(0, 1)[:, None].double() for f in (frames, truth))
    mean_x, mean_y = _blur(x), _blur(y)
    variance_x, variance_y = _blur(x * x) - mean_x**2, _blur(y * y) - mean_y**2
    covariance = _blur(x * y) - mean_x * mean_y
    similar = (2 * mean_x * mean_y + SSIM_C1) * (2 * covariance + SSIM_C2)
    similar /= (mean_x**2 + mean_y**2 + SSIM_C1) * (variance_x + variance_y + SSIM_C2)
    return similar.mean(dim=(1, 2, 3)).unflatten(0, (len(frames), 3)).mean(dim=1).numpy()


def sharpness(frames: NDArray[np.uint8], data: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Mean gradient magnitude of each frame, relative to the data's mean: below 1 is blurred, above 1 is noisy.

    PSNR alone rewards blur: the mean of all that may be seen has the highest.

    Args:
        frames: (T, H, W, 3).
        data: (N, H, W, 3) frames of the kind that they should be; not compared one by one.
    """
    return _gradient_magnitudes(frames) / max(_gradient_magnitudes(data).mean(), 1e-9)


def detail(frames: NDArray[np.uint8], data: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Energy of each frame at more than half the highest spatial frequency, relative to the data's mean.

    It falls sooner than `sharpness` where textures are lost and outlines stay. Shapes as there.
    """
    return _fine_energies(frames) / max(_fine_energies(data).mean(), 1e-9)


def lost(frames: NDArray[np.uint8], truth: NDArray[np.uint8]) -> NDArray[np.float64]:
    """(T,) 1 for frames that show something else, below `LOST_BELOW` dB of PSNR; their mean is the share lost."""
    return (psnr(frames, truth) < LOST_BELOW).astype(np.float64)


def _gradient_magnitudes(frames: NDArray[np.uint8]) -> NDArray[np.float64]:
    pixels = frames.astype(np.float32)
    down, right = np.diff(pixels, axis=1)[:, :, :-1], np.diff(pixels, axis=2)[:, :-1]
    return np.hypot(down, right).mean(axis=(1, 2, 3), dtype=np.float64)


def _fine_energies(frames: NDArray[np.uint8]) -> NDArray[np.float64]:
    grey = frames.mean(axis=-1, dtype=np.float32)
    y, x = np.fft.fftfreq(grey.shape[1])[:, None], np.fft.rfftfreq(grey.shape[2])
    fine = np.hypot(y, x) > HALF_OF_HIGHEST
    return np.square(np.abs(np.fft.rfft2(grey))[:, fine]).mean(axis=1, dtype=np.float64)


def _blur(images: Tensor) -> Tensor:
    """(N, 1, H, W) -> Gaussian means, (N, 1, H - 10, W - 10)."""
    offsets = torch.arange(-SSIM_RADIUS, SSIM_RADIUS + 1, dtype=images.dtype)
    kernel = torch.exp(-0.5 * (offsets / SSIM_SIGMA) ** 2)
    kernel = (kernel / kernel.sum())[None, None, None]
    return F.conv2d(F.conv2d(images, kernel), kernel.transpose(2, 3))


def frechet_distance(a: NDArray[np.floating], b: NDArray[np.floating]) -> float:
    """The distance of two sets of features, (N, d) and (M, d), each taken as a Gaussian; N and M at least 2."""
    (mean_a, cov_a), (mean_b, cov_b) = ((x.mean(axis=0), np.cov(x, rowvar=False)) for x in (a, b))
    values, vectors = np.linalg.eigh(cov_a)
    root_a = vectors * np.sqrt(np.maximum(values, 0)) @ vectors.T
    cross = np.sqrt(np.maximum(np.linalg.eigvalsh(root_a @ cov_b @ root_a), 0)).sum()
    return float(np.square(mean_a - mean_b).sum() + np.trace(cov_a) + np.trace(cov_b) - 2 * cross)
