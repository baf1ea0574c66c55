"""Frame-local attention against attention with a dense mask, written another way."""

import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.attention import SDPBackend, sdpa_kernel

from lssvwm_core.device import why_not_compiled
from lssvwm_core.model import attention
from lssvwm_core.model.attention import ROTARY_BASE, FrameAttention
from lssvwm_core.model.mixer import MixerContext

H, W, WIDTH, HEAD_WIDTH = 2, 3, 64, 16
CHUNKS_AND_WINDOWS = [(1, 5), (1, 10), (2, 5), (2, 8), (5, 5), (5, 7), (5, 10)]


@pytest.fixture(scope="module")
def frame_attention(randomised):
    def build(window, smallest_chunk=1):
        torch.manual_seed(0)
        return randomised(FrameAttention(WIDTH, HEAD_WIDTH, window, window - smallest_chunk))

    return build


@torch.no_grad()
def mix(mixer, x, chunk, state=None, seen=0):
    return mixer(x, mixer.initial_state(len(x), (H, W)) if state is None else state, MixerContext(seen, chunk))


def in_pieces(mixer, x, chunk, pieces):
    outputs, state, seen = [], None, 0
    for piece in x.split(pieces, dim=1):
        y, state = mix(mixer, piece, chunk, state, seen)
        outputs.append(y)
        seen += piece.shape[1]
    return torch.cat(outputs, dim=1), state


def sees(chunk, window, frames):
    """(T, T) bool: a frame sees its chunk, and the window - chunk frames before it."""
    starts = torch.arange(frames) // chunk * chunk
    other = torch.arange(frames)
    return (other >= (starts + chunk - window)[:, None]) & (other < (starts + chunk)[:, None])


@torch.no_grad()
def dense_attention(mixer, x, chunk):
    """Every pair of tokens, masked; rotary positions as complex numbers, at the frames' absolute times."""
    frames = x.shape[1]
    tokens = x.flatten(1, 3)  # (B, T·h·w, D)
    query, key, value = (
        (tokens @ weight.T).unflatten(-1, (-1, HEAD_WIDTH)).transpose(1, 2) for weight in mixer.qkv.weight.chunk(3)
    )
    t, row, column = (
        axis.flatten() for axis in torch.meshgrid(*(torch.arange(n) for n in (frames, H, W)), indexing="ij")
    )
    # of the 8 pairs of a head's channels (2i, 2i + 1), 4 turn with time, 2 with the row, 2 with the column
    turns = [
        position[:, None] * ROTARY_BASE ** -(torch.arange(n) / n) for position, n in ((t, 4), (row, 2), (column, 2))
    ]
    rotation = torch.polar(torch.ones(len(t), 8), torch.cat(turns, dim=1))

    def rotated(vectors, norm):
        centred = vectors - vectors.mean(-1, keepdim=True)
        vectors = centred * torch.rsqrt(centred.square().mean(-1, keepdim=True) + 1e-5) * norm.weight + norm.bias
        turned = torch.complex(vectors[..., ::2], vectors[..., 1::2]) * rotation
        return torch.stack([turned.real, turned.imag], dim=-1).flatten(-2)

    scores = rotated(query, mixer.q_norm) @ rotated(key, mixer.k_norm).transpose(-1, -2)
    mask = sees(chunk, mixer.window, frames).repeat_interleave(H * W, 0).repeat_interleave(H * W, 1)
    weights = (scores / HEAD_WIDTH**0.5).masked_fill(~mask, -torch.inf).softmax(dim=-1)
    return ((weights @ value).transpose(1, 2).flatten(2) @ mixer.out_proj.weight.T).view_as(x)


@pytest.mark.parametrize("way", ["products", "kernel", "chunk by chunk"])
@pytest.mark.parametrize(("chunk", "window"), CHUNKS_AND_WINDOWS)
def test_equals_attention_with_a_dense_mask(frame_attention, normal, chunk, window, way, monkeypatch):
    """As on CPUs with few keys, as on GPUs, and where frames are no whole number of groups; by fused kernels."""
    if way != "products":
        monkeypatch.setattr(attention, "FEW_KEYS", 0)
    if way == "chunk by chunk":
        monkeypatch.setattr(attention, "_frames_together", lambda frames, chunk, window: chunk)
    mixer, x = frame_attention(window), normal(2, 20, H, W, WIDTH)
    with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
        mixed = mix(mixer, x, chunk)[0]
    torch.testing.assert_close(mixed, dense_attention(mixer, x, chunk), rtol=1e-4, atol=1e-5)


def test_gradients_in_bfloat16_are_those_of_float32(frame_attention, normal):
    mixer, x = frame_attention(10), normal(2, 20, H, W, WIDTH)
    found = []
    for enabled in (False, True):
        mixer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            y, _ = mixer(x, mixer.initial_state(2, (H, W)), MixerContext(0, 1))
        (y.float() * normal(*x.shape, seed=1)).sum().backward()
        found.append(mixer.qkv.weight.grad.clone())
    torch.testing.assert_close(found[1], found[0], rtol=0, atol=0.02 * float(found[0].abs().max()))


@pytest.mark.parametrize(("chunk", "window"), CHUNKS_AND_WINDOWS)
def test_sees_its_window_and_exactly_nothing_else(frame_attention, normal, chunk, window):
    mixer, x = frame_attention(window), normal(1, 20, H, W, WIDTH)
    before = mix(mixer, x, chunk)[0]
    for frame in (0, 7, 19):
        changed = x.clone()
        changed[:, frame] += 1
        differs = (mix(mixer, changed, chunk)[0] != before).flatten(2).any(-1)[0]
        assert torch.equal(differs, sees(chunk, window, 20)[:, frame])


@settings(max_examples=20, deadline=None)
@given(chunk_and_window=st.sampled_from(CHUNKS_AND_WINDOWS), pieces=st.lists(st.integers(1, 4), min_size=2, max_size=4))
def test_a_stream_in_pieces_is_the_whole(frame_attention, normal, chunk_and_window, pieces):
    chunk, window = chunk_and_window
    mixer, x = frame_attention(window), normal(1, chunk * sum(pieces), H, W, WIDTH)
    whole, final = mix(mixer, x, chunk)
    y, state = in_pieces(mixer, x, chunk, [chunk * piece for piece in pieces])
    torch.testing.assert_close(y, whole, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(state, final, rtol=1e-4, atol=1e-5)


def test_a_context_may_come_in_other_chunks(frame_attention, normal):
    """What is carried does not depend on the chunk size: observe five by five, play one by one."""
    mixer, x = frame_attention(10), normal(1, 15, H, W, WIDTH)
    _, expected = mix(mixer, x, 1)
    _, state = mix(mixer, x, 5)
    assert all(torch.equal(state[name], expected[name]) for name in expected)


@pytest.mark.parametrize(("chunk", "window"), [(1, 6), (5, 10)])
def test_only_relative_time_counts(frame_attention, normal, chunk, window):
    """The last chunk of a long past equals the last chunk of its window alone."""
    mixer, x = frame_attention(window, chunk), normal(1, 40, H, W, WIDTH)
    streamed, _ = in_pieces(mixer, x, chunk, 10)
    alone, _ = mix(mixer, x[:, -window:], chunk)
    torch.testing.assert_close(streamed[:, -chunk:], alone[:, -chunk:], rtol=1e-4, atol=1e-5)


def test_the_state_is_float32_and_of_one_size(frame_attention, normal):
    mixer = frame_attention(10, smallest_chunk=2)
    for frames in (2, 8, 30):
        with torch.autocast("cpu", torch.bfloat16):
            _, state = mix(mixer, normal(1, frames, H, W, WIDTH), 2)
        for tensor in state.values():
            assert (tensor.shape, tensor.dtype) == ((1, 8, H * W, 4, 16), torch.float32)


def test_compiled_for_several_threads_its_gradients_are_those_of_eager():
    """In a process of its own: what inductor once made of it wrote beyond its memory."""
    if reason := why_not_compiled(torch.device("cpu")):
        pytest.skip(reason)
    program = """
import torch
from lssvwm_core.model.attention import windowed_attention
torch.set_num_threads(2)
torch.manual_seed(0)
inputs = [torch.randn(1, frames, 4, 3, 16, requires_grad=True) for frames in (40, 45, 45)]
found = []
for attend in (windowed_attention, torch.compile(windowed_attention, dynamic=False)):
    y = attend(*inputs, 5, 10, 5)
    found.append((y, *torch.autograd.grad(y.square().sum(), inputs)))
torch.testing.assert_close(found[1], found[0], rtol=1e-4, atol=1e-5)
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=300)
