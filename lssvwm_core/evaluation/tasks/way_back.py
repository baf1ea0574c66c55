"""Out and back: does the world stay where it is? It walks into what nobody recorded, and back along the same poses."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import NDArray

from lssvwm_core.controls import RECORDED, Controls, plan_controls
from lssvwm_core.episodes import EncodedEpisode
from lssvwm_core.evaluation.tasks.task import Rows, Task, quarters
from lssvwm_core.video import Frames
from lssvwm_datasets.errors import LssvwmError

if TYPE_CHECKING:
    from lssvwm_core.world import World


@dataclass(frozen=True)
class WayBack(Task):
    """The way out is as recorded, then as the environment's explorer goes on; the way back is measured."""

    name: str = "return"
    context: int = 100
    frames: int = 300

    about: ClassVar[str] = (
        "after the context the world walks out, and back along the same poses; the way back is compared with what it "
        "showed on the way out, and with the recording's sharpness"
    )

    @property
    def generated(self) -> int:
        return 2 * self.frames

    @property
    def has_truth(self) -> bool:
        return False

    def compared(self, generated: Frames, truth: Frames) -> tuple[Frames, Frames]:
        return generated[self.frames :], generated[: self.frames][::-1]

    def order(self) -> NDArray[np.intp]:
        return np.minimum(np.arange(self.context + self.generated), self.context - 1)

    def check(self, world: "World", streams: tuple[str, ...]) -> None:
        super().check(world, streams)
        if "pose" not in streams:
            raise LssvwmError("return leads the world back by poses; leave them in --conditions")

    def lead(self, rows: Rows, world: "World", episode: EncodedEpisode) -> Rows:
        if episode.poses is None:
            raise LssvwmError(f"return on {world.header.dataset}: episode {episode.id} has no poses to walk back along")
        ahead = Controls(episode.actions[self.context :], episode.poses[self.context :])
        start = episode.poses[self.context - 1]
        out = plan_controls(RECORDED, self.frames, world.header, start, episode.layout, 0, ahead)
        if not np.isfinite(out.poses).all():
            raise LssvwmError(
                f"return on {world.header.dataset}: episode {episode.id} goes on for {len(ahead.poses)} frames after "
                f"the context, and where {self.frames} lead is not known; shorten --frames"
            )
        back = {"action": np.full_like(out.actions, np.nan), "pose": out.poses[::-1]}  # no action walks back
        led = {"action": out.actions, "pose": out.poses}
        unknown = {name: np.full_like(found[self.context :], np.nan) for name, found in rows.items() if name not in led}
        told = {name: np.concatenate([led[name], back[name]]) for name in led} | unknown
        return {name: np.concatenate([found[: self.context], told[name]]) for name, found in rows.items()}

    def distance(self, episode: EncodedEpisode, world: "World") -> NDArray[np.float64]:
        return 1 + 2 * np.arange(self.frames, dtype=np.float64)

    def parts(self, distance: NDArray[np.float64], known: bool) -> dict[str, NDArray[np.bool_]]:
        return quarters(self.frames, distance.shape)
