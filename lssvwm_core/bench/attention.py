"""Ways to compute frame-local attention (paper, equation 6), beside each other.

windows      ours: the window of each chunk as a batch of dense attention
dense mask   one attention over the whole clip with a mask
flex         FlexAttention with a cached block mask, compiled
"""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.attention.flex_attention import create_block_mask, flex_attention

from lssvwm_core.device import why_not_compiled
from lssvwm_core.model.attention import windowed_attention
from lssvwm_core.model.config import ModelConfig

Way = Callable[[Tensor, Tensor, Tensor], Tensor]


def ways(config: ModelConfig, chunk: int, frames: int, device: torch.device) -> dict[str, Way]:
    """Each takes queries, keys and values (B, T, S, heads, d) of a clip and returns (B, T, S, heads, d)."""
    window, tokens = config.frame_window, config.grid[0] * config.grid[1]
    found: dict[str, Way] = {
        "windows": lambda q, k, v: _windows(q, k, v, chunk, window),
        "dense mask": _dense(frames, tokens, chunk, window, device),
    }
    if why_not_compiled(device) is None:
        found["flex"] = _flex(frames, tokens, chunk, window, device)
    return found


def _windows(query: Tensor, key: Tensor, value: Tensor, chunk: int, window: int) -> Tensor:
    tail = query.new_zeros(len(query), window - chunk, *query.shape[2:])
    keys, values = (torch.cat([tail, rows], dim=1) for rows in (key, value))
    return windowed_attention(query, keys, values, chunk, window, unknown=window - chunk)


def _dense(frames: int, tokens: int, chunk: int, window: int, device: torch.device) -> Way:
    frame = torch.arange(frames, device=device).repeat_interleave(tokens)
    mask = _sees(frame[:, None], frame[None, :], chunk, window)
    return lambda q, k, v: _sequence(q, k, v, partial(F.scaled_dot_product_attention, attn_mask=mask))


def _flex(frames: int, tokens: int, chunk: int, window: int, device: torch.device) -> Way:
    def sees(_: Tensor, __: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return _sees(query // tokens, key // tokens, chunk, window)

    length = frames * tokens
    mask = create_block_mask(sees, None, None, length, length, device=str(device))
    compiled = torch.compile(flex_attention)
    return lambda q, k, v: _sequence(q, k, v, partial(compiled, block_mask=mask))


def _sees(query: Tensor, key: Tensor, chunk: int, window: int) -> Tensor:
    """Whether frames see frames: their chunk's end closes a window."""
    end = (query // chunk + 1) * chunk
    return (key < end) & (key >= end - window)


def _sequence(query: Tensor, key: Tensor, value: Tensor, attend: Callable[..., Tensor]) -> Tensor:
    """(B, T, S, heads, d) as one sequence of T · S tokens."""
    q, k, v = (rows.flatten(1, 2).transpose(1, 2) for rows in (query, key, value))
    return attend(q, k, v).transpose(1, 2).unflatten(1, query.shape[1:3])
