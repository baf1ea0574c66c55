"""What frame-local attention costs (paper, equation 6), computed in several ways beside each other.

windows      ours: the window of each chunk as a batch of dense attention
dense mask   one attention over the whole clip with a mask
flex         FlexAttention with a cached block mask, compiled
"""

import itertools
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.attention.flex_attention import create_block_mask, flex_attention

from lssvwm_core.bench.costs import Point
from lssvwm_core.bench.subject import Subject, check_frames
from lssvwm_core.bench.timing import Measure, Timing
from lssvwm_core.device import training_precision, why_not_compiled
from lssvwm_core.model.attention import windowed_attention
from lssvwm_core.model.config import ModelConfig

Way = Callable[[Tensor, Tensor, Tensor], Tensor]


def bench_attention(subject: Subject, frames: Sequence[int], timing: Timing, device: torch.device) -> Iterator[Point]:
    """Attention of one layer of the preset by each way to compute it, in training's precision. Raises: LssvwmError."""
    config = subject.config()
    check_frames(frames, config)
    shape = (config.grid[0] * config.grid[1], config.width // config.headdim, config.headdim)
    dtype = torch.bfloat16 if training_precision(device) == "bf16" else torch.float32
    measures: dict[tuple[str, str], dict[int, Measure]] = {}
    for chunk, count in itertools.product(config.chunk_sizes, frames):
        inputs = torch.randn(3, 1, count, *shape, device=device, dtype=dtype).unbind(0)
        for name, way in ways(config, chunk, count, device).items():
            for backward in (False, True):
                if backward and name == "flex" and device.type == "cpu":
                    continue  # it has none on CPUs
                setting = f"chunk {chunk}, {'forward and backward' if backward else 'forward'}"
                measures.setdefault((name, setting), {})[count] = partial(_attend, way, inputs, backward)
    for (name, setting), by_frames in sorted(measures.items(), key=lambda item: item[0][1]):
        for count, seconds in timing.medians(by_frames, device):
            yield Point(name, count, seconds, setting=setting)


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


def _attend(way: Way, inputs: Sequence[Tensor], backward: bool) -> None:
    leaves = [tensor.detach().requires_grad_(backward) for tensor in inputs]
    mixed = way(*leaves)
    if backward:
        mixed.backward(torch.ones_like(mixed))
