"""Steps a second of an agent's environment: worlds one by one, and as many in one pass."""

import statistics
from dataclasses import dataclass
from pathlib import Path

import torch

from lssvwm_core.bench.timing import timed
from lssvwm_core.gym.env import WorldEnv, WorldVectorEnv
from lssvwm_core.world import World


@dataclass(frozen=True)
class EnvSpeed:
    """How fast a number of worlds goes on, one by one and as a batch.

    Attributes:
        batch: worlds.
        one_by_one, together: steps of a world in a second.
    """

    batch: int
    one_by_one: float
    together: float

    @property
    def times_faster(self) -> float:
        return self.together / self.one_by_one


def bench_env(world: World, source: Path | None, batch: int, repeats: int, chunk: int | None = None) -> EnvSpeed:
    """Take a step of `batch` environments one by one, then of a vector environment, in turn; medians count.

    Raises: LssvwmError.
    """
    alone = [WorldEnv(world, source=source, chunk=chunk) for _ in range(batch)]
    together = WorldVectorEnv(batch, world, source=source, chunk=chunk)
    for number, env in enumerate(alone):
        env.reset(seed=number)
    together.reset(seed=0)
    actions = together.action_space.sample()

    def one_by_one() -> None:
        for env, action in zip(alone, actions, strict=True):
            env.step(action)

    measures = {"one by one": one_by_one, "together": lambda: together.step(actions)}
    seconds: dict[str, list[float]] = {name: [] for name in measures}
    for turn in range(repeats + 1):
        for name, measure in measures.items():
            took = timed(measure, torch.device(world.device))
            if turn > 0:  # the first warms up
                seconds[name].append(took)
    medians = {name: statistics.median(times) for name, times in seconds.items()}
    return EnvSpeed(batch, batch / medians["one by one"], batch / medians["together"])
