"""The memory by least squares, against a direct solve; and what a memory owes: pieces, certainty, room."""

import math

import pytest
import torch
from torch import Tensor

from lssvwm_core.model.recall import NEAREST, Recall

SHAPE = (2, 2, 2)
EXACT, NEAR = {"atol": 1e-6, "rtol": 1e-6}, {"atol": 0.03, "rtol": 1e-3}


def recall(frames: int = 128) -> Recall:
    return Recall(4, SHAPE, frames)


def walk(frames: int, seed: int = 0, batch: int = 2) -> tuple[Tensor, Tensor]:
    """Poses (B, T, 4) of a walk, and latents that go with them, in the precision that shards keep."""
    rng = torch.Generator().manual_seed(seed)
    places = torch.randn(batch, frames, 2, generator=rng).mul(0.3).cumsum(dim=1)
    headings = torch.randn(batch, frames, 1, generator=rng).mul(0.4).cumsum(dim=1)
    poses = torch.cat([places, headings.cos(), headings.sin()], dim=-1)
    return poses, torch.randn(batch, frames, *SHAPE, generator=rng).half().float()


def likeness(memory: Recall, some: Tensor, others: Tensor) -> Tensor:
    """The mean of Gaussians of the distance, pair by pair."""
    apart = (some.double()[:, None] - others.double()).norm(dim=-1)
    return torch.stack([torch.exp(-((apart / width) ** 2) / 2) for width in memory.widths]).mean(dim=0)


def direct(memory: Recall, seen: Tensor, latents: Tensor, noise: Tensor, poses: Tensor) -> tuple[Tensor, Tensor]:
    """What is recalled of poses (S, 4) in one world, and its novelty, from all frames at once, in float64."""
    solved = torch.linalg.inv(likeness(memory, seen, seen) + memory.ridge * torch.diag(noise.double()))
    to_them = likeness(memory, poses, seen)
    recalled = to_them @ solved @ latents.double().flatten(1)
    return recalled.float().unflatten(1, SHAPE), (1 - (to_them @ solved * to_them).sum(dim=1)).float()


@pytest.mark.parametrize("chunk", [1, 5])
def test_it_is_what_solving_everything_at_once_gives(chunk: int) -> None:
    """As long as all frames are among the nearest."""
    memory, (poses, latents) = recall(), walk(NEAREST)
    half, noise = NEAREST // 2, torch.tensor([1.0] * (NEAREST // 2) + [4.0] * (NEAREST // 2))
    _, state = memory(memory.initial_state(2), poses[:, :half], latents[:, :half], chunk)
    _, state = memory(state, poses[:, half:], latents[:, half:], chunk, noise=4.0)
    asked = poses + 0.05
    found = memory.read(state, asked, NEAREST)
    for world in range(2):
        expected, novelty = direct(memory, poses[world], latents[world], noise, asked[world])
        torch.testing.assert_close(found.latents[world], expected, **EXACT)
        torch.testing.assert_close(found.novelty[world], novelty, **EXACT)


@pytest.mark.parametrize("chunk", [1, 5])
@pytest.mark.parametrize("frames", [30, 400])
def test_each_chunk_is_recalled_from_those_before_it_alone(chunk: int, frames: int) -> None:
    """Also from so many that only the nearest are asked: the others tell next to nothing."""
    memory, (poses, latents) = recall(512), walk(frames, batch=1)
    found, _ = memory(memory.initial_state(1), poses, latents, chunk)
    for start in (*range(0, 30, chunk), frames - chunk):
        rows, noise = slice(start, start + chunk), torch.ones(start)
        expected, novelty = direct(memory, poses[0, :start], latents[0, :start], noise, poses[0, rows])
        torch.testing.assert_close(found.latents[0, rows], expected, **(EXACT if frames <= NEAREST else NEAR))
        torch.testing.assert_close(found.novelty[0, rows], novelty, **(EXACT if frames <= NEAREST else NEAR))


@pytest.mark.parametrize("pieces", [[10, 90], [5, 5, 90], [100]])
def test_a_clip_in_pieces_is_the_whole(pieces: list[int]) -> None:
    """Also where the memory is full after 60 frames."""
    memory, (poses, latents) = recall(60), walk(100)
    whole, end = memory(memory.initial_state(2), poses, latents, 5)
    state, start = memory.initial_state(2), 0
    for count in pieces:
        rows = slice(start, start + count)
        part, state = memory(state, poses[:, rows], latents[:, rows], 5)
        assert torch.equal(part.latents, whole.latents[:, rows])
        assert torch.equal(part.novelty, whole.novelty[:, rows])
        start += count
    assert all(torch.equal(state[name], end[name]) for name in end)


@pytest.mark.parametrize("noise", [1.0, 4.0, torch.linspace(1.0, 8.0, 400).reshape(2, 200)])
@pytest.mark.parametrize("chunk", [1, 5])
def test_a_clip_from_nothing_needs_no_memory_at_its_end(chunk: int, noise: float | Tensor) -> None:
    memory, (poses, latents) = recall(256), walk(200)
    poses[1, 7:12] = torch.nan
    expected, _ = memory(memory.initial_state(2), poses, latents, chunk, noise)
    found = memory.of_clip(poses, latents, chunk, noise)
    torch.testing.assert_close(found.latents, expected.latents, **NEAR)
    torch.testing.assert_close(found.novelty, expected.novelty, **NEAR)


def test_long_clips_are_read_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    memory, (poses, latents) = recall(), walk(60)
    _, state = memory(memory.initial_state(2), poses, latents, 5)
    whole = memory.read(state, poses, 60)
    monkeypatch.setattr("lssvwm_core.model.recall.READ_FRAMES", 7)
    parts = memory.read(state, poses, 60)
    torch.testing.assert_close(parts.latents, whole.latents, **EXACT)


def test_what_was_seen_comes_back_and_what_was_not_is_new() -> None:
    memory, (poses, latents) = recall(256), walk(50)
    _, state = memory(memory.initial_state(2), poses, latents, 5)
    there = memory.read(state, poses, 50)
    assert (there.latents - latents).square().mean() < 0.01
    assert there.novelty.max() < 0.1
    assert there.certainty(memory.ridge).min() > 0.9
    elsewhere = memory.read(state, poses + torch.tensor([100.0, 0, 0, 0]), 50)
    assert elsewhere.novelty.min() == 1
    assert elsewhere.certainty(memory.ridge).max() == 0


def test_however_much_was_seen_a_new_place_is_new() -> None:
    """Where all places pass for known, a world shows a mixture of all of them."""
    memory, (poses, latents) = recall(4096), walk(4000, batch=1)
    poses[..., :2] = poses[..., :2].abs()
    _, state = memory(memory.initial_state(1), poses, latents, 5)
    elsewhere = memory.read(state, poses[:, ::40] * torch.tensor([-1.0, -1.0, 1.0, 1.0]) - 1, 100)
    assert elsewhere.novelty.min() > 0.9
    assert elsewhere.latents.abs().max() < 0.5


def test_unknown_poses_are_neither_recalled_nor_remembered() -> None:
    memory, (poses, latents) = recall(), walk(20)
    blind = poses.clone()
    blind[:, 5:15] = torch.nan
    found, state = memory(memory.initial_state(2), blind, latents, 5)
    assert (found.novelty[:, 5:15] == 1).all()
    assert (found.latents[:, 5:15] == 0).all()
    seen = [*range(5), *range(15, 20)]
    _, expected = memory(memory.initial_state(2), poses[:, seen], latents[:, seen], 5)
    assert all(torch.equal(state[name], expected[name]) for name in state)
    nothing, unchanged = memory(state, None, latents, 5)
    assert (nothing.novelty == 1).all()
    assert all(torch.equal(unchanged[name], state[name]) for name in state)
    some = poses.clone()
    some[0] = torch.nan  # in one of the worlds alone
    _, one = memory(memory.initial_state(2), some, latents, 5)
    assert one["kept"].tolist() == [0, 20]


def test_certainty_does_not_fall_over_a_hundred_thousand_writes() -> None:
    """In a world that is smaller than the memory; and what is recalled stays what a direct solve of it gives."""
    memory = Recall(2, SHAPE, 4096, (0.3, 3.0))
    rng = torch.Generator().manual_seed(1)
    places = torch.rand(1, 8, 2, generator=rng)
    state, before = memory.initial_state(1), torch.ones(1, 8)
    poses, latents = torch.rand(1, 100_000, 2, generator=rng), torch.randn(1, 100_000, *SHAPE, generator=rng)
    for start in range(0, 100_000, 10_000):
        rows = slice(start, start + 10_000)
        _, state = memory(state, poses[:, rows], latents[:, rows].half().float(), 50)
        novelty = memory.read(state, places, 8).novelty
        assert (novelty <= before + 1e-3).all()
        before = novelty
    kept = int(state["kept"][0])
    assert kept < 4096  # the rest was known
    seen, written = state["poses"][0, :kept], state["latents"][0, :kept].float().unflatten(1, SHAPE)
    _, left = direct(memory, seen, written, torch.ones(kept), places[0])
    torch.testing.assert_close(novelty[0], left, atol=2e-3, rtol=0)


def test_the_oldest_make_room_and_the_others_stay() -> None:
    memory, (poses, latents) = recall(40), walk(100)
    _, state = memory(memory.initial_state(2), poses, latents, 5)
    assert state["kept"].tolist() == [100, 100]
    assert memory.read(state, poses[:, 60:], 40).novelty.max() < 0.01
    _, expected = memory(memory.initial_state(2), poses[:, 60:], latents[:, 60:], 5)
    found, same = memory.read(state, poses, 100), memory.read(expected, poses, 100)
    torch.testing.assert_close(found.latents, same.latents, **EXACT)


def test_who_stands_still_forgets_nothing() -> None:
    memory, (poses, latents) = recall(60), walk(50)
    _, state = memory(memory.initial_state(2), poses, latents, 5)
    still, seen = poses[:, -1:].expand(-1, 500, -1), latents[:, -1:].expand(-1, 500, -1, -1, -1)
    _, state = memory(state, still, seen, 5, noise=4.0)
    assert state["kept"].tolist() == [50, 50]
    _, state = memory(state, still + 100, seen, 5, noise=4.0)  # at a new place one chunk tells something
    assert state["kept"].tolist() == [55, 55]
    assert memory.read(state, poses, 50).novelty.max() < 0.01


@pytest.mark.parametrize("ridge", [1e-4, 0.1, 2.0])
@pytest.mark.parametrize("noise", [1.0, 4.0])
def test_one_look_is_kept_and_the_same_again_is_not_whatever_is_smoothed(ridge: float, noise: float) -> None:
    memory, (poses, latents) = Recall(4, SHAPE, 16, ridge=ridge), walk(1)
    _, once = memory(memory.initial_state(2), poses, latents, 1, noise)
    _, again = memory(once, poses, latents, 1, noise)
    assert once["kept"].tolist() == again["kept"].tolist() == [1, 1]


def test_what_a_world_made_counts_for_less_than_what_was_recorded() -> None:
    memory, (poses, latents) = recall(), walk(1)
    made = memory(memory.initial_state(2), poses, -latents, 1, noise=4.0)[1]
    seen = memory(made, poses, latents, 1)[1]
    assert seen["kept"].tolist() == [2, 2]  # what is recorded is worth keeping where it was made up before
    assert ((memory.read(seen, poses, 1).latents * latents).sum(dim=(1, 2, 3, 4)) > 0).all()
    recorded = memory(memory.initial_state(2), poses, latents, 1)[1]
    after = memory(recorded, poses, -latents, 1, noise=4.0)[1]
    assert ((memory.read(after, poses, 1).latents * latents).sum(dim=(1, 2, 3, 4)) > 0).all()


def test_a_state_is_left_as_it_was() -> None:
    memory, (poses, latents) = recall(30), walk(40)
    _, state = memory(memory.initial_state(2), poses[:, :20], latents[:, :20], 5)
    before = {name: tensor.clone() for name, tensor in state.items()}
    memory(state, poses[:, 20:], latents[:, 20:], 5)
    assert all(torch.equal(state[name], before[name]) for name in state)


def test_two_poses_are_alike_by_their_distance() -> None:
    memory = Recall(2, SHAPE, 8, (0.1, 1.0))
    gram = memory.gram(torch.tensor([[0.0, 0.0], [0.05, 0.0], [0.0, 0.5], [9.0, 9.0], [torch.nan, 0.0]]))
    assert gram[0, 0] == 1
    assert gram[0, 1] > gram[0, 2] > gram[0, 3]
    assert gram[0, 3] < 1e-12
    assert (gram[4] == 0).all()
    closed = math.exp(-0.5 * (0.5 / memory.widths[0]) ** 2)
    assert gram[0, 2] > closed / len(memory.widths)
    assert torch.linalg.eigvalsh(memory.gram(torch.rand(200, 2))).min() > -1e-9
