"""A full turn on the spot by actions alone: the last frame should show again what the context ended with."""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import NDArray

from lssvwm_core.episodes import EncodedEpisode
from lssvwm_core.evaluation.tasks.task import Rows, Task
from lssvwm_datasets.environment import Environment, FullTurn
from lssvwm_datasets.environments import environment_of
from lssvwm_datasets.errors import LssvwmError

if TYPE_CHECKING:
    from lssvwm_core.world import World


@dataclass(frozen=True)
class Turn(Task):
    name: str = "turn"
    context: int = 100
    frames: int = 0
    """0: a full turn of the world's environment; see `for_world`."""

    about: ClassVar[str] = (
        "after the context the world is turned once around, told actions only, no poses; the truth is the view that "
        "the context ended with"
    )

    def for_world(self, world: "World") -> "Turn":
        return self if self.frames else replace(self, frames=_full_turn(world).frames)

    def order(self) -> NDArray[np.intp]:
        return np.minimum(np.arange(self.context + self.frames), self.context - 1)

    def check(self, world: "World", streams: tuple[str, ...]) -> None:
        turn = _full_turn(world)
        super().check(world, streams)
        if "action" not in streams:
            raise LssvwmError(f"a turn needs the action {turn.move!r} among --conditions; there are {streams}")
        if self.frames % turn.frames:
            raise LssvwmError(f"--frames {self.frames}: a full turn takes {turn.frames}")

    def lead(self, rows: Rows, world: "World", episode: EncodedEpisode) -> Rows:
        environment = _environment(world)
        turning = environment.move_rows[environment.move_names.index(_full_turn(world).move)]
        rows = {name: found if name == "action" else np.full_like(found, np.nan) for name, found in rows.items()}
        rows["action"][self.context :] = turning
        return rows

    def distance(self, episode: EncodedEpisode, world: "World") -> NDArray[np.float64]:
        return np.arange(1, self.frames + 1, dtype=np.float64)

    def judged(self) -> NDArray[np.bool_]:
        return np.arange(self.frames) == self.frames - 1

    def parts(self, distance: NDArray[np.float64], known: bool) -> dict[str, NDArray[np.bool_]]:
        return {}


def _full_turn(world: "World") -> FullTurn:
    """Raises: LssvwmError where nobody knows how the world's agent turns around."""
    turn = _environment(world).full_turn
    assert turn is not None  # as `_environment` makes sure
    return turn


def _environment(world: "World") -> Environment:
    """That of the world, which can turn on the spot. Raises: LssvwmError where there is none."""
    environment = environment_of(world.header)
    if environment is None or environment.full_turn is None:
        raise LssvwmError(
            f"{world.header.dataset}: no environment that can turn on the spot has the actions "
            f"{', '.join(world.header.action_names)}; try: lssvwm eval reasoning"
        )
    return environment
