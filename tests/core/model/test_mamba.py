"""The block scan: Mamba-2 as transformers has it, block by block, in a stream."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from lssvwm_core.model.mamba import BlockScan, causal_convolution, from_blocks, to_blocks
from lssvwm_core.model.mixer import MixerContext

GRID = (4, 4)
BLOCK_SIZES = ((4, 4), (2, 2), (1, 4), (1, 1))


@pytest.fixture(scope="module")
def block_scan(randomised):
    def build(block_size):
        torch.manual_seed(0)
        return randomised(BlockScan(64, block_size, headdim=16, d_state=16))

    return build


@torch.no_grad()
def mix(mixer, x, state=None):
    return mixer(x, mixer.initial_state(len(x), x.shape[2:4]) if state is None else state, MixerContext(0, 1))


@pytest.mark.parametrize("chunk_size", [16, 256])
def test_one_block_is_the_mamba2_of_transformers(block_scan, normal, chunk_size):
    from transformers import Mamba2Config
    from transformers.models.mamba2.modeling_mamba2 import Mamba2Mixer

    mixer = block_scan(GRID)
    config = Mamba2Config(
        hidden_size=64, num_heads=8, head_dim=16, state_size=16, n_groups=1, chunk_size=chunk_size, num_hidden_layers=1
    )
    other = Mamba2Mixer(config, layer_idx=0).eval()
    weights = {name: tensor for name, tensor in mixer.state_dict().items() if not name.startswith("conv")}
    other.load_state_dict(weights | {"conv1d.weight": mixer.conv_weight[:, None], "conv1d.bias": mixer.conv_bias})
    x = normal(2, 5, *GRID, 64)
    with torch.no_grad():
        expected = other(x.flatten(1, 3)).view_as(x)
    torch.testing.assert_close(mix(mixer, x)[0], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("block_size", BLOCK_SIZES)
def test_blocks_are_time_major_with_rows_inside(block_size):
    """Token (t, y, x) is found at its frame, its row and its column within its block's sequence."""
    b_h, b_w = block_size
    t, y, x = torch.meshgrid(torch.arange(3), torch.arange(4), torch.arange(8), indexing="ij")
    sequences = to_blocks(torch.stack([t, y, x], dim=-1)[None], block_size)
    assert sequences.shape == (4 // b_h * (8 // b_w), 3 * b_h * b_w, 3)
    for block, sequence in enumerate(sequences.tolist()):
        top, left = block // (8 // b_w) * b_h, block % (8 // b_w) * b_w
        assert sequence == [[t, top + i, left + j] for t in range(3) for i in range(b_h) for j in range(b_w)]


@pytest.mark.parametrize("block_size", BLOCK_SIZES)
def test_from_blocks_undoes_to_blocks(block_size, normal):
    x = normal(2, 3, 4, 8, 5)
    assert torch.equal(from_blocks(to_blocks(x, block_size), block_size, (4, 8)), x)


def test_blocks_do_not_see_each_other(block_scan, normal):
    mixer, x = block_scan((2, 2)), normal(2, 4, *GRID, 64)
    changed = x.clone()
    changed[0, 0, 1, 2] += 1  # in the first clip's upper right block
    differs = (mix(mixer, changed)[0] != mix(mixer, x)[0]).any(dim=-1)
    assert differs[0, 1:, :2, 2:].all()
    differs[0, :, :2, 2:] = False
    assert not differs.any()


def test_a_token_changes_nothing_before_it(block_scan, normal):
    mixer, x = block_scan(GRID), normal(1, 3, *GRID, 64)
    changed = x.clone()
    changed[0, 1, 2, 1] += 1
    differs = (mix(mixer, changed)[0] != mix(mixer, x)[0]).any(dim=-1).flatten()
    assert differs.tolist() == [position >= 16 + 2 * 4 + 1 for position in range(48)]


@settings(max_examples=15, deadline=None)
@given(block_size=st.sampled_from(BLOCK_SIZES), pieces=st.lists(st.integers(1, 9), min_size=2, max_size=4))
def test_a_stream_in_pieces_is_the_whole(block_scan, normal, block_size, pieces):
    mixer, x = block_scan(block_size), normal(1, sum(pieces), *GRID, 64)
    whole, final = mix(mixer, x)
    outputs, state = [], None
    for piece in x.split(pieces, dim=1):
        y, state = mix(mixer, piece, state)
        outputs.append(y)
    torch.testing.assert_close(torch.cat(outputs, dim=1), whole, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(state, final, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("block_size", [(2, 2), (1, 1)])
def test_the_state_is_float32_and_of_one_size(block_scan, normal, block_size):
    mixer = block_scan(block_size)
    initial = mixer.initial_state(2, GRID)
    assert len(initial["scan"]) == 2 * 16 // (block_size[0] * block_size[1])
    for frames in (1, 2, 20):
        with torch.autocast("cpu", torch.bfloat16):
            _, state = mix(mixer, normal(2, frames, *GRID, 64))
        for name, tensor in state.items():
            assert (tensor.shape, tensor.dtype) == (initial[name].shape, torch.float32)


def test_the_state_given_is_left_as_it_was(block_scan, normal):
    mixer = block_scan((2, 2))
    _, state = mix(mixer, normal(1, 2, *GRID, 64))
    before = {name: tensor.clone() for name, tensor in state.items()}
    mix(mixer, normal(1, 2, *GRID, 64, seed=1), state)
    assert all(torch.equal(state[name], before[name]) for name in before)


@pytest.mark.parametrize("length", [1, 2, 3, 9])
def test_causal_convolution_is_conv1d_after_the_tail(normal, length):
    x, tail = normal(2, length, 6), normal(2, 3, 6, seed=1)
    weight, bias = normal(6, 4, seed=2), normal(6, seed=3)
    y, new_tail = causal_convolution(x, tail, weight, bias)
    padded = torch.cat([tail, x], dim=1)
    expected = F.conv1d(padded.transpose(1, 2), weight[:, None], bias, groups=6).transpose(1, 2)
    torch.testing.assert_close(y, expected)
    assert torch.equal(new_tail, padded[:, -3:])
