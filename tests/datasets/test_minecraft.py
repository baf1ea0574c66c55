"""How Minecraft's agent moves: its known speeds and heights, and blocks that stop it, whatever they look like."""

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lssvwm_datasets.minecraft import HALF_WIDTH, HEIGHT, PLATE, Body, Keys, Kind, tick

Blocks = Callable[[int, int, int], int]


def plain(x: int, y: int, z: int) -> int:
    return Kind.FULL if y < 0 else Kind.FREE


def with_wall(kind: Kind, height: int = 3) -> Blocks:
    """The plain, and something across the way, from z = 4 on."""
    return lambda x, y, z: kind if z >= 4 and 0 <= y < height else plain(x, y, z)


def after(ticks: int, keys: Keys, blocks: Blocks = plain, body: Body | None = None) -> list[Body]:
    bodies = [body or Body(0.5, 0.0, 0.5)]
    for _ in range(ticks):
        bodies.append(tick(bodies[-1], keys, blocks))
    return bodies


@pytest.mark.parametrize(
    ("keys", "speed"),
    [
        (Keys(forward=True), 4.317),
        (Keys(forward=True, sprint=True), 5.612),
        (Keys(forward=True, sneak=True), 1.295),
        (Keys(back=True), 4.317),
        (Keys(left=True), 4.317),
        (Keys(forward=True, right=True), 4.317 * 1.0204),  # of two keys, the length is 1 and not 0.98
        (Keys(forward=True, back=True), 0.0),
    ],
)
def test_speeds_are_those_of_the_game(keys: Keys, speed: float) -> None:
    """Blocks a second, as the game's players measured them."""
    *_, before, last = after(60, keys)
    assert 20 * math.hypot(last.x - before.x, last.z - before.z) == pytest.approx(speed, abs=2e-3)


@pytest.mark.parametrize("yaw", [0.0, 90.0, 135.0, -30.0])
def test_the_agent_walks_where_it_looks(yaw: float) -> None:
    *_, last = after(20, Keys(forward=True), body=Body(0.0, 0.0, 0.0, yaw))
    assert math.degrees(math.atan2(-last.x, last.z)) == pytest.approx(yaw)
    *_, aside = after(20, Keys(right=True), body=Body(0.0, 0.0, 0.0, yaw))
    assert math.remainder(math.degrees(math.atan2(-aside.x, aside.z)) - yaw - 90, 360) == pytest.approx(0, abs=1e-9)


def test_a_jump_is_a_block_and_a_quarter_high_and_takes_twelve_ticks() -> None:
    bodies = after(12, Keys(jump=True))
    assert max(body.y for body in bodies) == pytest.approx(1.2522, abs=1e-4)
    assert [body.on_ground for body in bodies[1:]] == [False] * 11 + [True]


@pytest.mark.parametrize(
    ("blocks", "keys", "passes"),
    [
        (with_wall(Kind.FULL), Keys(forward=True), False),
        (with_wall(Kind.FULL), Keys(forward=True, jump=True), False),
        (with_wall(Kind.FULL, height=1), Keys(forward=True), False),
        (with_wall(Kind.FULL, height=1), Keys(forward=True, jump=True), True),
        (with_wall(Kind.PLATE, height=1), Keys(forward=True), True),
    ],
)
def test_a_block_stops_a_walk_and_not_a_jump_and_plates_are_walked_up(blocks: Blocks, keys: Keys, passes: bool) -> None:
    *_, last = after(100, keys, blocks)
    assert (last.z > 5) == passes
    if not passes:
        assert last.z == pytest.approx(4 - HALF_WIDTH)
    elif blocks(0, 0, 5) == Kind.PLATE:
        assert last.y == pytest.approx(PLATE)


def test_in_water_it_sinks_and_swims_up() -> None:
    def sea(x: int, y: int, z: int) -> int:
        return Kind.WATER if -20 < y < 0 else Kind.FULL if y <= -20 else Kind.FREE

    *_, sunk = after(100, Keys(), sea, Body(0.5, -5.0, 0.5, on_ground=False))
    assert sunk.y == pytest.approx(-5 - 2 * 5, abs=0.6)  # two blocks a second
    *_, up = after(200, Keys(jump=True), sea, sunk)
    assert -1 < up.y < 0.5


@given(st.integers(0, 2**32 - 1))
def test_no_walk_enters_a_block(seed: int) -> None:
    rng = np.random.default_rng(seed)
    kinds = rng.choice([Kind.FREE, Kind.FULL, Kind.PLATE], (9, 6, 9), p=[0.75, 0.2, 0.05])
    kinds[3:6, 1:4, 3:6] = Kind.FREE

    def blocks(x: int, y: int, z: int) -> int:
        inside = 0 <= x < 9 and 1 <= y < 6 and 0 <= z < 9
        return int(kinds[x, y, z]) if inside else int(Kind.FULL)

    body = Body(4.5, 1.0, 4.5, float(rng.integers(360)))
    for _ in range(20):
        held = rng.random(7) < 0.4
        keys = Keys(*map(bool, held))
        for _ in range(4):
            body = tick(body, keys, blocks)
            low = np.floor([body.x - HALF_WIDTH + 1e-5, body.y + 1e-5, body.z - HALF_WIDTH + 1e-5]).astype(int)
            high = np.floor([body.x + HALF_WIDTH - 1e-5, body.y + HEIGHT - 1e-5, body.z + HALF_WIDTH - 1e-5]).astype(
                int
            )
            for x, y, z in np.ndindex(*(high - low + 1)):
                kind = blocks(x + low[0], y + low[1], z + low[2])
                assert kind != Kind.FULL, (seed, body)
                assert kind != Kind.PLATE or body.y >= y + low[1] + PLATE - 1e-5, (seed, body)
