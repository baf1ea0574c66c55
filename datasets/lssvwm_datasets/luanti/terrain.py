"""The blocks around a start, in Minecraft's coordinates, and the places among them where an agent can walk."""

from collections import deque
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from lssvwm_datasets.minecraft import Kind

Cell = tuple[int, int, int]  # x, y, z of the block that the feet are in
DEEPEST_FALL = 3  # blocks that a path goes down at once


@dataclass(frozen=True, eq=False)
class Terrain:
    """The kinds of the blocks in a box around the start of a walk.

    Attributes:
        kinds: (X, Y, Z) uint8, the `Kind` of every block.
        origin: x, y, z of the first.
    """

    kinds: NDArray[np.uint8]
    origin: Cell
    _nothing: int = field(default=int(Kind.FULL), init=False)

    @classmethod
    def of_dump(cls, dump: bytes, low: Cell, high: Cell) -> "Terrain":
        """From Luanti's nodes low to high, a byte each, x fastest, then y, z. Its x is Minecraft's the other way."""
        x, y, z = (last - first + 1 for first, last in zip(low, high, strict=True))
        kinds = np.frombuffer(dump, np.uint8).reshape(z, y, x).transpose(2, 1, 0)[::-1]
        return cls(np.ascontiguousarray(kinds), (-high[0], low[1], low[2]))

    def __call__(self, x: int, y: int, z: int) -> int:
        """The kind of a block; beyond the terrain all is full."""
        i, j, k = x - self.origin[0], y - self.origin[1], z - self.origin[2]
        if i < 0 or j < 0 or k < 0 or i >= self.kinds.shape[0] or j >= self.kinds.shape[1] or k >= self.kinds.shape[2]:
            return self._nothing
        return int(self._rows[i][j][k])

    @cached_property
    def _rows(self) -> list[list[bytes]]:
        """Bytes of a list are read faster than elements of an array."""
        return [[row.tobytes() for row in plane] for plane in self.kinds]

    @cached_property
    def standable(self) -> NDArray[np.bool_]:
        """(X, Y, Z) whether feet can be there: ground below, room for the body, no water, no harm at its side."""
        room = np.isin(self.kinds, (Kind.FREE, Kind.PLATE))
        found = np.zeros_like(room)
        free = self.kinds[:, 2:] == Kind.FREE
        found[:, 1:-1] = (self.kinds[:, :-2] == Kind.FULL) & room[:, 1:-1] & free
        harm = self.kinds == Kind.HARM
        near = harm.copy()
        for axis in range(3):
            near |= np.roll(near, 1, axis) | np.roll(near, -1, axis)
        return found & ~near

    @cached_property
    def ways(self) -> dict[Cell, list[Cell]]:
        """From every place where one can stand, the places that one can walk, jump or drop to."""
        standing = {
            (int(x) + self.origin[0], int(y) + self.origin[1], int(z) + self.origin[2])
            for x, y, z in np.argwhere(self.standable)
        }
        return {cell: self._neighbours(cell, standing) for cell in standing}

    def _neighbours(self, cell: Cell, standing: set[Cell]) -> list[Cell]:
        x, y, z = cell
        found = []
        straight = {}
        for dx, dz in ((1, 0), (-1, 0), (0, 1), (0, -1)):
            there = next(
                (
                    (x + dx, y + up, z + dz)
                    for up in range(1, -DEEPEST_FALL - 1, -1)
                    if (x + dx, y + up, z + dz) in standing and self._passable(cell, (x + dx, y + up, z + dz))
                ),
                None,
            )
            if there is not None:
                found.append(there)
                straight[dx, dz] = there[1] == y
        for dx, dz in ((1, 1), (1, -1), (-1, 1), (-1, -1)):
            if straight.get((dx, 0)) and straight.get((0, dz)) and (x + dx, y, z + dz) in standing:
                found.append((x + dx, y, z + dz))
        return found

    def _passable(self, here: Cell, there: Cell) -> bool:
        """Whether there is room to jump up from here, or to go over the edge before falling."""
        if there[1] > here[1]:
            return self(here[0], here[1] + 2, here[2]) == Kind.FREE
        return all(self(there[0], y, there[2]) in (Kind.FREE, Kind.PLATE) for y in range(there[1] + 2, here[1] + 2))

    def reached_from(self, start: Cell) -> dict[Cell, Cell]:
        """Every place that can be reached, and the place before it on a shortest way."""
        before = {start: start}
        queue = deque([start])
        while queue:
            cell = queue.popleft()
            for there in self.ways.get(cell, ()):
                if there not in before:
                    before[there] = cell
                    queue.append(there)
        return before


def path_to(goal: Cell, before: dict[Cell, Cell]) -> list[Cell]:
    """The places after the start, up to the goal."""
    path = [goal]
    while before[path[-1]] != path[-1]:
        path.append(before[path[-1]])
    return path[-2::-1]
