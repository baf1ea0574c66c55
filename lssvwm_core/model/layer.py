"""One layer: each mixer, then an MLP, all behind adaptive norms (CogVideoX-like, as in the paper)."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lssvwm_core.model.attention import CausalAttention, FrameAttention
from lssvwm_core.model.config import ModelConfig
from lssvwm_core.model.mamba import BlockScan, MixerState


def build_mixer(name: str, config: ModelConfig, layer: int) -> BlockScan | FrameAttention | CausalAttention:
    """The mixer `name` of a layer; mixers share one interface (`initial_state`, `forward`)."""
    if name == "scan":
        block_size = config.block_sizes[layer % len(config.block_sizes)]
        poses = len(config.pose_names) if config.pose_address else 0
        return BlockScan(config.width, block_size, config.expand, config.headdim, config.d_state, poses)
    if name == "causal":
        return CausalAttention(config.width, config.headdim)
    longest_tail = config.frame_window - min(config.chunk_sizes)
    return FrameAttention(config.width, config.headdim, config.frame_window, longest_tail)


class Layer(nn.Module):
    """(B, T, h, w, D) -> the same shape; conditions (B, T, D) drive shift, scale and gate of each sub-layer."""

    def __init__(self, config: ModelConfig, index: int) -> None:
        super().__init__()
        width = config.width
        self.mixers = nn.ModuleList(build_mixer(name, config, index) for name in config.mixers)
        hidden = round(config.mlp_ratio * width)
        self.mlp_in = nn.Linear(width, hidden)
        self.mlp_out = nn.Linear(hidden, width)
        self.modulation = nn.Linear(width, 3 * width * (len(self.mixers) + 1))
        nn.init.zeros_(self.modulation.weight)  # gates start at zero: the layer starts as the identity
        nn.init.zeros_(self.modulation.bias)

    def initial_state(self, batch: int, grid: tuple[int, int]) -> list[MixerState]:
        return [mixer.initial_state(batch, grid) for mixer in self.mixers]  # type: ignore[operator]

    def forward(
        self,
        x: Tensor,
        conditions: Tensor,
        states: list[MixerState],
        frames_seen: int,
        chunk: int,
        poses: Tensor | None = None,
    ) -> tuple[Tensor, list[MixerState]]:
        modulation = self.modulation(F.silu(conditions)).float()[:, :, None, None]  # (B, T, 1, 1, 3·D·sub-layers)
        *for_mixers, for_mlp = modulation.chunk(len(self.mixers) + 1, dim=-1)
        new_states = []
        for mixer, modulated, state in zip(self.mixers, for_mixers, states, strict=True):
            shift, scale, gate = modulated.chunk(3, dim=-1)
            mixed, new_state = mixer(adaptive_norm(x, shift, scale), state, frames_seen, chunk, poses)
            x = torch.addcmul(x, gate, mixed.float())
            new_states.append(new_state)
        shift, scale, gate = for_mlp.chunk(3, dim=-1)
        hidden = F.gelu(self.mlp_in(adaptive_norm(x, shift, scale)), approximate="tanh")
        return torch.addcmul(x, gate, self.mlp_out(hidden).float()), new_states


def adaptive_norm(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    return torch.addcmul(shift, F.layer_norm(x, x.shape[-1:]), 1 + scale)
