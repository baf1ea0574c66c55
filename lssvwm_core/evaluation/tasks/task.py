"""What every task has in common, and the task on one episode: a trial."""

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lssvwm_core.conditions import Conditions
from lssvwm_core.episodes import EncodedEpisode
from lssvwm_core.video import Frames
from lssvwm_datasets.errors import LssvwmError
from lssvwm_datasets.poses import Plane, plane_of
from lssvwm_datasets.streams import STREAMS

if TYPE_CHECKING:
    from lssvwm_core.world import World

SIMILAR_HEADING = np.cos(np.radians(45))

Rows = dict[str, NDArray[np.float32]]  # (frames, columns) of each stream


@dataclass(frozen=True)
class Task:
    """`context` frames of a recording, then `frames` to generate, led by conditions; here the recording goes on."""

    name: str
    context: int
    frames: int

    about: ClassVar[str] = "the recording goes on after the context"

    def default_frames(self) -> int:
        """How many frames to generate where nobody says."""
        return self.frames

    def for_world(self, world: "World") -> "Task":
        """The task with the lengths that depend on the world. Raises: LssvwmError where it cannot do the task."""
        return self

    def order(self) -> NDArray[np.intp]:
        """(context + frames,) the recorded frame that each frame of the task shows."""
        return np.arange(self.context + self.frames)

    def check(self, world: "World", streams: tuple[str, ...]) -> None:
        """Check that a world can do it. Raises: LssvwmError when the lengths, the world or its data do not fit."""
        if self.context < 1 or self.frames < 1:
            raise LssvwmError(
                f"--context {self.context} --frames {self.frames}: expected at least one frame to see, and at least "
                "one to generate"
            )

    @property
    def generated(self) -> int:
        """Frames to generate; the last `frames` of them are measured."""
        return self.frames

    @property
    def has_truth(self) -> bool:
        """Whether the recording shows what is to be generated."""
        return True

    def compared(self, generated: Frames, truth: Frames) -> tuple[Frames, Frames]:
        """The frames that are measured, and what they are to look like, (frames, H, W, 3) each."""
        return generated, truth

    def lead(self, rows: Rows, world: "World", episode: EncodedEpisode) -> Rows:
        """What the world is told of each frame; `rows` are those recorded with the frames of `order`."""
        return rows

    def distance(self, episode: EncodedEpisode, world: "World") -> NDArray[np.float64] | None:
        """(frames,) frames since each place was seen in the context, NaN where it was not; None where nobody knows."""
        plane = plane_of(world.header.pose_names, world.header.pose_kinds)
        if episode.poses is None or plane is None:
            return None
        return distance_to_seen(episode.poses, plane, self.context, self.frames)

    def judged(self) -> NDArray[np.bool_]:
        """(frames,) which of the generated frames the means are taken over."""
        return np.ones(self.frames, bool)

    def parts(self, distance: NDArray[np.float64], known: bool) -> dict[str, NDArray[np.bool_]]:
        """Parts of the generated frames that get means of their own, as masks of the shape of `distance`.

        Args:
            distance: (rollouts, frames), as of `distance`.
            known: whether it is known for every rollout.
        """
        seen = np.isfinite(distance)
        return {"seen": seen, "unseen": ~seen} if known else {}


@dataclass(frozen=True)
class Trial:
    """A task on one episode; N frames are generated.

    Attributes:
        context: (context, C, h, w) latents.
        conditions: (1, context + N, columns) of each stream.
        truth: (N, H, W, 3) exact frames, decoded latents where the shards keep none (`exact` tells).
        distance: (N,) frames since the same place was seen in the context; NaN where it was not.
        nearest: (N,) how far the nearest pose of the context is, in units of the ground; NaN where nobody knows.
        places_known: whether the distances mean anything.
    """

    number: int
    id: str
    context: Tensor
    conditions: Conditions
    truth_latents: Tensor  # (N, C, h, w)
    truth: NDArray[np.uint8]
    context_frames: NDArray[np.uint8]
    distance: NDArray[np.float64]
    nearest: NDArray[np.float64]
    places_known: bool
    exact: bool


def make_trial(task: Task, number: int, episode: EncodedEpisode, world: "World", streams: tuple[str, ...]) -> Trial:
    """The task on an episode, which has at least as many frames as the task shows."""
    order = task.order()
    recorded = {name: episode.rows(name) for name in STREAMS}
    rows = {name: found[order] for name, found in recorded.items() if found is not None}
    for name, found in rows.items():
        if STREAMS[name].of_steps:
            found[np.diff(order, prepend=-1) != 1] = np.nan  # as in training: only a step forward in time has an action
    rows = task.lead(rows, world, episode)
    plane = plane_of(world.header.pose_names, world.header.pose_kinds)
    nearest = nearest_seen(rows["pose"], plane, task) if plane and "pose" in rows else np.full(task.frames, np.nan)
    latents = torch.from_numpy(episode.latents[: order.max() + 1]).float()
    frames = episode.frames if episode.frames is not None else world.decode(latents)
    ahead, distance = order[task.context :], task.distance(episode, world)
    return Trial(
        number=number,
        id=episode.id,
        context=latents[: task.context],
        conditions=Conditions({name: rows[name] for name in streams if name in rows}),
        truth_latents=latents[ahead],
        truth=frames[ahead],
        context_frames=frames[: task.context],
        distance=np.full(task.frames, np.nan) if distance is None else distance,
        nearest=nearest,
        places_known=distance is not None,
        exact=episode.frames is not None,
    )


def nearest_seen(poses: NDArray[np.float32], plane: Plane, task: Task) -> NDArray[np.float64]:
    """(frames,) how far the nearest pose of the context is: √(Δx² + Δy² + Δcos² + Δsin²); NaN for unknown poses."""
    placed = poses[:, [plane.x, plane.y, plane.cos, plane.sin]].astype(np.float64)
    before, after = placed[: task.context], placed[-task.frames :]
    before = before[np.isfinite(before).all(axis=1)]
    if not len(before):
        return np.full(task.frames, np.nan)
    return np.array([np.sqrt(np.square(before - pose).sum(axis=1).min()) for pose in after])


def quarters(frames: int, shape: tuple[int, ...]) -> dict[str, NDArray[np.bool_]]:
    """Masks of the quarters of the generated frames, for `Task.parts`."""
    number, edges = np.arange(frames), np.linspace(0, frames, 5).round().astype(int)
    return {
        f"quarter {k + 1}": np.broadcast_to((number >= first) & (number < last), shape)
        for k, (first, last) in enumerate(pairwise(edges))
    }


def distance_to_seen(poses: NDArray[np.float32], plane: Plane, context: int, frames: int) -> NDArray[np.float64]:
    """(frames,) how many frames ago each place was last seen in the context; NaN for places that were not.

    A place was seen when a frame of the context stood in the same cell (the same whole part of x and y, at any height)
    with a heading within 45 degrees.
    """
    x, y, cos, sin = (poses[: context + frames, column] for column in (plane.x, plane.y, plane.cos, plane.sin))
    before, after = slice(context), slice(context, None)
    same = (np.floor(x[after, None]) == np.floor(x[before])) & (np.floor(y[after, None]) == np.floor(y[before]))
    same &= cos[after, None] * cos[before] + sin[after, None] * sin[before] >= SIMILAR_HEADING
    latest = np.where(same, np.arange(context), -1).max(axis=1)
    return np.where(latest < 0, np.nan, np.arange(context, context + frames) - latest)
