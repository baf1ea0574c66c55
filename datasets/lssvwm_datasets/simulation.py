"""What an environment offers to agents that act in it for real; with the map, for those who may know it."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray


class Simulation(Protocol):
    """One episode of the real environment, at its first frame when it is opened.

    Attributes:
        pose: (P,) float32, where it stands.
        layout: (N, N) uint8, the map, 1 = free.
        targets: (K, 2) float32, where the targets lie, x and y.
    """

    pose: NDArray[np.float32]
    layout: NDArray[np.uint8]
    targets: NDArray[np.float32]

    @property
    def frame(self) -> NDArray[np.uint8]:
        """(H, W, 3), what the agent sees now."""

    @property
    def wanted(self) -> int:
        """The number of the target that is asked for."""

    def step(self, action: int) -> float:
        """Take an action, by its number; returns the reward."""


class Navigator(Protocol):
    """Finds ways over a map."""

    def act(self, pose: NDArray[np.float32], goal: tuple[float, float], /) -> int | None:
        """The number of the next action on the shortest way to `goal` (x, y); None where there is none to go."""


@dataclass(frozen=True)
class Simulator:
    """How agents act in the real environment.

    Attributes:
        open: (size, seed) -> a context in which the episode goes on. Raises: LssvwmError when it is not installed.
        navigator: (layout,) -> ways over the free cells of a map, which may be what an agent knows of it alone.
        sizes: {name: steps of an episode at most}, the default first.
        set_up_process: settings that it wants of its process, before anything else.
    """

    open: Callable[[str, int], AbstractContextManager[Simulation]]
    navigator: Callable[[NDArray[np.uint8]], Navigator]
    sizes: Mapping[str, int]
    set_up_process: Callable[[], None] | None = None
