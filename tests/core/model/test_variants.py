"""Baselines and ablations: as many parameters as ours, and the properties every mixer has."""

import dataclasses
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lssvwm_core.model import attention
from lssvwm_core.model.attention import CausalAttention
from lssvwm_core.model.mixer import MixerContext
from lssvwm_core.model.variants import VARIANTS, parameters, training_fields, variant
from lssvwm_core.model.world_model import WorldModel
from lssvwm_core.presets import PRESETS, carries, preset

FRAMES = 20
POSES = ("x", "y", "cos", "sin")


@pytest.mark.parametrize("scale", PRESETS)
@pytest.mark.parametrize("name", VARIANTS)
def test_every_variant_has_as_many_parameters_as_ours(scale, name):
    ours = preset(scale, (32, 4, 4), action_names=("a", "b"), pose_names=POSES)
    other = dataclasses.replace(ours, **variant(name, ours, 800))
    assert parameters(other) == pytest.approx(parameters(ours), rel=0.01)


def test_variants_are_what_they_are_called():
    ours = preset("base", (32, 4, 4), pose_names=POSES)
    configs = {name: dataclasses.replace(ours, **variant(name, ours, 800)) for name in VARIANTS}
    assert configs["ours"] == configs["no-long-context"] == ours
    assert (configs["mamba2"].mixers, configs["mamba2"].block_sizes) == (("scan",), (ours.grid,))
    assert configs["mamba2-local"] == dataclasses.replace(ours, block_sizes=(ours.grid,))
    assert (configs["causal-window"].mixers, configs["causal-window"].frame_window) == (("attention",), 192)
    assert configs["causal-full"].mixers == ("causal",)
    assert configs["block-1"] == dataclasses.replace(ours, block_sizes=((1, 1),))
    assert training_fields("no-long-context") == {"prefix_probability": 0.0}
    assert not training_fields("ours")
    with pytest.raises(ValueError, match="'mamba3'; expected some of ours, mamba2"):
        variant("mamba3", ours, 800)


@pytest.fixture(scope="module", params=VARIANTS)
def named_model(request, config, randomised):
    torch.manual_seed(0)
    fields = variant(request.param, config, 50)  # a window of 12 frames
    return request.param, randomised(WorldModel(dataclasses.replace(config, **fields)))


@pytest.fixture(scope="module")
def clip(normal):
    levels = torch.rand(2, FRAMES, generator=torch.Generator().manual_seed(1))
    return normal(2, FRAMES, 3, 4, 4), levels, {"action": normal(2, FRAMES, 3, seed=2)}


@torch.no_grad()
def stream(model, clip, chunk, pieces, state=None):
    latents, levels, conditions = clip
    parts, start = [], 0
    for frames in pieces:
        rows = slice(start, start + frames)
        velocity, state = model(
            latents[:, rows], levels[:, rows], {"action": conditions["action"][:, rows]}, state, chunk
        )
        parts.append(velocity)
        start += frames
    return torch.cat(parts, dim=1), state


@pytest.mark.parametrize("chunk", [1, 5])
def test_a_change_reaches_its_chunk_and_nothing_before(named_model, clip, chunk):
    name, model = named_model
    before, _ = stream(model, clip, chunk, [FRAMES])
    for frame in (0, 7):
        changed = clip[0].clone()
        changed[:, frame] += 1
        after, _ = stream(model, (changed, *clip[1:]), chunk, [FRAMES])
        first = frame // chunk * chunk
        assert torch.equal(after[:, :first], before[:, :first])
        last = first + chunk if name == "causal-window" else FRAMES
        assert (after != before)[:, frame:last].flatten(2).any(-1).all()


@settings(max_examples=6, deadline=None)
@given(chunk=st.sampled_from([1, 5]), data=st.data())
def test_a_stream_in_pieces_is_the_whole(named_model, clip, chunk, data):
    """For causal attention: the cache gives what the full pass gives."""
    cuts = sorted(data.draw(st.sets(st.integers(1, FRAMES // chunk - 1), min_size=1, max_size=4)))
    pieces = [after - before for before, after in pairwise([0, *(chunk * cut for cut in cuts), FRAMES])]
    whole, final = stream(named_model[1], clip, chunk, [FRAMES])
    velocity, state = stream(named_model[1], clip, chunk, pieces)
    torch.testing.assert_close(velocity, whole, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(state.mixers, final.mixers, rtol=1e-3, atol=1e-4)


def test_the_state_is_constant_but_for_full_attention(named_model, clip):
    name, model = named_model
    sizes = [stream(model, clip, 5, pieces)[1].nbytes for pieces in ([5], [10], [10, 10])]
    assert bool(model.initial_state(2).growth) == (name == "causal-full")
    if name == "causal-full":
        a_frame = 2 * 2 * model.config.grid[0] * model.config.grid[1] * model.config.width * 4 * model.config.depth
        assert sizes == [5 * a_frame, 10 * a_frame, 20 * a_frame]
    else:
        assert set(sizes) == {model.initial_state(2).nbytes}


def test_a_state_is_left_as_it_was_and_restored(named_model, clip, tmp_path):
    model = named_model[1]
    _, state = stream(model, clip, 5, [10])
    state.save(tmp_path / "state.safetensors")
    expected, _ = stream(model, clip, 5, [5], state)
    assert torch.equal(stream(model, clip, 5, [5], state)[0], expected)
    restored = model.initial_state(2)
    restored.restore(tmp_path / "state.safetensors")
    assert torch.equal(stream(model, clip, 5, [5], restored)[0], expected)


def test_every_parameter_is_trained(named_model, clip, config, randomised):
    model = randomised(WorldModel(named_model[1].config)).train()
    poses = {"pose": torch.rand(2, FRAMES, 2)}
    model(clip[0], clip[1], clip[2] | poses, chunk=5)[0].square().mean().backward()
    untrained = {name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()}
    assert untrained <= {"streams.action.null", "streams.pose.null"}


# Causal attention against attention with a dense mask, written another way


@torch.no_grad()
def dense_attention(mixer, x, chunk):
    frames, h, w = x.shape[1:4]
    d = mixer.headdim
    tokens = x.flatten(1, 3)
    query, key, value = ((tokens @ m.T).unflatten(-1, (-1, d)).transpose(1, 2) for m in mixer.qkv.weight.chunk(3))
    axes = torch.meshgrid(*(torch.arange(n) for n in (frames, h, w)), indexing="ij")
    bases, counts = (10_000.0, 100.0, 100.0), (d // 4, d // 8, d // 8)
    turns = [
        axis.flatten()[:, None] * base ** -(torch.arange(n) / n)
        for axis, base, n in zip(axes, bases, counts, strict=True)
    ]
    rotation = torch.polar(torch.ones(frames * h * w, d // 2), torch.cat(turns, dim=1))

    def rotated(vectors, norm):
        vectors = torch.nn.functional.layer_norm(vectors, (d,), norm.weight, norm.bias)
        turned = torch.complex(vectors[..., ::2], vectors[..., 1::2]) * rotation
        return torch.stack([turned.real, turned.imag], dim=-1).flatten(-2)

    scores = rotated(query, mixer.q_norm) @ rotated(key, mixer.k_norm).transpose(-1, -2) / d**0.5
    number = axes[0].flatten() // chunk
    weights = scores.masked_fill(number[:, None] < number, -torch.inf).softmax(dim=-1)
    return ((weights @ value).transpose(1, 2).flatten(2) @ mixer.out_proj.weight.T).view_as(x)


@pytest.mark.parametrize("piece", [1, 30, 2048])
@pytest.mark.parametrize("chunk", [1, 5])
def test_causal_attention_equals_a_dense_mask(randomised, normal, monkeypatch, chunk, piece):
    monkeypatch.setattr(attention, "CAUSAL_PIECE", piece)
    torch.manual_seed(0)
    mixer, x = randomised(CausalAttention(64, 16)), normal(2, 20, 2, 3, 64)
    with torch.no_grad():
        y, state = mixer(x, mixer.initial_state(2, (2, 3)), MixerContext(0, chunk))
    torch.testing.assert_close(y, dense_attention(mixer, x, chunk), rtol=1e-4, atol=1e-5)
    assert state["past_keys"].shape == (2, 4, 120, 16)


@pytest.mark.parametrize(
    ("latent_shape", "patch"),
    [
        ((32, 4, 4), 2),  # the maze's
        ((48, 8, 8), 2),
        ((4, 32, 32), 8),
        ((48, 16, 16), 2),  # 4 would make few enough tokens, of 768 numbers each
        ((16, 32, 32), 4),
        ((300, 8, 8), 2),  # nothing fits
    ],
)
def test_a_presets_tokens_have_room_for_their_latents(latent_shape: tuple[int, int, int], patch: int) -> None:
    config = preset("tiny", latent_shape)
    assert config.patch == patch
    assert carries(config.width, latent_shape[0], patch) == (latent_shape[0] < 300)
