"""The exponential moving average of weights, which is what is evaluated and shipped."""

import torch
from torch import nn


@torch.no_grad()
def update_average(average: nn.Module, model: nn.Module, decay: float, step: int) -> None:
    """Move `average` towards `model` after `step` updates; early on faster, so that the random start is forgotten."""
    warm_decay = min(decay, (1 + step) / (10 + step))
    torch._foreach_lerp_(list(average.parameters()), list(model.parameters()), 1 - warm_decay)
