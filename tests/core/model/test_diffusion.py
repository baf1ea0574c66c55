"""Diffusion forcing: noise levels, the loss of noised frames, the sampler."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lssvwm_core.diffusion import add_noise, flow_loss, sample_noise_levels


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


@settings(max_examples=30, deadline=None)
@given(
    chunks=st.integers(1, 20),
    chunk=st.sampled_from((1, 5)),
    probability=st.sampled_from((0.0, 0.5, 1.0)),
    seed=st.integers(0, 999),
)
def test_noise_levels_are_of_chunks_after_a_clean_prefix(chunks, chunk, probability, seed):
    levels = sample_noise_levels(8, chunks * chunk, chunk, probability, rng(seed))
    assert levels.shape == (8, chunks * chunk)
    assert levels.min() >= 0
    assert levels.max() < 1
    by_chunk = levels.unflatten(1, (chunks, chunk))
    assert (by_chunk == by_chunk[:, :, :1]).all()
    clean = by_chunk[:, :, 0] == 0
    assert not clean[:, -1].any()  # something is always left to learn from
    lengths = clean.sum(dim=1)
    assert torch.equal(clean, torch.arange(chunks) < lengths[:, None])  # a prefix, no gaps
    if chunks > 2:
        assert all(length == 0 or length > chunks / 2 for length in lengths.tolist())


@pytest.mark.parametrize("probability", [0.0, 0.3, 1.0])
def test_clips_keep_a_prefix_with_the_probability_asked_for(probability):
    levels = sample_noise_levels(4000, 20, 1, probability, rng())
    lengths = (levels == 0).sum(dim=1)
    assert (lengths > 0).float().mean().item() == pytest.approx(probability, abs=0.03)
    assert set(lengths.tolist()) - {0} == (set(range(11, 20)) if probability else set())


@pytest.mark.parametrize("chunk", [1, 5])
@pytest.mark.parametrize("probability", [0.2, 0.5, 1.0])
def test_every_second_chunk_is_clean_with_the_probability_asked_for(chunk, probability):
    levels = sample_noise_levels(2000, 20 * chunk, chunk, 0.5, rng(), probability).unflatten(1, (20, chunk))
    clean = levels == 0
    assert torch.equal(clean, clean[:, :, :1].expand_as(clean))
    assert not clean[:, -1].any(), "something is always left to learn from"
    alternating, room = 0, 0
    for row in clean[:, :, 0].tolist():
        prefix = row.index(False)
        assert prefix == 0 or prefix > 10
        rest = row[prefix:-1]
        alternates = rest == [number % 2 == 1 for number in range(len(rest))]
        assert alternates or not any(rest)
        room += len(rest) > 1
        alternating += alternates and len(rest) > 1
    assert alternating / room == pytest.approx(probability, abs=0.04)
    noised = levels[levels > 0]
    assert (noised.min() < 0.05, noised.max() > 0.95) == (True, True)


def test_levels_differ_between_chunks_and_cover_the_range():
    levels = sample_noise_levels(1000, 2, 1, 0.0, rng())
    assert levels.min() < 0.05
    assert levels.max() > 0.95
    assert torch.corrcoef(levels.T)[0, 1].abs() < 0.1
    assert torch.equal(levels, sample_noise_levels(1000, 2, 1, 0.0, rng()))


def test_noise_goes_from_clean_to_pure(normal):
    clean, noise = normal(1, 3, 3, 4, 4), normal(1, 3, 3, 4, 4, seed=1)
    noisy = add_noise(clean, noise, torch.tensor([[0.0, 0.25, 1.0]]))
    assert torch.equal(noisy[:, 0], clean[:, 0])
    torch.testing.assert_close(noisy[:, 1], 0.75 * clean[:, 1] + 0.25 * noise[:, 1])
    assert torch.equal(noisy[:, 2], noise[:, 2])


LEVELS = torch.tensor([[0.0] * 5 + [0.3] * 5, [0.6] * 5 + [0.9] * 5])


def test_only_noised_frames_enter_the_loss(model, normal):
    """Noise of level 0 reaches the target alone, not the input: in a prefix it must not count."""
    latents, noise, other = (normal(2, 10, 3, 4, 4, seed=seed) for seed in range(3))
    with torch.no_grad():
        loss = flow_loss(model, latents, noise, LEVELS, {}, 5)
        prefix = noise.clone()
        prefix[0, :5] = other[0, :5]
        assert torch.equal(flow_loss(model, latents, prefix, LEVELS, {}, 5), loss)
        context = latents.clone()
        context[0, :5] = other[0, :5]
        assert flow_loss(model, context, noise, LEVELS, {}, 5) != loss  # it is seen, though not learnt
        velocity, _ = model(add_noise(latents, noise, LEVELS), LEVELS, {}, chunk=5)
    error = (velocity - (noise - latents)) ** 2
    torch.testing.assert_close(loss, (error[0, 5:].mean() + error[1].mean()) / 2)  # a clip counts as a clip


class Oracle:
    """The velocity that leads to `clean` from anywhere; it notes the levels and states it was called with."""

    def __init__(self, clean):
        self.clean, self.calls = clean, []

    def __call__(self, x, noise_levels, conditions, state=None, chunk=None, remember=None):
        self.calls.append((noise_levels, conditions, state, chunk))
        return (x - self.clean) / noise_levels[:, :, None, None, None].clamp(min=1e-6), "the next state"


def test_the_velocity_is_learnt_without_loss_by_who_knows_it(normal):
    latents, noise = normal(2, 10, 3, 4, 4), normal(2, 10, 3, 4, 4, seed=1)
    assert flow_loss(Oracle(latents), latents, noise, LEVELS, {}, 5) < 1e-8
