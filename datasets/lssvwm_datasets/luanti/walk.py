"""A walk: where to start in a world, the actions and poses from there, and the order in which its pictures are taken.

All of it is known before a picture is drawn: the walk is Minecraft's (`minecraft`) on the blocks that the game tells.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lssvwm_datasets.errors import LssvwmError
from lssvwm_datasets.luanti.explorer import Action, Explorer
from lssvwm_datasets.luanti.game import Game, View
from lssvwm_datasets.luanti.terrain import Cell, Terrain
from lssvwm_datasets.minecraft import EYES, Body, tick

FAR = 2000  # nodes from the middle of a world, at most
REGIONS, SPACING = 12, 16  # a survey looks at a square of so many points each way, so far apart
AROUND = (-2 * SPACING, -SPACING, 0, SPACING, 2 * SPACING)  # where a place's surroundings are rated
SURVEYS = 12  # places that are looked at
PLACES = 4  # the best of them that are generated, until one will do
REACH = 32  # nodes around a start that a walk may use
DEPTH = 40  # nodes below and above
LEAST_GROUND = 500  # places to stand that must be in reach
LUCK = 1.0  # what chance adds to the rating of a place, which is 0 to 3 or so: else all worlds would begin alike
WATER_LEVEL = 1
WOODED = ("forest", "taiga", "savanna")  # words in the names of biomes with trees
FLICK = 0.35  # radians between the directions of successive pictures, so that the game looks anew at what is in view


@dataclass(frozen=True)
class Walk:
    """A walk of T steps: what is done in each, and where the agent is after it.

    Attributes:
        actions: T, of which the first led to nothing.
        bodies: T, where each action led to.
    """

    actions: tuple[Action, ...]
    bodies: tuple[Body, ...]

    @property
    def poses(self) -> NDArray[np.float64]:
        """(T, 5) x, y, z of the feet, pitch, yaw: blocks and degrees, as Minecraft has them."""
        return np.array([(body.x, body.y, body.z, body.pitch, body.yaw) for body in self.bodies])


def take_walk(terrain: Terrain, start: Cell, steps: int, ticks: int, rng: np.random.Generator) -> Walk:
    """Explore for so many steps, each of so many ticks; the agent stands still in the first."""
    explorer = Explorer(terrain, rng)
    body = Body(start[0] + 0.5, float(start[1]), start[2] + 0.5, 15.0 * float(rng.integers(24)))
    actions, bodies = [Action()], [body]
    for number in range(steps):
        action = explorer.act(body) if number else Action()
        body = step(body, action, terrain, ticks)
        actions.append(action)
        bodies.append(body)
    return Walk(tuple(actions), tuple(bodies))


def step(body: Body, action: Action, terrain: Terrain, ticks: int) -> Body:
    """The camera turns, then the keys are held for the ticks of a step."""
    body = body.turned(action.yaw, action.pitch)
    for _ in range(ticks):
        body = tick(body, action.keys, terrain)
    return body


def find_start(game: Game, rng: np.random.Generator) -> tuple[Terrain, Cell]:
    """A place with much to see, and the terrain around it. Raises: LssvwmError where a world has none."""
    candidates: list[tuple[float, Cell]] = []
    for _ in range(SURVEYS):
        x, z = (int(value) for value in rng.integers(-FAR, FAR, 2))
        found = _best_place(game.ask("survey", x, z, REGIONS, SPACING).decode())
        if found is not None:
            candidates.append((found[0] + LUCK * float(rng.random()), found[1]))
    best: tuple[int, Terrain, Cell] | None = None
    for _, place in sorted(candidates, reverse=True)[:PLACES]:
        terrain = _generate(game, place)
        start = _start_in(terrain, (-place[0], *place[1:]))
        if start is None:
            continue
        ground = len(terrain.reached_from(start))
        if best is None or ground > best[0]:
            best = ground, terrain, start
        if ground >= LEAST_GROUND:
            break
    if best is None:
        raise LssvwmError("Luanti: no place to walk in this world; record another seed")
    return best[1], best[2]


def _best_place(survey: str) -> tuple[float, Cell] | None:
    """How much there is to see from the best place of a survey, and where it is; None where there is no land."""
    points: dict[tuple[int, int], tuple[int, str]] = {}
    for line in survey.splitlines():
        x, z, height, biome = line.split(" ")
        points[int(x), int(z)] = int(height), biome
    rated = []
    for (middle_x, middle_z), (level, _) in points.items():
        around = [points.get((middle_x + dx, middle_z + dz)) for dx in AROUND for dz in AROUND]
        if level <= WATER_LEVEL or None in around:
            continue
        heights = [found[0] for found in around if found and found[0] > WATER_LEVEL]
        biomes = {found[1] for found in around if found}
        woods = sum(any(word in found[1] for word in WOODED) for found in around if found) / len(around)
        land = len(heights) / len(around)
        hills = min(float(np.std(heights)), 4.0) / 4
        rating = min(land, 0.8) + 0.1 * len(biomes) + min(woods, 0.5) + hills
        rated.append((rating, (middle_x, level, middle_z)))
    return max(rated, default=None)


def _generate(game: Game, place: Cell) -> Terrain:
    """Generate what can be seen from walks around a place of Luanti's, and read what a body meets there."""
    x, y, z = place
    far = REACH + game.view + 8
    game.ask("generate", x - far, y - DEPTH - 16, z - far, x + far, y + DEPTH + 16, z + far)
    low, high = (x - REACH, y - DEPTH, z - REACH), (x + REACH, y + DEPTH, z + REACH)
    return Terrain.of_dump(game.ask("dump", *low, *high), low, high)


def _start_in(terrain: Terrain, near: Cell) -> Cell | None:
    """The place to stand that is nearest, on the open side of the ground; None where there is none close by."""
    places = [cell for cell in terrain.ways if math.dist(cell, near) < 16]
    return min(places, key=lambda cell: (math.dist(cell, near), cell), default=None)


def shoot(game: Game, walk: Walk, rng: np.random.Generator) -> NDArray[np.uint8]:
    """(T, H, W, 3) the pictures of a walk. They are taken in an order in which successive directions differ."""
    poses = walk.poses
    for block in sorted({tuple((pose[:3] // 16).astype(int).tolist()) for pose in poses}):
        inside = poses[[tuple((pose[:3] // 16).astype(int).tolist()) == block for pose in poses]]
        game.load(_eyes(inside[len(inside) // 2]))
    order = shuffled(poses, rng)
    taken = game.look([View(_eyes(poses[number]), *_angles(poses[number])) for number in order])
    pictures = np.empty_like(taken)
    pictures[order] = taken
    return pictures


def shuffled(poses: NDArray[np.float64], rng: np.random.Generator) -> list[int]:
    """The numbers of all poses in an order in which neighbours look in different directions, where that can be."""
    waiting = rng.permutation(len(poses)).tolist()
    order = [waiting.pop()]
    while waiting:
        found = next(
            (i for i in range(len(waiting) - 1, -1, -1) if _apart(poses[order[-1]], poses[waiting[i]]) > FLICK), -1
        )
        order.append(waiting.pop(found))
    return order


def _apart(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    """Radians between the directions of two poses."""
    pitches, yaws = np.radians([one[3], other[3]]), np.radians([one[4], other[4]])
    cosine = math.sin(pitches[0]) * math.sin(pitches[1])
    cosine += math.cos(pitches[0]) * math.cos(pitches[1]) * math.cos(yaws[0] - yaws[1])
    return math.acos(min(1.0, max(-1.0, cosine)))


def _eyes(pose: NDArray[np.float64]) -> tuple[float, float, float]:
    """Where Luanti has the eyes: its nodes are centred at whole numbers, and its x is Minecraft's the other way."""
    return 0.5 - float(pose[0]), float(pose[1]) + EYES - 0.5, float(pose[2]) - 0.5


def _angles(pose: NDArray[np.float64]) -> tuple[float, float]:
    """Pitch downwards and yaw to the left, degrees."""
    return float(pose[3]), -float(pose[4])
