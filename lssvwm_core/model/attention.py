"""Frame-local attention (paper, section 'Frame-local attention'), and the causal attention it is compared with.

Frames are grouped in chunks of c; a chunk sees itself, in both directions, and the w - c frames before it. Every chunk
thus has a key window of exactly w frames, and the windows of a clip are one batch of dense attention: no mask is needed
but for the first chunks, whose window reaches before the first frame, and for small chunks, which share their keys.
"""

from collections.abc import Mapping
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lssvwm_core.model.config import ModelConfig
from lssvwm_core.model.mixer import Mixer, MixerContext, MixerState
from lssvwm_core.model.state import Growth

ROTARY_BASE = 100.0  # positions are a few frames or tokens apart, far fewer than in text
FAR_ROTARY_BASE = 10_000.0  # of times, where all the past is seen
FEW_KEYS = 256  # up to which scores are small enough to be kept for the backward pass
CAUSAL_PIECE = 2048  # queries whose mask is made at once


class FrameAttention(Mixer):
    """Attention over a window of frames: (B, T, h, w, D) -> the same shape; T is a multiple of the chunk.

    Args:
        width: D.
        headdim: channels of a head; a multiple of 8.
        window: w, frames a chunk attends to, itself included.
        longest_tail: frames whose keys and values are carried: w - (the smallest chunk).
    """

    def __init__(self, width: int, headdim: int, window: int, longest_tail: int) -> None:
        super().__init__()
        self.heads, self.headdim = width // headdim, headdim
        self.window, self.longest_tail = window, longest_tail
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.q_norm = nn.LayerNorm(headdim)
        self.k_norm = nn.LayerNorm(headdim)
        self.out_proj = nn.Linear(width, width, bias=False)

    @classmethod
    def from_config(cls, config: ModelConfig, layer: int) -> Self:
        return cls(config.width, config.headdim, config.frame_window, config.frame_window - min(config.chunk_sizes))

    def initial_state(self, batch: int, grid: tuple[int, int]) -> MixerState:
        """Zeros on the mixer's device: `keys` and `values` (B, frames, h · w, heads, headdim) of the tail."""
        shape = (batch, self.longest_tail, grid[0] * grid[1], self.heads, self.headdim)
        zeros = torch.zeros(shape, device=self.qkv.weight.device)
        return {"keys": zeros, "values": zeros.clone()}

    def forward(self, x: Tensor, state: MixerState, context: MixerContext) -> tuple[Tensor, MixerState]:
        """See `Mixer.forward`."""
        frames, h, w = x.shape[1:4]
        chunk = context.chunk
        tail = self.window - chunk  # frames before a chunk that it sees
        query, key, value = self.qkv(x.flatten(2, 3)).unflatten(-1, (3, self.heads, self.headdim)).unbind(3)
        query, key = self.q_norm(query.float()), self.k_norm(key.float())  # (B, T, h·w, heads, d)
        keys = torch.cat([state["keys"], key], dim=1)
        values = torch.cat([state["values"], value.float()], dim=1)
        new_state = {"keys": keys[:, frames:].clone(), "values": values[:, frames:].clone()}

        # Positions are relative, so times may start anywhere: here at 0 for the first frame after the state.
        angles = rotary_angles(tail + frames, h, w, self.headdim, x.device)  # (tail + T, h·w, d / 2)
        query = rotate(query, angles[tail:])
        keys, values = rotate(keys[:, self.longest_tail - tail :], angles), values[:, self.longest_tail - tail :]

        work = value.dtype  # bfloat16 under autocast
        q, k, v = query.to(work), keys.to(work), values.to(work)
        mixed = windowed_attention(q, k, v, chunk, self.window, max(0, tail - context.frames_seen)).to(x.dtype)
        return self.out_proj(mixed.flatten(-2)).unflatten(2, (h, w)), new_state


class CausalAttention(Mixer):
    """Attention to all of the past, the baseline: (B, T, h, w, D) -> the same shape; T is a multiple of the chunk.

    A chunk sees itself, in both directions, and every frame before it. The state is the cache of all keys and values,
    which grows with the frames: one frame costs time and memory linear in the past.

    Args:
        width: D.
        headdim: channels of a head; a multiple of 8.
    """

    def __init__(self, width: int, headdim: int) -> None:
        super().__init__()
        self.heads, self.headdim = width // headdim, headdim
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.q_norm = nn.LayerNorm(headdim)
        self.k_norm = nn.LayerNorm(headdim)
        self.out_proj = nn.Linear(width, width, bias=False)

    @classmethod
    def from_config(cls, config: ModelConfig, layer: int) -> Self:
        return cls(config.width, config.headdim)

    def initial_state(self, batch: int, grid: tuple[int, int]) -> MixerState:
        """Empty `past_keys` and `past_values` (B, heads, frames · h · w, headdim), on the mixer's device."""
        empty = torch.zeros(batch, self.heads, 0, self.headdim, device=self.qkv.weight.device)
        return {"past_keys": empty, "past_values": empty.clone()}

    def growth(self, grid: tuple[int, int]) -> Mapping[str, Growth]:
        tokens = Growth(dimension=2, a_frame=grid[0] * grid[1])
        return {"past_keys": tokens, "past_values": tokens}

    def forward(self, x: Tensor, state: MixerState, context: MixerContext) -> tuple[Tensor, MixerState]:
        """See `Mixer.forward`."""
        frames, h, w = x.shape[1:4]
        frames_seen, chunk = context.frames_seen, context.chunk
        query, key, value = self.qkv(x.flatten(2, 3)).unflatten(-1, (3, self.heads, self.headdim)).unbind(3)
        angles = rotary_angles(frames, h, w, self.headdim, x.device, frames_seen, FAR_ROTARY_BASE)
        query, key = (rotate(norm(y.float()), angles) for norm, y in ((self.q_norm, query), (self.k_norm, key)))
        q, k, v = (y.flatten(1, 2).transpose(1, 2) for y in (query, key, value.float()))  # (B, heads, T·h·w, d)
        keys, values = torch.cat([state["past_keys"], k], dim=2), torch.cat([state["past_values"], v], dim=2)

        tokens, parts = h * w, []
        piece = max(1, CAUSAL_PIECE // (tokens * chunk)) * chunk  # frames
        for start in range(0, frames, piece):
            stop = min(start + piece, frames)
            end = (frames_seen + stop) * tokens
            mask = None
            if stop - start > chunk:
                seen = frames_seen + (torch.arange(start, stop, device=x.device) // chunk + 1) * chunk  # frames
                seen = (seen * tokens).repeat_interleave(tokens)
                mask = torch.arange(end, device=x.device) < seen[:, None]  # (queries, keys)
            part = q[:, :, start * tokens : stop * tokens]
            parts.append(F.scaled_dot_product_attention(part, keys[:, :, :end], values[:, :, :end], attn_mask=mask))
        mixed = torch.cat(parts, dim=2).transpose(1, 2).flatten(2).to(x.dtype)
        return self.out_proj(mixed).unflatten(1, (frames, h, w)), {"past_keys": keys, "past_values": values}


def windowed_attention(
    query: Tensor, keys: Tensor, values: Tensor, chunk: int, window: int, unknown: int = 0
) -> Tensor:
    """Attention of every chunk to its window: (B, T, S, heads, d) -> the same shape.

    Args:
        keys, values: (B, window - chunk + T, S, heads, d), beginning with the tail before the first frame.
        unknown: frames of the tail that never were, from before the first frame.
    """
    frames, tail = query.shape[1], window - chunk
    group = _frames_together(frames, chunk, window)
    first = min(-(-unknown // group) * group, frames)  # frames of the groups whose windows reach there
    parts = []
    if first > 0:
        starts = torch.arange(0, first, group, device=query.device)
        mask: Tensor | None = _sees(starts, group, chunk, window, unknown)
        parts.append(_attend(query[:, :first], keys[:, : first + tail], values[:, : first + tail], group, mask))
    if first < frames:
        any_start = torch.zeros(1, dtype=torch.long, device=query.device)
        mask = None if group == chunk else _sees(any_start, group, chunk, window, 0)
        parts.append(_attend(query[:, first:], keys[:, first:], values[:, first:], group, mask))
    return torch.cat(parts, dim=1)


def _frames_together(frames: int, chunk: int, window: int) -> int:
    """How many frames share one set of keys: whole chunks, half a window at most.

    Their windows overlap, so that a mask costs less than a copy of the keys for each chunk, which is kept for the
    backward pass besides. Chunks of half a window need neither: the fastest kernels take no mask.
    """
    fitting = [group for group in range(chunk, window // 2 + 1, chunk) if frames % group == 0]
    return fitting[-1] if fitting else chunk


def _sees(starts: Tensor, group: int, chunk: int, window: int, unknown: int) -> Tensor:
    """(groups, group, window - chunk + group) bool: which of a group's keys, by frames, each of its frames sees.

    `starts` (groups,): the first key of each group, counted from the first of all, of which `unknown` never were.
    """
    own = torch.arange(group, device=starts.device)[:, None] // chunk * chunk  # the first key of a frame's window
    key = torch.arange(window - chunk + group, device=starts.device)
    return (key >= own) & (key < own + window) & (starts[:, None, None] + key >= unknown)


def _attend(query: Tensor, keys: Tensor, values: Tensor, group: int, mask: Tensor | None) -> Tensor:
    """`mask` (T / group or 1, group, frames of keys of a group) bool; None: every key is seen."""
    batch, frames, tokens = query.shape[:3]
    groups, seen = frames // group, keys.shape[1] - frames + group
    q, k, v = (tensor.permute(0, 3, 1, 2, 4).flatten(0, 1) for tensor in (query, keys, values))
    q = q.unflatten(1, (groups, group)).flatten(2, 3)  # (B · heads, groups, group · S, d)
    k, v = (_windows(tensor, groups, group, seen).flatten(2, 3) for tensor in (k, v))  # (…, groups, seen · S, d)
    if mask is not None:
        mask = mask.repeat_interleave(tokens, dim=1).repeat_interleave(tokens, dim=2)[None]  # kernels want 4 dimensions
    few = query.device.type == "cpu" and k.shape[2] <= FEW_KEYS
    attend = _products if few else F.scaled_dot_product_attention
    mixed = attend(q, k, v, attn_mask=mask).unflatten(0, (batch, -1)).unflatten(3, (group, tokens))
    return mixed.permute(0, 2, 3, 4, 1, 5).flatten(1, 2)


def _windows(x: Tensor, windows: int, step: int, length: int) -> Tensor:
    """(N, frames, …) -> (N, windows, length, …): one begins every `step` frames.

    Pieced together from slices: torch 2.13 compiles the backward pass of `unfold`, on a CPU with several threads, to
    code that writes beyond its memory.
    """
    pieces = -(-length // step)
    padded = F.pad(x, (0, 0) * (x.ndim - 2) + (0, (windows + pieces - 1) * step - x.shape[1]))
    steps = padded.unflatten(1, (-1, step))  # (N, steps, step, …)
    return torch.cat([steps[:, i : i + windows, : length - i * step] for i in range(pieces)], dim=2)


def _products(query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None) -> Tensor:
    """Attention by two matrix products: on a CPU several times faster than its kernel, backward and in bfloat16."""
    scores = ((query * query.shape[-1] ** -0.5) @ key.transpose(-1, -2)).float()
    if attn_mask is not None:
        scores = scores + torch.zeros(attn_mask.shape, device=scores.device).masked_fill(~attn_mask, -torch.inf)
    return scores.softmax(dim=-1).to(value.dtype) @ value


def rotary_angles(
    frames: int, h: int, w: int, width: int, device: torch.device, first: int = 0, time_base: float = ROTARY_BASE
) -> Tensor:
    """(frames, h·w, width / 2): half of the pairs turn with time, from `first` on, a quarter each with y and x."""
    pairs = width // 2
    spatial = pairs // 4
    positions = (
        (torch.arange(first, first + frames, device=device), pairs - 2 * spatial, (frames, 1, 1), time_base),
        (torch.arange(h, device=device), spatial, (1, h, 1), ROTARY_BASE),
        (torch.arange(w, device=device), spatial, (1, 1, w), ROTARY_BASE),
    )
    angles = []
    for position, count, shape, base in positions:
        frequencies = base ** -(torch.arange(count, device=device) / count)
        angles.append((position.view(*shape, 1) * frequencies).expand(frames, h, w, count))
    return torch.cat(angles, dim=-1).flatten(1, 2)


def rotate(x: Tensor, angles: Tensor) -> Tensor:
    """Rotary embedding: x (B, T, S, heads, d) by angles (T, S, d / 2), each turning a pair of neighbouring channels."""
    if torch.compiler.is_compiling():  # complex numbers are the fastest way, but compilers know none
        even, odd = x.unflatten(-1, (-1, 2)).unbind(-1)
        cos, sin = angles.cos()[:, :, None], angles.sin()[:, :, None]
        return torch.stack([even * cos - odd * sin, even * sin + odd * cos], dim=-1).flatten(-2)
    turns = torch.polar(torch.ones_like(angles), angles)[:, :, None]
    return torch.view_as_real(torch.view_as_complex(x.unflatten(-1, (-1, 2))) * turns).flatten(-2)
