"""An agent that sees much of a terrain and comes back: it walks to new places and to places where it was before."""

import math
from dataclasses import dataclass, field

import numpy as np

from lssvwm_datasets.luanti.terrain import Cell, Terrain, path_to
from lssvwm_datasets.minecraft import Body, Keys, Kind

TURN = 15.0  # degrees a step, of the camera
SHARP = 50.0  # degrees: with the way so far aside the agent turns on the spot
AHEAD = 4  # blocks of a path that may be cut short
RETURN = 0.6  # probability of going back to a place rather than to a new one
LOOK_AROUND = 0.4  # probability, at every goal
SPRINT, SNEAK = 0.25, 0.05  # probabilities, on every way
PITCHES, PITCH_ODDS = (0.0, 15.0, -15.0, 30.0), (0.4, 0.35, 0.15, 0.1)
BURST = 0.015  # probability a step of a few random steps
SHORTEST_WAY, LONGEST_WAY = 6, 20  # blocks, as the crow flies
PATIENCE = 8  # steps without progress before another goal is chosen


@dataclass(frozen=True)
class Action:
    """What is done in a step: keys, and degrees that the camera turns downwards and to the right before."""

    keys: Keys = field(default_factory=Keys)
    pitch: float = 0.0
    yaw: float = 0.0


class Explorer:
    """Chooses what to do next: walks to places that are new, and back to places where it was before.

    Args:
        terrain: where it walks.
        rng: source of goals and whims.
    """

    def __init__(self, terrain: Terrain, rng: np.random.Generator) -> None:
        self.terrain, self.rng = terrain, rng
        self.path: list[Cell] = []
        self.visited: list[Cell] = []
        self.around = 0  # steps left of looking around, to the right if positive
        self.burst, self.whim = 0, Keys()
        self.still, self.last = 0, (math.inf, math.inf)
        self.pitch = 0.0
        self.pace = Keys(forward=True)

    def act(self, body: Body) -> Action:
        """The next action of a body."""
        pitch = math.copysign(TURN, self.pitch - body.pitch) if abs(self.pitch - body.pitch) >= TURN / 2 else 0.0
        if self.around:
            turn = math.copysign(TURN, self.around)
            self.around -= int(math.copysign(1, self.around))
            return Action(pitch=pitch, yaw=turn)
        if self.burst == 0 and self.rng.random() < BURST:
            self._begin_burst(body)
        if self.burst > 0:
            self.burst -= 1
            return Action(self.whim, pitch, TURN * float(self.rng.integers(-1, 2)))
        here = self._cell(body)
        self._notice_progress(body)
        while self.path and math.hypot(self.path[0][0] + 0.5 - body.x, self.path[0][2] + 0.5 - body.z) < 0.6:
            self.path.pop(0)
        if not self.path:
            if here is not None and self.visited and self.rng.random() < LOOK_AROUND:
                self.around = int(self.rng.choice([-24, -12, -6, 6, 12, 24]))
            self._choose_goal(here)
        if not self.path:
            return Action(Keys(forward=True, jump=True), pitch, TURN)
        return self._towards(self._waypoint(body, here), body, pitch)

    def _towards(self, waypoint: Cell, body: Body, pitch: float) -> Action:
        dx, dz = waypoint[0] + 0.5 - body.x, waypoint[2] + 0.5 - body.z
        wrong = math.remainder(math.degrees(math.atan2(-dx, dz)) - body.yaw, 360)
        turn = math.copysign(TURN, wrong) if abs(wrong) > TURN / 2 else 0.0
        if abs(wrong) > SHARP:
            return Action(pitch=pitch, yaw=turn)
        jump = waypoint[1] > body.y + 0.5 and math.hypot(dx, dz) < 1.6
        water = self.terrain(math.floor(body.x), math.floor(body.y + 0.4), math.floor(body.z)) == Kind.WATER
        pace = self.pace if abs(wrong) < TURN else Keys(forward=True)
        jump = jump or water
        keys = Keys(True, jump=jump, sneak=pace.sneak and not jump, sprint=pace.sprint and not jump)
        return Action(keys, pitch, turn)

    def _waypoint(self, body: Body, here: Cell | None) -> Cell:
        """The furthest of the next places that can be walked to in a straight line; those before it are left out."""
        for number in range(min(AHEAD, len(self.path)) - 1, 0, -1):
            place = self.path[number]
            if here is not None and place[1] == here[1] and self._clear(body, place):
                del self.path[:number]
                break
        return self.path[0]

    def _clear(self, body: Body, place: Cell) -> bool:
        dx, dz = place[0] + 0.5 - body.x, place[2] + 0.5 - body.z
        parts = max(1, math.ceil(2 * math.hypot(dx, dz)))
        for part in range(1, parts + 1):
            x, z = body.x + dx * part / parts, body.z + dz * part / parts
            for aside in (-0.3, 0.3):
                if (math.floor(x + aside), place[1], math.floor(z + aside)) not in self.terrain.ways:
                    return False
        return True

    def _choose_goal(self, here: Cell | None) -> None:
        self.pitch = float(self.rng.choice(PITCHES, p=PITCH_ODDS))
        whim = self.rng.random()
        self.pace = Keys(forward=True, sprint=whim < SPRINT, sneak=SPRINT <= whim < SPRINT + SNEAK)
        self.path = []
        if here is None:
            return
        before = self.terrain.reached_from(here)
        self.visited.append(here)
        earlier = [cell for cell in self.visited[:-1] if cell in before and cell != here]
        if earlier and self.rng.random() < RETURN:
            goal = earlier[self.rng.integers(len(earlier))]
        else:
            near = sorted(cell for cell in before if SHORTEST_WAY <= math.dist(cell, here) <= LONGEST_WAY)
            if not near:
                return
            goal = near[self.rng.integers(len(near))]
        self.path = path_to(goal, before)

    def _cell(self, body: Body) -> Cell | None:
        """Where the feet are, or stand above; None where that is no place to walk from, as in water."""
        x, y, z = math.floor(body.x), math.floor(body.y + 0.01), math.floor(body.z)
        for height in (y, y - 1, y - 2):
            for dx, dz in ((0, 0), (1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (1, -1), (-1, 1), (-1, -1)):
                if (x + dx, height, z + dz) in self.terrain.ways:
                    return (x + dx, height, z + dz)
        return None

    def _begin_burst(self, body: Body) -> None:
        self.burst = int(self.rng.integers(2, 7))
        way = int(self.rng.integers(5))
        self.whim = Keys(back=way == 0, left=way == 1, right=way == 2, forward=way == 3, jump=way == 4)

    def _notice_progress(self, body: Body) -> None:
        moved = math.hypot(body.x - self.last[0], body.z - self.last[1])
        self.still = self.still + 1 if moved < 0.05 else 0
        self.last = (body.x, body.z)
        if self.still > PATIENCE:
            self.path, self.still = [], 0
