"""Clips: the right rows, folded and reversed walks, unknown actions, the same batch every time."""

from pathlib import Path

import numpy as np
import pytest
import torch

from lssvwm_core.training.data.clips import Batch, ClipDataset, ClipSampling
from lssvwm_datasets.errors import LssvwmError
from lssvwm_datasets.shards import ShardSet, open_shards

NOTHING = ClipSampling(fold=0, reverse=0, drop_action=0, drop_pose=0)
STREAMS = ("action", "pose")


@pytest.fixture(scope="module")
def shards(workspace: Path) -> ShardSet:
    return open_shards(workspace / "data/maze", "train")


def clips(shards: ShardSet, sampling: ClipSampling, frames: int = 20, **options: int) -> ClipDataset:
    return ClipDataset(shards, STREAMS, sampling, [(50, 3, frames)], seed=1, **options)


def place_in(shards: ShardSet, poses: torch.Tensor) -> tuple[int, int]:
    """Episode and frame at which a clip of poses begins."""
    for number, episode in enumerate(shards.episodes):
        stored = torch.from_numpy(shards.read(episode, "poses"))
        starts = (stored == poses[0]).all(dim=1).nonzero().flatten().tolist()
        for start in starts:
            if torch.equal(stored[start : start + len(poses)], poses):
                return number, start
    raise AssertionError("the clip is in no episode")


def test_clip_is_a_stretch_of_an_episode(shards: ShardSet) -> None:
    batch = clips(shards, NOTHING)[0]
    assert batch["latents"].shape == (3, 20, *shards.header.latent_shape)
    for latents, actions, poses in zip(batch["latents"], *(batch["conditions"][s] for s in STREAMS), strict=True):
        number, start = place_in(shards, poses)
        rows = (start, start + 20)
        stored = {name: shards.read(shards.episodes[number], name, *rows) for name in ("latents", "actions")}
        assert latents.dtype == torch.float16
        np.testing.assert_array_equal(latents, stored["latents"])
        np.testing.assert_array_equal(actions, stored["actions"])


def test_batches_depend_on_seed_item_and_process_alone(shards: ShardSet) -> None:
    first, again, other = (
        clips(shards, ClipSampling()),
        clips(shards, ClipSampling()),
        clips(shards, NOTHING, process=1),
    )
    again[3]  # the order of reading does not matter
    assert torch.equal(first[7]["latents"], again[7]["latents"])
    assert not torch.equal(first[7]["latents"], first[8]["latents"])
    assert not torch.equal(clips(shards, NOTHING)[7]["latents"], other[7]["latents"])


def test_processes_share_out_the_clips_of_one(shards: ShardSet) -> None:
    """Two processes with two clips each have the four clips of one."""

    def batches(size: int, process: int) -> ClipDataset:
        return ClipDataset(shards, STREAMS, ClipSampling(), [(60, size, 20)], seed=0, process=process)

    one, halves = batches(4, 0)[5], [batches(2, process)[5] for process in (0, 1)]
    assert torch.equal(one["latents"], torch.cat([half["latents"] for half in halves]))
    assert torch.equal(one["numbers"], torch.cat([half["numbers"] for half in halves]))
    for stream in STREAMS:
        parts = torch.cat([half["conditions"][stream] for half in halves])
        torch.testing.assert_close(one["conditions"][stream], parts, equal_nan=True, rtol=0, atol=0)


def test_a_batch_holds_the_streams_whole_too(shards: ShardSet) -> None:
    dropping, plain = (ClipSampling(fold=0, reverse=0, drop_action=drop, drop_pose=drop) for drop in (1, 0))
    dropped = clips(shards, dropping)[3]
    assert dropped["conditions"]["pose"].isnan().any()
    for stream in STREAMS:
        told, whole = dropped["conditions"][stream], dropped["whole"][stream]
        torch.testing.assert_close(whole, clips(shards, plain)[3]["whole"][stream], equal_nan=True, rtol=0, atol=0)
        known = ~told.isnan()
        assert torch.equal(told[known], whole[known])
    assert not dropped["whole"]["pose"].isnan().any()


def folds(batch: Batch) -> list[int]:
    """How many frames each clip walks out before it walks back along the same poses."""
    places = []
    for latents, poses in zip(batch["latents"], batch["conditions"]["pose"], strict=True):
        frames = len(poses)
        candidates = range(frames // 2, 4 * frames // 5 + 1)
        (place,) = (k for k in candidates if torch.equal(poses[k:], poses[2 * k - frames : k].flip(0)))
        assert torch.equal(latents[place:], latents[2 * place - frames : place].flip(0))
        places.append(place)
    return places


def test_folded_clips_walk_back_with_unknown_actions(shards: ShardSet) -> None:
    batches = clips(shards, ClipSampling(fold=1, reverse=0, drop_action=0))
    found = set()
    for number in range(12):
        batch = batches[number]
        for place, actions in zip(folds(batch), batch["conditions"]["action"], strict=True):
            found.add(place)
            assert not actions[:place].isnan().any()
            assert actions[place:].isnan().all()
    assert len(found) > 3, "folded at different places"


def test_clips_reversed_and_then_folded_know_the_actions_of_the_way_forth(shards: ShardSet) -> None:
    batch = clips(shards, ClipSampling(fold=1, reverse=1, drop_action=0))[0]
    for place, actions in zip(folds(batch), batch["conditions"]["action"], strict=True):
        unknown = actions.isnan().all(dim=-1)
        assert unknown[: place + 1].all(), "backwards, then the turn"
        assert not unknown[place + 1 :].any()


def test_reversed_clips_know_no_action(shards: ShardSet) -> None:
    batch = clips(shards, ClipSampling(fold=0, reverse=1, drop_action=0, drop_pose=0))[0]
    assert batch["conditions"]["action"].isnan().all()
    for poses in batch["conditions"]["pose"]:
        place_in(shards, poses.flip(0))


def test_streams_are_dropped_to_the_end(shards: ShardSet) -> None:
    batches = clips(shards, ClipSampling(fold=0, reverse=0, drop_action=1, drop_pose=1))
    unknown = torch.cat([batches[k]["conditions"]["pose"].isnan().all(dim=-1) for k in range(10)])  # (clips, T)
    assert unknown[:, -1].all()
    assert (unknown.int().diff(dim=1) >= 0).all(), "once unknown, unknown to the end"
    assert unknown.all(dim=1).any()
    assert not unknown.all(dim=1).all()


def test_every_start_is_drawn(shards: ShardSet) -> None:
    longest = max(episode.length for episode in shards.episodes)
    dataset = ClipDataset(shards, STREAMS, NOTHING, [(60, 4, longest - 1)], seed=0)
    starts = {place_in(shards, poses)[1] for k in range(10) for poses in dataset[k]["conditions"]["pose"]}
    assert starts == {0, 1}


def test_clips_longer_than_every_episode_are_folded(shards: ShardSet) -> None:
    longest = max(episode.length for episode in shards.episodes)
    batch = clips(shards, ClipSampling(fold=1e-9, reverse=0), frames=2 * longest - 2)[0]
    assert set(folds(batch)) <= {longest - 1, longest}


def test_clips_longer_than_every_episode_are_refused(shards: ShardSet) -> None:
    with pytest.raises(LssvwmError, match="the longest episode has 501 frames, clips of 600 are asked"):
        clips(shards, NOTHING, frames=600)
