"""Retrieval (paper, 'Long-term memory'): back along the context's poses; the truth is the context reversed."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import NDArray

from lssvwm_core.episodes import EncodedEpisode
from lssvwm_core.evaluation.tasks.task import Task, quarters
from lssvwm_datasets.errors import LssvwmError

if TYPE_CHECKING:
    from lssvwm_core.world import World


@dataclass(frozen=True)
class Retrieval(Task):
    name: str = "retrieval"
    context: int = 400
    frames: int = 400

    about: ClassVar[str] = (
        "the world sees the context, then is led back along exactly the same poses; the truth is the context, reversed"
    )

    def default_frames(self) -> int:
        return self.context

    def order(self) -> NDArray[np.intp]:
        forth = np.arange(self.context)
        return np.concatenate([forth, forth[::-1]])[: self.context + self.frames]

    def check(self, world: "World", streams: tuple[str, ...]) -> None:
        super().check(world, streams)
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

    def distance(self, episode: EncodedEpisode, world: "World") -> NDArray[np.float64]:
        return np.arange(self.context, self.context + self.frames) - self.order()[self.context :].astype(float)

    def parts(self, distance: NDArray[np.float64], known: bool) -> dict[str, NDArray[np.bool_]]:
        """The quarters of the way back."""
        return quarters(self.frames, distance.shape)
