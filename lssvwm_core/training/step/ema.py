"""The exponential moving average of weights, which is what is evaluated and shipped."""

import torch
from torch import nn


@torch.no_grad()
def update_ema(ema: nn.Module, model: nn.Module, decay: float, step: int) -> None:
    """Move `ema` towards `model` after `step` updates; early on faster, so that the random start is forgotten."""
    warm_decay = min(decay, (1 + step) / (10 + step))
    torch._foreach_lerp_(list(ema.parameters()), list(model.parameters()), 1 - warm_decay)
