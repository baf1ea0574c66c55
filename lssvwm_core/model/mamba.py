"""The Mamba-2 mixer, scanned block by block (paper, section 'Block-wise SSM scan').

The grid of a frame's tokens is cut into blocks of b_h × b_w; each block (b_h, b_w, T) is a sequence of its own, in time
order and row by row within a frame, with its own state. Small blocks remember long, large blocks mix places.
"""

import functools
import math
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lssvwm_core.model.address import PoseAddress
from lssvwm_core.model.config import ModelConfig
from lssvwm_core.model.mixer import Mixer, MixerContext, MixerState
from lssvwm_core.scan import ssd_scan

CONVOLUTION_WIDTH = 4  # tokens
DT_RANGE = (0.001, 0.1)  # of the step size at initialisation, as in Mamba-2
A_RANGE = (0.02, 4.0)  # decay rates at initialisation, log-uniform: some heads keep thousands of tokens


class BlockScan(Mixer):
    """Mamba-2 over blocks: (B, T, h, w, D) -> the same shape, with a state of fixed size.

    Args:
        width: D.
        block_size: (b_h, b_w) in tokens; divides the grid.
        expand: inner width over D.
        headdim: p, channels of a head.
        d_state: n, numbers that a channel remembers.
        pose_columns: P, columns of the poses that address the state; 0: the state has no such addresses.
    """

    def __init__(
        self,
        width: int,
        block_size: tuple[int, int],
        expand: int = 2,
        headdim: int = 64,
        d_state: int = 64,
        pose_columns: int = 0,
    ) -> None:
        super().__init__()
        self.address = PoseAddress(pose_columns, d_state) if pose_columns else None
        self.block_size = block_size
        self.inner = expand * width
        self.heads, self.headdim, self.d_state = self.inner // headdim, headdim, d_state
        self.convolved = self.inner + 2 * d_state  # x, B and C pass the convolution
        self.in_proj = nn.Linear(width, self.inner + self.convolved + self.heads, bias=False)  # gate, (x, B, C), dt
        self.conv_weight = nn.Parameter(torch.empty(self.convolved, CONVOLUTION_WIDTH))
        self.conv_bias = nn.Parameter(torch.zeros(self.convolved))
        low, high = (torch.tensor(bound).log() for bound in DT_RANGE)
        dt = torch.exp(torch.rand(self.heads) * (high - low) + low)
        self.dt_bias = nn.Parameter(dt + torch.log(-torch.expm1(-dt)))  # softplus(dt_bias) = dt
        self.A_log = nn.Parameter(torch.empty(self.heads).uniform_(*(math.log(rate) for rate in A_RANGE)))
        self.D = nn.Parameter(torch.ones(self.heads))
        self.norm = nn.RMSNorm(self.inner, eps=1e-5)
        self.out_proj = nn.Linear(self.inner, width, bias=False)
        nn.init.uniform_(self.conv_weight, -(CONVOLUTION_WIDTH**-0.5), CONVOLUTION_WIDTH**-0.5)

    @classmethod
    def from_config(cls, config: ModelConfig, layer: int) -> Self:
        """The layers take the config's block sizes in turn."""
        block_size = config.block_sizes[layer % len(config.block_sizes)]
        pose_columns = len(config.pose_names) if config.pose_address else 0
        return cls(config.width, block_size, config.expand, config.headdim, config.d_state, pose_columns)

    @property
    def uses_poses(self) -> bool:
        return self.address is not None

    def initial_state(self, batch: int, grid: tuple[int, int]) -> MixerState:
        """Zeros on the mixer's device: `scan` (B · blocks, heads, p, n), `convolution` (B · blocks, 3, channels)."""
        device, dtype = self.A_log.device, self.A_log.dtype
        sequences = batch * (grid[0] // self.block_size[0]) * (grid[1] // self.block_size[1])
        return {
            "scan": torch.zeros(sequences, self.heads, self.headdim, self.d_state, device=device, dtype=dtype),
            "convolution": torch.zeros(sequences, CONVOLUTION_WIDTH - 1, self.convolved, device=device, dtype=dtype),
        }

    def forward(self, x: Tensor, state: MixerState, context: MixerContext) -> tuple[Tensor, MixerState]:
        """See `Mixer.forward`; frames are written and looked up by the poses they were seen from."""
        grid = x.shape[2:4]
        tokens = to_blocks(x, self.block_size)  # (sequences, l, D)
        projected = self.in_proj(tokens)
        gate, xBC, dt = projected.split([self.inner, self.convolved, self.heads], dim=-1)
        xBC, tail = causal_convolution(xBC, state["convolution"], self.conv_weight, self.conv_bias)
        values, B, C = F.silu(xBC).split([self.inner, self.d_state, self.d_state], dim=-1)
        if self.address is not None and context.poses is not None:
            to_write, to_read = (
                part.repeat_interleave(math.prod(self.block_size), dim=1).repeat_interleave(len(B) // len(part), dim=0)
                for part in self.address(context.poses)
            )
            B, C = B + to_write.to(B.dtype), C + to_read.to(C.dtype)
        scan = functools.partial(
            ssd_scan,
            values.unflatten(-1, (self.heads, self.headdim)),
            F.softplus(dt.float() + self.dt_bias),
            -self.A_log.float().exp(),
            B[:, :, None],
            C[:, :, None],
            D=self.D,
            initial_state=state["scan"],
        )
        if context.keep:
            y, final = scan(return_final_state=True)
            state = {"scan": final, "convolution": tail.clone()}
        else:
            y = scan()
        y = self.norm(y.flatten(-2).float() * F.silu(gate.float()))
        return from_blocks(self.out_proj(y), self.block_size, grid), state


def causal_convolution(x: Tensor, tail: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """Depthwise convolution over time: x (b, l, channels) after `tail` (b, k - 1, channels), weight (channels, k).

    By shifted multiply-adds in float32: on a CPU faster than `conv1d`, compiled several times. Returns the output, of
    x's dtype, and the new tail, float32.
    """
    length = x.shape[1]
    padded = torch.cat([tail, x.to(tail.dtype)], dim=1)
    y = bias
    for k, tap in enumerate(torch.stack(weight.unbind(1))):  # a copy, for a tap's weights to be neighbours in memory
        y = torch.addcmul(y, padded[:, k : k + length], tap)
    return y.to(x.dtype), padded[:, length:]


def to_blocks(x: Tensor, block_size: tuple[int, int]) -> Tensor:
    """(B, T, h, w, D) -> (B · blocks, T · b_h · b_w, D), time-major."""
    _, _, h, w, _ = x.shape
    b_h, b_w = block_size
    blocks = x.unflatten(3, (w // b_w, b_w)).unflatten(2, (h // b_h, b_h))  # (B, T, h/b_h, b_h, w/b_w, b_w, D)
    return blocks.permute(0, 2, 4, 1, 3, 5, 6).flatten(3, 5).flatten(0, 2)


def from_blocks(tokens: Tensor, block_size: tuple[int, int], grid: tuple[int, ...]) -> Tensor:
    """The inverse of `to_blocks` for a grid (h, w)."""
    b_h, b_w = block_size
    rows, columns = grid[0] // b_h, grid[1] // b_w
    blocks = tokens.unflatten(0, (-1, rows, columns)).unflatten(3, (-1, b_h, b_w))
    return blocks.permute(0, 3, 1, 4, 2, 5, 6).flatten(4, 5).flatten(2, 3)
