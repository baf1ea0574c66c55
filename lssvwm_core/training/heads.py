"""What the small networks beside a world have in common: how reward heads, sight heads and probes are trained."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn


def descend(
    network: nn.Module, loss_of: Callable[[], Tensor], steps: int, learning_rate: float, weight_decay: float
) -> Iterator[tuple[int, float]]:
    """Train in place with AdamW, whose rate falls linearly to zero, and yield (step, loss); it ends in evaluation mode.

    Args:
        loss_of: the loss of the next batch.
    """
    optimizer = torch.optim.AdamW(network.train().parameters(), learning_rate, weight_decay=weight_decay)
    for step in range(1, steps + 1):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate * (1 - (step - 1) / steps)
        loss = loss_of()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        yield step, loss.item()
    network.eval()


def auc(scores: Tensor, positive: Tensor) -> float:
    """How often a positive (N,) is told from another by its score (N,): the area under the ROC curve."""
    ranks = scores.argsort().argsort().double()
    hits, misses = int(positive.sum()), int((~positive).sum())
    return (ranks[positive].sum().item() - hits * (hits - 1) / 2) / max(1, hits * misses)
