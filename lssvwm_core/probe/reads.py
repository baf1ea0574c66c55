"""Fixed reads of a world's memory at poses: what is probed. Nothing here is learnt, and the state stays as it is.

A scan's state h gives back h·C(pose) for every head and block, the same look-up that its layer makes of a frame seen
from that pose, brought down to `WIDTH` numbers by a random projection that is always the same. A memory by least
squares gives the latents that it recalls, likewise brought down, and how new the pose is to it.
"""

import torch
from torch import Tensor

from lssvwm_core.model.mamba import BlockScan
from lssvwm_core.model.state import ModelState
from lssvwm_core.model.world_model import WorldModel

WIDTH = 32  # numbers of each memory's read


class MemoryReads:
    """Reads a world's memory as if a frame were seen from a pose.

    Attributes:
        width: F, numbers of a read.

    Raises: ValueError for a model in which no memory is addressed by poses.
    """

    def __init__(self, model: WorldModel) -> None:
        self.model = model
        generator = torch.Generator().manual_seed(0)
        state = model.initial_state(1)
        self._scans: list[tuple[int, BlockScan, Tensor]] = []
        for number, mixer in enumerate(model.mixers):
            if isinstance(mixer, BlockScan) and mixer.uses_poses:
                rows = state.mixers[number]["scan"][..., 0].numel()  # blocks · heads · p
                self._scans.append((number, mixer, _projection(rows, generator)))
        self._recalled = None
        if model.recall is not None:
            self._recalled = _projection(state.mixers[-1]["latents"].shape[-1], generator)
        self.width = WIDTH * len(self._scans) + (WIDTH + 1) * (self._recalled is not None)
        if not self.width:
            raise ValueError("no memory of this model is addressed by poses")

    @torch.inference_mode()
    def __call__(self, state: ModelState, poses: Tensor) -> Tensor:
        """State of B worlds, poses (B, Q, P) -> (B, Q, F) float32 on the CPU."""
        found = []
        for number, mixer, projection in self._scans:
            assert mixer.address is not None
            _, to_read = mixer.address(poses)  # (B, Q, n)
            memory = state.mixers[number]["scan"].unflatten(0, (len(poses), -1)).flatten(1, 3)  # (B, rows, n)
            found.append(to_read @ (projection.to(memory) @ memory).mT)
        if self._recalled is not None and self.model.recall is not None:
            recollection = self.model.recall.read(state.mixers[-1], poses, poses.shape[1])
            found.append(recollection.latents.flatten(2) @ self._recalled.to(recollection.latents).mT)
            found.append(recollection.novelty[..., None])
        return torch.cat(found, dim=-1).float().cpu()


def _projection(rows: int, generator: torch.Generator) -> Tensor:
    """(WIDTH, rows), which keeps lengths in the mean."""
    return torch.randn(WIDTH, rows, generator=generator) / WIDTH**0.5
