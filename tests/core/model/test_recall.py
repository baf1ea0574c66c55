"""The memory by least squares, against a direct solve; and what a memory owes: pieces, certainty, unknown poses."""

import pytest
import torch
from torch import Tensor

from lssvwm_core.model.recall import Recall

SHAPE = (2, 2, 2)


def recall(addresses: int = 64) -> Recall:
    torch.manual_seed(0)
    return Recall(4, SHAPE, addresses)


def walk(frames: int, seed: int = 0, batch: int = 2) -> tuple[Tensor, Tensor]:
    """Poses (B, T, 4) of a walk, and latents that go with them."""
    rng = torch.Generator().manual_seed(seed)
    places = torch.randn(batch, frames, 2, generator=rng).mul(0.3).cumsum(dim=1)
    headings = torch.randn(batch, frames, 1, generator=rng).mul(0.4).cumsum(dim=1)
    poses = torch.cat([places, headings.cos(), headings.sin()], dim=-1)
    return poses, torch.randn(batch, frames, *SHAPE, generator=rng)


def direct(memory: Recall, poses: Tensor, latents: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
    """P and W of one world by solving the normal equations of all its frames at once, in float64."""
    addresses = memory._addresses(poses[None], 1, len(poses))[0]
    weighted = addresses.mT / noise
    information = memory.ridge * torch.eye(memory.addresses, dtype=torch.float64) + weighted @ addresses
    covariance = torch.linalg.inv(information)
    return covariance, covariance @ weighted @ latents.double().flatten(1)


@pytest.mark.parametrize("chunk", [1, 5, 30])
def test_it_is_what_solving_everything_at_once_gives(chunk: int) -> None:
    memory, (poses, latents) = recall(), walk(60)
    _, state = memory(memory.initial_state(2), poses[:, :30], latents[:, :30], chunk)
    _, state = memory(state, poses[:, 30:], latents[:, 30:], chunk, noise=4.0)
    noise = torch.tensor([1.0] * 30 + [4.0] * 30, dtype=torch.float64)
    for world in range(2):
        covariance, weights = direct(memory, poses[world], latents[world], noise)
        torch.testing.assert_close(state["covariance"][world], covariance, atol=1e-8, rtol=1e-8)
        torch.testing.assert_close(state["weights"][world], weights, atol=1e-8, rtol=1e-8)


@pytest.mark.parametrize("chunk", [1, 5])
def test_each_chunk_is_recalled_from_those_before_it_alone(chunk: int) -> None:
    memory, (poses, latents) = recall(), walk(20, batch=1)
    found, _ = memory(memory.initial_state(1), poses, latents, chunk)
    for start in range(0, 20, chunk):
        covariance, weights = direct(
            memory, poses[0, :start], latents[0, :start], torch.ones(start, dtype=torch.float64)
        )
        addresses = memory._addresses(poses, 1, 20)[0, start : start + chunk]
        expected = (addresses @ weights).float().unflatten(1, SHAPE)
        torch.testing.assert_close(found.latents[0, start : start + chunk], expected, atol=1e-5, rtol=1e-5)
        novelty = memory.ridge * (addresses @ covariance * addresses).sum(dim=-1)
        torch.testing.assert_close(found.novelty[0, start : start + chunk], novelty.float(), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("pieces", [[10, 30], [5, 5, 30], [40]])
def test_a_clip_in_pieces_is_the_whole(pieces: list[int]) -> None:
    memory, (poses, latents) = recall(), walk(40)
    whole, end = memory(memory.initial_state(2), poses, latents, 5)
    state, start = memory.initial_state(2), 0
    for count in pieces:
        rows = slice(start, start + count)
        part, state = memory(state, poses[:, rows], latents[:, rows], 5)
        torch.testing.assert_close(part.latents, whole.latents[:, rows], atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(part.novelty, whole.novelty[:, rows], atol=1e-6, rtol=1e-5)
        start += count
    for name in end:
        torch.testing.assert_close(state[name], end[name], atol=1e-8, rtol=1e-8)


@pytest.mark.parametrize("chunk", [1, 5])
def test_a_clip_from_nothing_needs_no_memory_at_its_end(chunk: int) -> None:
    memory, (poses, latents) = recall(), walk(40)
    poses[1, 7:12] = torch.nan
    expected, _ = memory(memory.initial_state(2), poses, latents, chunk)
    found = memory.of_clip(poses, latents, chunk)
    torch.testing.assert_close(found.latents, expected.latents, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(found.novelty, expected.novelty, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("chunk", [1, 5])
def test_every_frame_may_have_a_noise_of_its_own(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lssvwm_core.model.recall.BLOCK_FRAMES", 15)
    memory, (poses, latents) = recall(), walk(40)
    noise = torch.linspace(1.0, 8.0, 80).reshape(2, 40)
    expected, state = memory(memory.initial_state(2), poses, latents, chunk, noise)
    for world in range(2):
        covariance, weights = direct(memory, poses[world], latents[world], noise[world].double())
        torch.testing.assert_close(state["covariance"][world], covariance, atol=1e-8, rtol=1e-8)
        torch.testing.assert_close(state["weights"][world], weights, atol=1e-8, rtol=1e-8)
    found = memory.of_clip(poses, latents, chunk, noise)
    torch.testing.assert_close(found.latents, expected.latents, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(found.novelty, expected.novelty, atol=1e-6, rtol=1e-5)


def test_long_clips_are_solved_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    memory, (poses, latents) = recall(), walk(60)
    whole, _ = memory(memory.initial_state(2), poses, latents, 5)
    monkeypatch.setattr("lssvwm_core.model.recall.BLOCK_FRAMES", 12)
    blocks, _ = memory(memory.initial_state(2), poses, latents, 5)
    torch.testing.assert_close(blocks.latents, whole.latents, atol=1e-5, rtol=1e-5)


def test_what_was_seen_comes_back_and_what_was_not_is_new() -> None:
    memory, (poses, latents) = recall(256), walk(50)
    _, state = memory(memory.initial_state(2), poses, latents, 5)
    there = memory.read(state, poses, 50)
    assert (there.latents - latents).square().mean() < 0.01
    assert there.novelty.max() < 0.1
    assert there.certainty(memory.ridge).min() > 0.9
    elsewhere = memory.read(state, poses + torch.tensor([100.0, 0, 0, 0]), 50)
    assert elsewhere.novelty.min() > 0.5
    assert elsewhere.certainty(memory.ridge).max() < 0.1


def test_unknown_poses_are_neither_recalled_nor_remembered() -> None:
    memory, (poses, latents) = recall(), walk(20)
    blind = poses.clone()
    blind[:, 5:15] = torch.nan
    found, state = memory(memory.initial_state(2), blind, latents, 5)
    assert (found.novelty[:, 5:15] == 1).all()
    assert (found.latents[:, 5:15] == 0).all()
    seen = [*range(5), *range(15, 20)]
    _, expected = memory(memory.initial_state(2), poses[:, seen], latents[:, seen], 5)
    for name in state:
        torch.testing.assert_close(state[name], expected[name], atol=1e-9, rtol=1e-9)
    nothing, unchanged = memory(state, None, latents, 5)
    assert (nothing.novelty == 1).all()
    assert all(torch.equal(unchanged[name], state[name]) for name in state)


def test_certainty_never_falls_over_a_hundred_thousand_writes() -> None:
    """And the memory stays what a direct solve gives: symmetric, positive, exact."""
    memory = recall(16)
    rng = torch.Generator().manual_seed(1)
    places = torch.rand(1, 8, 4, generator=rng)
    state, before = memory.initial_state(1), torch.ones(1, 8)
    poses, latents = torch.rand(1, 100_000, 4, generator=rng), torch.randn(1, 100_000, *SHAPE, generator=rng)
    for start in range(0, 100_000, 2000):
        rows = slice(start, start + 2000)
        _, state = memory(state, poses[:, rows], latents[:, rows], 5)
        novelty = memory.read(state, places, 8).novelty
        assert (novelty <= before + 1e-7).all()
        before = novelty
    covariance, weights = direct(memory, poses[0], latents[0], torch.ones(100_000, dtype=torch.float64))
    assert torch.equal(state["covariance"], state["covariance"].mT)
    assert torch.linalg.eigvalsh(state["covariance"]).min() > 0
    torch.testing.assert_close(state["covariance"][0], covariance, atol=1e-9, rtol=1e-6)
    torch.testing.assert_close(state["weights"][0], weights, atol=1e-9, rtol=1e-6)


def test_what_a_world_made_counts_for_less_than_what_was_recorded() -> None:
    memory, (poses, latents) = recall(), walk(1)
    _, seen = memory(memory.initial_state(2), poses, latents, 1)
    _, overwritten = memory(seen, poses, -latents, 1, noise=4.0)
    assert ((memory.read(overwritten, poses, 1).latents * latents).sum(dim=(1, 2, 3, 4)) > 0).all()
