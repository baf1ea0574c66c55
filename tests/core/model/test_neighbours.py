"""Neighbours in the memory: the nearest landmarks and no others, what was seen from them, and where they lie."""

import math

import pytest
import torch
from torch import Tensor

from lssvwm_core.model.neighbours import NEW, Neighbours
from lssvwm_core.model.recall import Recall, RecallState, Recollection
from tests.core.model.test_recall import SHAPE, walk

K, CHUNK = 3, 5
NAMES = ("x", "y", "cos", "sin")


def memory(addresses: int = 64) -> Recall:
    torch.manual_seed(0)
    return Recall(4, SHAPE, addresses, neighbours=K)


def by_hand(recall: Recall, poses: Tensor, latents: Tensor) -> tuple[list[list[int]], list[Recollection]]:
    """Of one world, frame by frame: its nearest landmarks, searched one by one, and what is read from each of them."""
    state, kept = recall.initial_state(1), []
    chosen, read = [], []
    for start in range(0, poses.shape[1], CHUNK):
        rows = slice(start, start + CHUNK)
        for pose in poses[0, rows]:
            nearest = sorted(kept[-recall.addresses :], key=lambda one: float((poses[0, one] - pose).norm()))[:K]
            chosen.append(nearest if not pose.isnan().any() else [])
            read.append(recall.read(state, poses[:, chosen[-1]], len(chosen[-1])))
        found, state = recall(state, poses[:, rows], latents[:, rows], CHUNK)
        known = ~poses[0, rows].isnan().any(dim=-1)
        kept += [start + i for i in range(CHUNK) if known[i] and found.novelty[0, i] > NEW]
    return chosen, read


@pytest.mark.parametrize("addresses", [64, 10], ids=["all kept", "more than are kept"])
def test_the_nearest_landmarks_of_earlier_chunks_are_recalled(addresses: int) -> None:
    recall, (poses, latents) = memory(addresses), walk(60, batch=1)
    poses[:, 12:14] = torch.nan
    poses[:, 40:] = poses[:, 20:40] + 0.05
    chosen, read = by_hand(recall, poses, latents)
    found, _ = recall(recall.initial_state(1), poses, latents, CHUNK)
    of_clip = recall.of_clip(poses, latents, CHUNK)
    assert sum(map(len, chosen)) > 100
    for frame, (places, expected) in enumerate(zip(chosen, read, strict=True)):
        assert bool(found.places[0, frame, len(places) :].isnan().all())
        torch.testing.assert_close(found.places[0, frame, : len(places)], poses[0, places])
        for way in (found, of_clip):
            torch.testing.assert_close(way.neighbours[0, frame, : len(places)], expected.latents[0], atol=1e-4, rtol=0)
            assert bool((way.neighbours[0, frame, len(places) :] == 0).all())


@pytest.mark.parametrize("pieces", [[10, 50], [5, 5, 50], [30, 30]])
@pytest.mark.parametrize("addresses", [64, 10])
def test_a_clip_in_pieces_is_the_whole(pieces: list[int], addresses: int) -> None:
    recall, (poses, latents) = memory(addresses), walk(60)
    whole, end = recall(recall.initial_state(2), poses, latents, CHUNK)
    state, start = recall.initial_state(2), 0
    for count in pieces:
        rows = slice(start, start + count)
        part, state = recall(state, poses[:, rows], latents[:, rows], CHUNK)
        torch.testing.assert_close(part.places, whole.places[:, rows], equal_nan=True)
        torch.testing.assert_close(part.neighbours, whole.neighbours[:, rows], atol=1e-4, rtol=1e-4)
        start += count
    torch.testing.assert_close(state["landmarks"], end["landmarks"], equal_nan=True)


def test_reading_is_what_comes_before_writing() -> None:
    recall, (poses, latents) = memory(), walk(40)
    _, state = recall(recall.initial_state(2), poses[:, :35], latents[:, :35], CHUNK)
    read = recall.read(state, poses[:, 35:], CHUNK)
    written, _ = recall(state, poses[:, 35:], latents[:, 35:], CHUNK)
    torch.testing.assert_close(read.places, written.places, equal_nan=True)
    torch.testing.assert_close(read.neighbours, written.neighbours, atol=1e-5, rtol=1e-5)
    nothing = recall.read(recall.initial_state(2), poses[:, 35:], CHUNK)
    assert bool(nothing.places.isnan().all())
    assert bool((nothing.neighbours == 0).all())


def test_a_landmark_seen_once_comes_back_as_it_was() -> None:
    recall, (poses, latents) = memory(256), walk(20)
    _, state = recall(recall.initial_state(2), poses, latents, CHUNK)
    found = recall.read(state, poses, 20)
    nearest = found.places[:, :, 0]
    same = (nearest - poses).norm(dim=-1) == 0  # the frame itself is a landmark
    assert same.float().mean() > 0.5
    assert (found.neighbours[:, :, 0] - latents)[same].square().mean() < 0.01


def neighbours() -> Neighbours:
    torch.manual_seed(0)
    network = Neighbours(math.prod(SHAPE), (2, 1), 16, NAMES, ())
    torch.nn.init.normal_(network.tell.weight)
    return network


def test_where_a_neighbour_lies_does_not_depend_on_where_both_are() -> None:
    here = torch.tensor([[[1.0, 2.0, 0.0, 1.0]]])  # looks along y
    there = torch.tensor(
        [[[[1.0, 3.0, -1.0, 0.0], [0.0, 2.0, 0.0, 1.0]]]]
    )  # a step ahead, turned left; a step to the left
    seen = neighbours().seen_from(here, there)[0, 0]
    step = math.asinh(1)
    torch.testing.assert_close(seen, torch.tensor([[step, 0.0, 0.0, 1.0], [0.0, step, 1.0, 0.0]]))


def test_their_order_does_not_matter_and_those_that_are_none_say_nothing() -> None:
    network, (poses, latents) = neighbours(), walk(4)
    frames, places = latents[:, None].expand(-1, 2, -1, -1, -1, -1), poses[:, None].expand(-1, 2, -1, -1)
    own = poses[:, :2]
    told = network(frames, places, own)
    assert told.shape == (2, 2, 2, 1, 16)
    torch.testing.assert_close(network(frames.flip(2), places.flip(2), own), told)
    fewer = places.clone()
    fewer[:, :, 2:] = torch.nan
    torch.testing.assert_close(network(frames, fewer, own), network(frames[:, :, :2], places[:, :, :2], own))
    none = torch.full_like(places, torch.nan)
    assert bool((network(frames, none, own) == 0).all())


def test_the_state_says_what_it_holds() -> None:
    state: RecallState = memory().initial_state(2)
    assert state["landmarks"].shape == (2, 64, 4)
    assert "landmarks" not in Recall(4, SHAPE, 64).initial_state(2)
