"""One layer: each mixer, then an MLP, all behind adaptive norms (as in CogVideoX, and in the paper)."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lssvwm_core.model.config import ModelConfig
from lssvwm_core.model.mixer import MixerContext, MixerState
from lssvwm_core.model.mixers import MIXERS


class Layer(nn.Module):
    """(B, T, h, w, D) -> the same shape; conditions (B, T, D) drive shift, scale and gate of each sub-layer."""

    def __init__(self, config: ModelConfig, index: int) -> None:
        super().__init__()
        width = config.width
        self.mixers = nn.ModuleList(MIXERS[name].from_config(config, index) for name in config.mixers)
        hidden = round(config.mlp_ratio * width)
        self.mlp_in = nn.Linear(width, hidden)
        self.mlp_out = nn.Linear(hidden, width)
        self.modulation = nn.Linear(width, 3 * width * (len(self.mixers) + 1))
        nn.init.zeros_(self.modulation.weight)  # gates start at zero: the layer starts as the identity
        nn.init.zeros_(self.modulation.bias)

    def forward(
        self,
        x: Tensor,
        conditions: Tensor,
        states: list[MixerState],
        context: MixerContext,
    ) -> tuple[Tensor, list[MixerState]]:
        """Mix frames that follow `states`, one for each mixer; returns the states after them beside the tokens."""
        modulation = self.modulation(F.silu(conditions)).float()[:, :, None, None]  # (B, T, 1, 1, 3·D·sub-layers)
        *for_mixers, for_mlp = modulation.chunk(len(self.mixers) + 1, dim=-1)
        new_states = []
        for mixer, modulated, state in zip(self.mixers, for_mixers, states, strict=True):
            shift, scale, gate = modulated.chunk(3, dim=-1)
            mixed, new_state = mixer(adaptive_norm(x, shift, scale), state, context)
            x = torch.addcmul(x, gate, mixed.float())
            new_states.append(new_state)
        shift, scale, gate = for_mlp.chunk(3, dim=-1)
        hidden = F.gelu(self.mlp_in(adaptive_norm(x, shift, scale)), approximate="tanh")
        return torch.addcmul(x, gate, self.mlp_out(hidden).float()), new_states


def adaptive_norm(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    return torch.addcmul(shift, F.layer_norm(x, x.shape[-1:]), 1 + scale)
