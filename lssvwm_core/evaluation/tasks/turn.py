"""A full turn on the spot by actions alone: the last frame should show again what the context ended with."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import NDArray

from lssvwm_core.episodes import EncodedEpisode
from lssvwm_core.evaluation.tasks.task import Rows, Task
from lssvwm_datasets.errors import LssvwmError
from lssvwm_datasets.memory_maze.explorer import TURN_PER_STEP

if TYPE_CHECKING:
    from lssvwm_core.world import World

TURN = "left"  # action column
FULL_TURN = round(math.tau / TURN_PER_STEP)  # frames


@dataclass(frozen=True)
class Turn(Task):
    name: str = "turn"
    context: int = 100
    frames: int = FULL_TURN

    about: ClassVar[str] = (
        "after the context the world is turned left once around, told actions only, no poses; the truth is the view "
        "that the context ended with"
    )

    def order(self) -> NDArray[np.intp]:
        return np.minimum(np.arange(self.context + self.frames), self.context - 1)

    def check(self, world: "World", streams: tuple[str, ...]) -> None:
        super().check(world, streams)
        if TURN not in world.header.action_names or "action" not in streams:
            raise LssvwmError(
                f"a turn needs the action {TURN!r} among --conditions; the world has {world.header.action_names}"
            )
        if self.frames % FULL_TURN:
            raise LssvwmError(f"--frames {self.frames}: a full turn takes {FULL_TURN}")

    def lead(self, rows: Rows, world: "World") -> Rows:
        rows["action"][self.context :] = [name == TURN for name in world.header.action_names]
        if "pose" in rows:
            rows["pose"] = np.full_like(rows["pose"], np.nan)
        return rows

    def distance(self, episode: EncodedEpisode, world: "World") -> NDArray[np.float64]:
        return np.arange(self.frames) + 1.0

    def judged(self) -> NDArray[np.bool_]:
        return np.arange(self.frames) == self.frames - 1

    def parts(self, distance: NDArray[np.float64], known: bool) -> dict[str, NDArray[np.bool_]]:
        return {}
