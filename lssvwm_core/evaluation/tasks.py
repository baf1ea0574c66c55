"""The paper's tasks and the full turn: what a world sees, what it must generate, what that is compared with."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lssvwm_core.episodes import EncodedEpisode
from lssvwm_core.world import World
from lssvwm_datasets.errors import LssvwmError
from lssvwm_datasets.memory_maze.explorer import TURN_PER_STEP

HEADING = ("cos", "sin")  # pose columns
PLACE = ("x", "y")
SIMILAR_HEADING = np.cos(np.radians(45))
TURN = "left"  # action column
FULL_TURN = round(math.tau / TURN_PER_STEP)  # frames


@dataclass(frozen=True)
class Task:
    """`context` frames of a recording, then `frames` to generate, led by the conditions."""

    name: str
    context: int
    frames: int

    @property
    def back(self) -> bool:
        """Retrieval: the walk goes back along the context's poses, so that the truth is the context reversed."""
        return self.name == "retrieval"

    @property
    def turns(self) -> bool:
        """A full turn on the spot by actions alone: the last frame should show again what the context ended with."""
        return self.name == "turn"

    def order(self) -> NDArray[np.intp]:
        """(context + frames,) the recorded frame that each frame of the task shows."""
        if self.back:
            forth = np.arange(self.context)
            return np.concatenate([forth, forth[::-1]])[: self.context + self.frames]
        if self.turns:
            return np.minimum(np.arange(self.context + self.frames), self.context - 1)
        return np.arange(self.context + self.frames)

    def check(self, world: World, streams: tuple[str, ...]) -> None:
        """Raises: LssvwmError when the task's lengths do not fit, or the data cannot be walked back."""
        if self.context < world.chunk or self.context % world.chunk or self.frames < 1:
            raise LssvwmError(
                f"--context {self.context} --frames {self.frames}: expected a context of a multiple of the chunk, "
                f"{world.chunk}, and at least one frame to generate"
            )
        if self.turns and (TURN not in world.header.action_names or "action" not in streams):
            raise LssvwmError(
                f"a turn needs the action {TURN!r} among --conditions; the world has {world.header.action_names}"
            )
        if self.turns and self.frames % FULL_TURN:
            raise LssvwmError(f"--frames {self.frames}: a full turn takes {FULL_TURN}")
        if not self.back:
            return
        if not world.header.pose_names:
            raise LssvwmError(
                f"retrieval on {world.header.dataset}: its recordings have no poses, and actions cannot be walked back "
                "(what they did to the world is not undone); try: lssvwm eval reasoning --context 100 --frames 50"
            )
        if "pose" not in streams:
            raise LssvwmError("retrieval leads the world back by poses; leave them in --conditions")
        if self.frames > self.context:
            raise LssvwmError(
                f"--frames {self.frames}: the way back from {self.context} frames of --context is shorter"
            )


TASKS = {
    task.name: task
    for task in (
        Task("retrieval", 400, 400),
        Task("reasoning", 576, 224),
        Task("long", 240, 560),
        Task("turn", 100, FULL_TURN),
    )
}


@dataclass(frozen=True)
class Trial:
    """A task on one episode; N frames are generated.

    Attributes:
        conditions: (context + N, columns) of each stream; the last row is repeated up to a multiple of the chunk.
        truth: (N, H, W, 3) exact frames, decoded latents where the shards keep none (`exact` tells).
        distance: (N,) frames since the same place was seen in the context; NaN where it was not.
    """

    number: int
    id: str
    context: Tensor  # latents (context, C, h, w)
    conditions: dict[str, Tensor]
    truth_latents: Tensor  # (N, C, h, w)
    truth: NDArray[np.uint8]
    context_frames: NDArray[np.uint8]
    distance: NDArray[np.float64]
    places_known: bool
    exact: bool


def make_trial(task: Task, number: int, episode: EncodedEpisode, world: World, streams: tuple[str, ...]) -> Trial:
    """`episode` has at least as many frames as the task shows."""
    order = task.order()
    steps = np.diff(order, prepend=-1)
    actions = episode.actions[order]
    actions[steps != 1] = np.nan  # as in training: only a step forward in time has its action
    poses = None if episode.poses is None else episode.poses[order]
    if task.turns:
        actions[task.context :] = [name == TURN for name in world.header.action_names]
        poses = None if poses is None else np.full_like(poses, np.nan)
    rows = {"action": actions, "pose": poses}
    padding = -task.frames % world.chunk
    conditions = {}
    for name in streams:
        found = rows[name]
        if found is not None:
            conditions[name] = torch.from_numpy(np.pad(found, ((0, padding), (0, 0)), mode="edge"))
    latents = torch.from_numpy(episode.latents[: order.max() + 1]).float()
    exact = episode.frames is not None
    frames = episode.frames if episode.frames is not None else world.decode(latents)
    ahead = order[task.context :]
    distance = np.full(task.frames, np.nan)
    known = task.back or task.turns
    if known:
        distance = np.arange(task.context, task.context + task.frames) - ahead.astype(float)
    elif episode.poses is not None and set(PLACE + HEADING) <= set(world.header.pose_names):
        distance, known = distance_to_seen(episode.poses, world.header.pose_names, task.context, task.frames), True
    return Trial(
        number,
        episode.id,
        latents[: task.context],
        conditions,
        latents[ahead],
        frames[ahead],
        frames[: task.context],
        distance,
        known,
        exact,
    )


def distance_to_seen(
    poses: NDArray[np.float32], names: tuple[str, ...], context: int, frames: int
) -> NDArray[np.float64]:
    """(frames,) how many frames ago each place was last seen in the context; NaN for places that were not.

    A place was seen when a frame of the context stood in the same cell of the maze (the same whole part of x and y)
    with a heading within 45 degrees.
    """
    columns = [names.index(name) for name in PLACE + HEADING]
    x, y, cos, sin = (poses[: context + frames, column] for column in columns)
    before, after = slice(context), slice(context, None)
    same = (np.floor(x[after, None]) == np.floor(x[before])) & (np.floor(y[after, None]) == np.floor(y[before]))
    same &= cos[after, None] * cos[before] + sin[after, None] * sin[before] >= SIMILAR_HEADING
    latest = np.where(same, np.arange(context), -1).max(axis=1)
    return np.where(latest < 0, np.nan, np.arange(context, context + frames) - latest)
