"""The exponential moving average of weights, which is what is evaluated and shipped."""

import torch
from torch import nn
from torch.optim.swa_utils import get_ema_multi_avg_fn


@torch.no_grad()
def update_ema(ema: nn.Module, model: nn.Module, decay: float, step: int) -> None:
    """Move `ema` towards `model` after `step` updates; early on faster, so that the random start is forgotten."""
    warm_decay = min(decay, (1 + step) / (10 + step))
    get_ema_multi_avg_fn(warm_decay)(list(ema.parameters()), list(model.parameters()), step)
