"""LPIPS (Zhang et al., 2018; AlexNet): how far apart frames look to a network that has learnt to see.

It needs two files and downloads neither: AlexNet's ImageNet weights, as torchvision publishes them, and the linear
layers, which come with torchmetrics. The network is written out here, since torchvision's wheels from PyPI do not load
beside a CPU build of torch.
"""

import importlib.util
import pickle
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from lssvwm_core.model.tensors import check_regular
from lssvwm_core.video import Frames
from lssvwm_datasets.errors import LssvwmError

ALEXNET_FILE = "alexnet-owt-7be5be79.pth"
HEADS_FILE = Path("functional/image/lpips_models/alex.pth")  # within torchmetrics
LPIPS_SHIFT, LPIPS_SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)  # of pixels in [-1, 1]
LPIPS_BATCH = 64  # frames


class Lpips(nn.Module):
    """Learned perceptual image patch similarity: AlexNet's activations, compared layer by layer."""

    def __init__(self) -> None:
        super().__init__()
        widths = (64, 192, 384, 256, 256)
        self.features = nn.Sequential(  # numbered as torchvision's
            nn.Conv2d(3, 64, 11, stride=4, padding=2),
            nn.ReLU(),
            nn.MaxPool2d(3, 2),
            nn.Conv2d(64, 192, 5, padding=2),
            nn.ReLU(),
            nn.MaxPool2d(3, 2),
            nn.Conv2d(192, 384, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(384, 256, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(256, 256, 3, padding=1),
            nn.ReLU(),
        )
        self.heads = nn.ParameterList(torch.zeros(1, width, 1, 1) for width in widths)

    @torch.inference_mode()
    def score(self, frames: Frames, truth: Frames) -> NDArray[np.float64]:
        """(T, H, W, 3) uint8 each -> distance of each frame, 0 for identical ones; at least 32×32 pixels."""
        parts = zip(
            torch.from_numpy(frames).split(LPIPS_BATCH), torch.from_numpy(truth).split(LPIPS_BATCH), strict=True
        )
        return torch.cat([self(*part).cpu() for part in parts]).double().numpy()

    def forward(self, frames: Tensor, truth: Tensor) -> Tensor:
        distance = torch.zeros(len(frames), device=self.heads[0].device)
        for head, one, other in zip(self.heads, self._activations(frames), self._activations(truth), strict=True):
            distance += ((one - other).square() * head).sum(dim=1).mean(dim=(1, 2))
        return distance

    def _activations(self, frames: Tensor) -> list[Tensor]:
        """The output of each of the five ReLUs, scaled to length 1 over the channels at every place."""
        x = frames.to(self.heads[0].device).permute(0, 3, 1, 2).float() / 127.5 - 1
        x = (x - x.new_tensor(LPIPS_SHIFT)[:, None, None]) / x.new_tensor(LPIPS_SCALE)[:, None, None]
        found = []
        for layer in self.features:
            x = layer(x)
            if isinstance(layer, nn.ReLU):
                found.append(x / (x.square().sum(dim=1, keepdim=True).sqrt() + 1e-10))
        return found


def load_lpips(weights: Path | None, device: torch.device) -> Lpips | str:
    """Load the network; where a file that it needs is nowhere, the reason in words instead.

    Args:
        weights: AlexNet's file; None looks for it in torch's hub cache.
        device: where frames are compared.

    Raises: LssvwmError when a file that was named cannot be used.
    """
    package = importlib.util.find_spec("torchmetrics")
    alexnet = weights or Path(torch.hub.get_dir()) / "checkpoints" / ALEXNET_FILE
    if weights is None and not alexnet.is_file():
        return f"AlexNet's weights ({ALEXNET_FILE}) are not in torch's hub cache; give them with --lpips-weights"
    if package is None or not package.submodule_search_locations:
        return "torchmetrics, which has its linear layers, is not installed: pip install 'lssvwm[eval]'"
    heads = Path(package.submodule_search_locations[0]) / HEADS_FILE
    model = Lpips()
    for path, target, names in (
        (alexnet, model.features, {f"features.{name}": name for name in model.features.state_dict()}),
        (heads, model.heads, {f"lin{k}.model.1.weight": str(k) for k in range(len(model.heads))}),
    ):
        check_regular(path)
        try:
            found = torch.load(path, map_location="cpu", weights_only=True)
            target.load_state_dict({own: found[name] for name, own in names.items()})
        except (OSError, pickle.UnpicklingError, KeyError, TypeError, RuntimeError, EOFError) as error:
            raise LssvwmError(f"{path}: not the weights that LPIPS needs ({error!r:.200})") from error
    return model.eval().to(device)
