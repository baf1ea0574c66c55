"""Episodes of a real environment: every agent begins after the same walk, and is judged by the reward it gets.

<out>/plan.json      settings, the reward of every agent in every episode, and the figures
"""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from lssvwm_core.model.sight_head import SightHead
from lssvwm_core.planning.agents import Agent, Oracle, Planner, Walk, Wanderer
from lssvwm_core.world import World
from lssvwm_datasets.environment import Environment
from lssvwm_datasets.environments import environment_of
from lssvwm_datasets.errors import LssvwmError
from lssvwm_datasets.files import write_json
from lssvwm_datasets.schema import read_json
from lssvwm_datasets.simulation import Simulation

RESULTS = "plan.json"
AGENTS = ("memory", "memory cut", "explorer", "oracle")
RESAMPLES = 10_000


@dataclass(frozen=True)
class PlanOptions:
    """Which episodes are played, and how long.

    Attributes:
        size: of the environment; empty: its first.
        seed: of the first episode; the next has seed + 1.
        context: steps that the explorer walks before the agent acts.
        steps: in which the agent acts.
    """

    episodes: int = 32
    size: str = ""
    seed: int = 2_000_000
    context: int = 500
    steps: int = 300
    agents: tuple[str, ...] = AGENTS


@dataclass(frozen=True)
class Played:
    agent: str
    seed: int
    reward: float


class _Results(msgspec.Struct):
    settings: dict[str, Any]
    played: list[Played]


def check(world: World, head: SightHead, options: PlanOptions) -> tuple[Environment, PlanOptions]:
    """The environment to act in, and the options with its size. Raises: LssvwmError for what cannot be played."""
    environment = environment_of(world.header)
    if environment is None or environment.simulator is None or environment.explorer is None or not environment.plane:
        name = environment.title if environment is not None else f"the world's data, {world.header.dataset},"
        raise LssvwmError(f"{name} cannot be acted in here; lssvwm plan needs a real environment, such as Memory Maze")
    if "pose" not in world.model.config.streams:
        raise LssvwmError("the world was trained without poses; lssvwm plan looks from poses that the agent had")
    if head.config.autoencoder_sha256 != world.header.autoencoder_sha256:
        raise LssvwmError("the sight head was trained on latents of another autoencoder; lssvwm train-sight makes one")
    unknown = sorted(set(options.agents) - set(AGENTS))
    if unknown or not options.agents:
        raise LssvwmError(f"--agents {', '.join(unknown)}: expected some of {', '.join(AGENTS)}")
    sizes = environment.simulator.sizes
    size = options.size or next(iter(sizes))
    if size not in sizes:
        raise LssvwmError(f"--size {size}: expected one of {', '.join(sizes)}")
    least = world.model.config.frame_window
    if options.context < least or options.context + options.steps > sizes[size]:
        raise LssvwmError(
            f"--context {options.context} and --steps {options.steps}: expected a context of at least {least}, and "
            f"together at most {sizes[size]}, the steps of an episode of size {size}"
        )
    return environment, replace(options, size=size)


def run(
    world: World, environment: Environment, head: SightHead, options: PlanOptions, identity: dict[str, Any], out: Path
) -> Iterator[Played]:
    """Play what `out` lacks, yielding every result, those of before first. Raises: LssvwmError, OSError."""
    settings = {"size": options.size, "context": options.context, "steps": options.steps} | identity
    settings = json.loads(json.dumps(settings))
    played: list[Played] = []
    if (out / RESULTS).exists():
        found = read_json(out / RESULTS, _Results, "delete it, or choose another --out")
        if found.settings != settings:
            raise LssvwmError(f"{out / RESULTS}: made with other settings; choose another --out or delete it")
        played = list(found.played)
    wanted = [(s, agent) for s in range(options.seed, options.seed + options.episodes) for agent in options.agents]
    done = {(one.seed, one.agent): one for one in played}
    yield from (done[key] for key in wanted if key in done)
    for seed in dict.fromkeys(seed for seed, agent in wanted if (seed, agent) not in done):
        walk = None
        for agent in options.agents:
            if (seed, agent) in done:
                continue
            walk, reward = play(world, environment, head, options, agent, seed, walk)
            played.append(Played(agent, seed, reward))
            rows = [asdict(one) for one in played]
            write_json(out / RESULTS, {"settings": settings, "played": rows, "figures": figures(played)})
            yield played[-1]


def play(
    world: World,
    environment: Environment,
    head: SightHead,
    options: PlanOptions,
    agent: str,
    seed: int,
    walk: Walk | None = None,
) -> tuple[Walk, float]:
    """The walk in the episode of a seed, taken again where it is given; and the reward of the agent that acts then."""
    assert environment.simulator is not None
    with environment.simulator.open(options.size, seed) as episode:
        if walk is None:
            walk = explored(environment, episode, options.context, seed)
        else:
            for action in walk.moves:
                episode.step(action)
        acting = make_agent(agent, environment, world, head, episode, walk, np.random.default_rng(seed))
        return walk, sum(episode.step(acting.act(episode)) for _ in range(options.steps))


def explored(environment: Environment, episode: Simulation, steps: int, seed: int) -> Walk:
    """The environment's explorer walks; the same seed, the same walk."""
    assert environment.explorer is not None
    explorer = environment.explorer(episode.layout, np.random.default_rng(seed))
    assert explorer is not None
    frames, poses, moves = [episode.frame], [episode.pose], []
    for _ in range(steps):
        moves.append(explorer.act(episode.pose))
        episode.step(moves[-1])
        frames.append(episode.frame)
        poses.append(episode.pose)
    actions = np.zeros((len(frames), len(environment.action_names)), np.float32)
    actions[1:] = environment.move_rows[moves]
    return Walk(np.stack(frames), actions, np.stack(poses), moves)


def make_agent(
    name: str,
    environment: Environment,
    world: World,
    head: SightHead,
    episode: Simulation,
    walk: Walk,
    rng: np.random.Generator,
) -> Agent:
    """The agent of a name of `AGENTS`, about to act."""
    if name == "oracle":
        return Oracle(environment, episode, rng)
    if name == "explorer":
        return Wanderer(environment, episode, rng)
    return Planner(environment, world, head, walk, len(episode.layout), rng, memory_cut=name == "memory cut")


def figures(played: list[Played]) -> dict[str, Any]:
    """Mean rewards with 95 % intervals, and of memory against memory cut the mean of the differences by episode."""
    rewards = {name: {one.seed: one.reward for one in played if one.agent == name} for name in AGENTS}
    result = {name: interval(np.array(list(of.values()))) for name, of in rewards.items() if of}
    both = sorted(set(rewards["memory"]) & set(rewards["memory cut"]))
    if both:
        differences = np.array([rewards["memory"][seed] - rewards["memory cut"][seed] for seed in both])
        result["memory - memory cut"] = interval(differences)
    return result


def interval(values: NDArray[np.float64]) -> dict[str, float]:
    """The mean, and the bootstrap's 2.5 and 97.5 percentiles of it."""
    rng = np.random.default_rng(0)
    means = values[rng.integers(len(values), size=(RESAMPLES, len(values)))].mean(axis=1)
    low, high = np.percentile(means, [2.5, 97.5])
    return {"episodes": len(values), "mean": float(values.mean()), "low": float(low), "high": float(high)}
