"""The probe: a small network, shared by all cells of the map, that tells walls and objects from reads of the memory.

After the offline probing benchmark of Memory Maze (Pasukonis et al., 2022) it is an MLP on the frozen state and the
agent's pose, judged by the accuracy of walls and the root mean square error of objects. It is asked cell by cell,
for which some tens of mazes are enough to learn from.
"""

from collections.abc import Iterator
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lssvwm_core.probe.examples import Examples, cell_centres
from lssvwm_core.training.heads import descend

LAYERS, LEARNING_RATE, WEIGHT_DECAY = 4, 1e-3, 0.01
BATCH = 8  # maps
EVALUATED = 32  # maps at once


class MapProbe(nn.Module):
    """(E, N·N, features) -> logits of a free cell (E, N·N), and of each object in each cell (E, N·N, K)."""

    mean: Tensor
    std: Tensor

    def __init__(self, features: int, objects: int, width: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("std", torch.ones(features))
        sizes = [features, *[width] * LAYERS]
        layers: list[nn.Module] = []
        for inputs, outputs in pairwise(sizes):
            layers += [nn.Linear(inputs, outputs), nn.LayerNorm(outputs), nn.ELU()]
        self.layers = nn.Sequential(*layers, nn.Linear(width, 1 + objects))

    def forward(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        found = self.layers((inputs - self.mean) / self.std)
        return found[..., 0], found[..., 1:]


def new_probe(examples: Examples, what: str, width: int, seed: int) -> MapProbe:
    """A probe that has learnt nothing yet, but for the mean and the deviation of what it is given."""
    some = torch.randperm(len(examples.steps), generator=torch.Generator().manual_seed(seed))[:EVALUATED]
    inputs = examples.inputs(what, some).flatten(0, 1)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        probe = MapProbe(inputs.shape[-1], examples.objects.shape[1], width)
    probe.mean.copy_(inputs.mean(dim=0))
    probe.std.copy_(inputs.std(dim=0).clamp(min=1e-3))
    return probe


def train_probe(probe: MapProbe, examples: Examples, what: str, steps: int, seed: int) -> Iterator[int]:
    """Train in place on all numbers of steps seen, yielding the training steps done."""
    generator = torch.Generator().manual_seed(seed)
    cells = cells_of(examples)

    def next_loss() -> Tensor:
        rows = torch.randint(len(examples.steps), (BATCH,), generator=generator)
        free, where = probe(examples.inputs(what, rows))
        loss = F.binary_cross_entropy_with_logits(free, examples.free[rows])
        return loss + F.cross_entropy(where, cells[rows])  # over the cells, for each object

    yield from (step for step, _ in descend(probe, next_loss, steps, LEARNING_RATE, WEIGHT_DECAY))


def cells_of(examples: Examples) -> Tensor:
    """(E, K) the number of the cell that each object is in."""
    x, y = examples.objects.long().clamp(0, examples.side - 1).unbind(-1)
    return y * examples.side + x


@torch.inference_mode()
def errors(probe: MapProbe, examples: Examples, what: str) -> tuple[Tensor, Tensor]:
    """The share of cells told right (E,) and the mean square distance to the objects (E,), cells², of each example."""
    right, off = [], []
    centres = cell_centres(examples.side)
    for rows in torch.arange(len(examples.steps)).split(EVALUATED):
        free, where = probe(examples.inputs(what, rows))
        right.append(((free > 0) == (examples.free[rows] > 0.5)).float().mean(dim=1))
        told = torch.einsum("eck,cd->ekd", where.softmax(dim=1), centres)  # the expected place
        off.append((told - examples.objects[rows]).square().sum(dim=-1).mean(dim=1))
    return torch.cat(right), torch.cat(off)
