"""Examples for a probe: what the memory gives back at every cell of the map, after several numbers of steps."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lssvwm_core.conditions import Conditions
from lssvwm_core.model.state import ModelState
from lssvwm_core.prepare.encode import encode_frames
from lssvwm_core.probe.reads import MemoryReads
from lssvwm_core.rollout import Rollout
from lssvwm_core.training.gathering import Update, gathered
from lssvwm_core.world import World
from lssvwm_datasets.episode import Episode
from lssvwm_datasets.errors import LssvwmError
from lssvwm_datasets.poses import Plane, plane_of
from lssvwm_datasets.sources import Recording

MEMORY, CUT, POSE = "memory", "memory cut", "pose alone"
HEADINGS = 4  # directions that each cell is looked from


@dataclass(frozen=True)
class Examples:
    """E examples of maps of N × N cells with K objects; cells are in the order of `layout.ravel()`.

    Attributes:
        reads: {memory or memory cut: (E, N·N, F) float32}.
        steps: (E,) steps that the world had seen.
        agents: (E, 4) float32 the agent's x, y, and cosine and sine of its heading.
        free: (E, N·N) float32, 1 where the map is free.
        objects: (E, K, 2) float32, x and y.
        side: N.
    """

    reads: dict[str, Tensor]
    steps: Tensor
    agents: Tensor
    free: Tensor
    objects: Tensor
    side: int

    def inputs(self, what: str, rows: Tensor) -> Tensor:
        """(rows, N·N, features): of every cell its read, where it is on the map, and where the agent is.

        `what` is memory, memory cut or pose alone, which has no read.
        """
        cells = cell_centres(self.side)
        place = (cells / self.side * 2 - 1).expand(len(rows), -1, -1)
        agents = self.agents[rows].clone()
        agents[:, :2] = agents[:, :2] / self.side * 2 - 1
        parts = [place, agents[:, None].expand(-1, len(cells), -1)]
        if what != POSE:
            parts.append(self.reads[what][rows])
        return torch.cat(parts, dim=-1)


def gather(recordings: list[Recording], split: str, world: World, update: Update, steps: Sequence[int]) -> Examples:
    """Let the world see each recording of a split, and read its memory on the way. Raises: LssvwmError."""
    reads = MemoryReads(world.model)
    rows = gathered(recordings, split, lambda episode: _of_episode(episode, world, reads, steps), update)
    shapes = {tuple(tuple(part.shape) for part in row) for row in rows}
    if len(shapes) != 1:
        raise LssvwmError(
            f"the {split} split has {'maps of several sizes' if rows else 'no recordings'}; a probe needs recordings "
            f"of at least {min(steps)} steps with poses, maps of one size, and as many targets each"
        )
    memory, cut, seen, agents, free, objects = (torch.stack(parts) for parts in zip(*rows, strict=True))
    return Examples({MEMORY: memory, CUT: cut}, seen, agents, free, objects, round(free.shape[1] ** 0.5))


def _of_episode(episode: Episode, world: World, reads: MemoryReads, steps: Sequence[int]) -> list[tuple[Tensor, ...]]:
    plane = plane_of(episode.pose_names, episode.pose_kinds)
    if episode.layout is None or episode.targets is None or episode.poses is None or plane is None:
        return []
    counts = [count for count in sorted(steps) if count < episode.length]
    if not counts:
        return []
    latents = encode_frames(world.autoencoder, np.concatenate(list(episode.frames))[: counts[-1] + 1])
    told = Conditions(action=episode.actions, pose=episode.poses).only(world.model.config.streams)
    rollout, rows, start = Rollout(world, (0,)), [], 0
    free = torch.from_numpy(episode.layout.ravel().astype(np.float32))
    for count in counts:
        stop = count + 1  # frames: so many steps, and the one before them
        rollout.observe(latents[start:stop], told[start:stop])
        start = stop
        agent = episode.poses[count]
        looked_from = torch.from_numpy(views(agent, plane, len(episode.layout)))[None].to(world.device)
        states = (rollout.state, world.without_memory(rollout.state))
        now = [_at_cells(reads, state, looked_from) for state in states]
        columns = [plane.x, plane.y, plane.cos, plane.sin]
        known = (torch.tensor(count), torch.from_numpy(agent[columns]), free, torch.from_numpy(episode.targets))
        rows.append((*now, *known))
    return rows


def _at_cells(reads: MemoryReads, state: ModelState, looked_from: Tensor) -> Tensor:
    """(N·N, HEADINGS · F)."""
    found = reads(state, looked_from)[0]
    return found.unflatten(0, (-1, HEADINGS)).flatten(1)


def views(agent: NDArray[np.float32], plane: Plane, side: int) -> NDArray[np.float32]:
    """(N·N · HEADINGS, P) poses at the centre of every cell, in every direction; other columns are the agent's."""
    cells = np.repeat(cell_centres(side).numpy(), HEADINGS, axis=0)
    headings = np.tile(np.arange(HEADINGS) * 2 * np.pi / HEADINGS, side * side)
    poses = np.repeat(agent[None], len(cells), axis=0)
    poses[:, plane.x], poses[:, plane.y] = cells[:, 0], cells[:, 1]
    poses[:, plane.cos], poses[:, plane.sin] = np.cos(headings), np.sin(headings)
    return poses


def cell_centres(side: int) -> Tensor:
    """(N·N, 2) float32 x and y, in the order of a layout's cells: rows from the bottom, which are y."""
    y, x = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    return torch.stack([x.flatten(), y.flatten()], dim=1).float() + 0.5
