"""Clips for training. A clip is a function of (seed, item, its number in the item's batch over all processes).

So there is no position to save, and two processes with half a batch each see what one process with a whole one sees.
A batch is `latents` (B, T, C, h, w) float16, as they are stored, `conditions`, a (B, T, columns) float32 tensor for
each stream, with rows of NaN where a condition is unknown (dropped, or an action on a reversed stretch), `whole`, the
same with nothing dropped, and the `numbers` (B,) of its clips.
"""

from dataclasses import dataclass
from typing import Any, TypedDict

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from lssvwm_core.conditions import Conditions
from lssvwm_core.presets import Share
from lssvwm_datasets.errors import LssvwmError
from lssvwm_datasets.shards import ShardSet, StoredEpisode
from lssvwm_datasets.streams import STREAMS, Stream


class Batch(TypedDict):
    latents: Tensor
    conditions: Conditions
    whole: Conditions
    numbers: Tensor


LATEST_FOLD = 0.8  # of a clip; the earliest is at half of it, from where on frames may be noised after a clean prefix


@dataclass(frozen=True)
class ClipSampling:
    """How clips are cut from episodes.

    In a static world a walk can be walked back, so pose-conditioned clips may be reversed, or folded: out and back
    along the same poses, the paper's retrieval task. Reversed actions are unknown: no action of the maze walks back.
    """

    fold: Share = 0.75
    """Probability that a clip is folded (recordings with poses only): memory is learnt on them (docs/memory.md).

    Above 0, clips that are longer than the longest episode are folded always, up to twice its length.
    """
    reverse: Share = 0.25
    """Probability that a clip, folded or not, is reversed (recordings with poses only)."""
    drop_action: Share = 0.2
    """Probability that the action stream is dropped, for the whole clip or from a random frame on."""
    drop_pose: Share = 0.2
    """The same for the pose stream; folded clips keep theirs."""

    def drop(self, stream: Stream) -> float:
        """Probability that a stream is dropped: a setting of action and pose, of further streams what they declare."""
        return {"action": self.drop_action, "pose": self.drop_pose}.get(stream.name, stream.drop)


@dataclass(frozen=True)
class _Clip:
    latents: NDArray[Any]
    told: dict[str, NDArray[np.float32]]
    whole: dict[str, NDArray[np.float32]]


class ClipDataset(Dataset[Batch]):
    """Item k is the k-th batch of this process.

    Args:
        shards: the train split.
        streams: names of the model's condition streams, in the order of `STREAMS`.
        shapes: the batch size and frames of each item, as (last item + 1, batch size, frames), in order.
        process: the rank of this process: it has the clips from process · (batch size) on.
    """

    def __init__(
        self,
        shards: ShardSet,
        streams: tuple[str, ...],
        sampling: ClipSampling,
        shapes: list[tuple[int, int, int]],
        seed: int,
        process: int = 0,
    ) -> None:
        self.shards, self.streams, self.sampling, self.shapes = shards, streams, sampling, shapes
        self.seed, self.process = seed, process
        self.lengths = np.array([episode.length for episode in shards.episodes])
        longest = max(frames for _, _, frames in shapes)
        there = int(self.lengths.max())
        if longest > (2 * there if "pose" in streams and sampling.fold > 0 else there):
            raise LssvwmError(
                f"{shards.folder}: the longest episode has {there} frames, clips of {longest} are asked for; shorten "
                "them with --clip-frames"
            )

    def __len__(self) -> int:
        return self.shapes[-1][0]

    def __getitem__(self, item: int) -> Batch:
        batch_size, frames = next((b, t) for end, b, t in self.shapes if item < end)
        numbers = range(self.process * batch_size, (self.process + 1) * batch_size)
        clips = [self._clip(frames, np.random.default_rng([self.seed, item, number])) for number in numbers]
        return {
            "latents": torch.from_numpy(np.stack([clip.latents for clip in clips])),
            "conditions": Conditions({name: np.stack([clip.told[name] for clip in clips]) for name in self.streams}),
            "whole": Conditions({name: np.stack([clip.whole[name] for clip in clips]) for name in self.streams}),
            "numbers": torch.tensor(numbers),
        }

    def _clip(self, frames: int, rng: np.random.Generator) -> "_Clip":
        has_poses = "pose" in self.streams
        longest = int(self.lengths.max())
        folded = has_poses and (rng.random() < self.sampling.fold or frames > longest)
        latest_fold = min(int(LATEST_FOLD * frames), longest)
        span = int(rng.integers(-(-frames // 2), latest_fold + 1)) if folded else frames
        starts = np.maximum(self.lengths - span + 1, 0).cumsum()
        drawn = int(rng.integers(starts[-1]))
        number = int(np.searchsorted(starts, drawn, side="right"))
        start = drawn - (int(starts[number - 1]) if number else 0)
        order = np.arange(span)
        if has_poses and rng.random() < self.sampling.reverse:
            order = order[::-1]
        if folded:
            order = np.concatenate([order, order[::-1]])[:frames]

        episode = self.shards.episodes[number]
        clip = _Clip(self._rows(episode, "latents", start, span)[order], {}, {})
        steps = np.diff(order, prepend=2 * order[0] - order[1])  # the first frame is reached as the second is
        for name in self.streams:
            stream = STREAMS[name]
            rows = self._rows(episode, stream.stored, start, span)[order]
            if stream.of_steps:
                rows[steps != 1] = np.nan  # only a step forward in time has its action
            clip.whole[name] = rows.copy()
            self._drop(rows, 0.0 if folded and stream.kept_in_folds else self.sampling.drop(stream), rng)
            clip.told[name] = rows
        return clip

    @staticmethod
    def _drop(rows: NDArray[np.float32], probability: float, rng: np.random.Generator) -> None:
        first = 0 if rng.random() < 0.5 else int(rng.integers(len(rows)))
        if rng.random() < probability:
            rows[first:] = np.nan

    def _rows(self, episode: StoredEpisode, name: str, start: int, count: int) -> NDArray[Any]:
        rows = self.shards.read(episode, name, start, start + count)
        if rows is None:
            raise LssvwmError(f"{episode.shard}: holds no {name}; the model needs them")
        return rows
