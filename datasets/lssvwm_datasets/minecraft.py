"""How an agent of Minecraft moves: walking, sprinting, sneaking, jumping and swimming, at 20 ticks a second.

The numbers are those of the game (Java Edition, 1.11 to 1.16), which MineRL, MineDojo and VPT ran. On open ground the
speed of the tick before times 0.546 and what the keys add is the speed of this one. Coordinates are Minecraft's: x, y
upwards, z in blocks, a block i from i to i + 1; yaw in degrees, 0 along z and to the right; pitch downwards.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import IntEnum

TICKS = 20  # a second
WALK = 0.1 * 0.98  # blocks a tick that a key adds on the ground
AIR_WALK = 0.02 * 0.98  # and in the air, or in water
SPRINT, SNEAK = 1.3, 0.3  # times as fast
GROUND_DRAG, AIR_DRAG, WATER_DRAG = 0.546, 0.91, 0.8  # what is left of the speed, a tick later
GRAVITY, FALL_DRAG, WATER_GRAVITY = 0.08, 0.98, 0.02
JUMP, SPRINT_JUMP, SWIM_UP, CLIMB_OUT = 0.42, 0.2, 0.04, 0.3
JUMP_PAUSE = 10  # ticks between jumps while the key is held
HALF_WIDTH, HEIGHT, EYES = 0.3, 1.8, 1.62  # blocks, of the body
STEP_HEIGHT = 0.6  # blocks that it walks up without a jump
PLATE = 0.25  # blocks, the height of a low plate
TINY = 1e-7


class Kind(IntEnum):
    """What a body meets in a block."""

    FREE, FULL, WATER, PLATE, HARM = range(5)


Blocks = Callable[[int, int, int], int]  # the `Kind` of a block x, y, z
Box = tuple[float, float, float, float, float, float]  # low x, y, z, high x, y, z


@dataclass(frozen=True)
class Keys:
    """What is held for a tick."""

    forward: bool = False
    back: bool = False
    left: bool = False
    right: bool = False
    jump: bool = False
    sneak: bool = False
    sprint: bool = False


@dataclass(frozen=True)
class Body:
    """An agent: where its feet are, where it looks, how fast it is (blocks a tick)."""

    x: float
    y: float
    z: float
    yaw: float = 0.0
    pitch: float = 0.0
    vx: float = 0.0
    vy: float = 0.0
    vz: float = 0.0
    on_ground: bool = True
    pause: int = 0  # ticks until it may jump again

    def turned(self, yaw: float, pitch: float) -> "Body":
        """Turned to the right and downwards by so many degrees; it cannot look further than straight up or down."""
        return replace(self, yaw=self.yaw + yaw, pitch=min(90.0, max(-90.0, self.pitch + pitch)))


def tick(body: Body, keys: Keys, blocks: Blocks) -> Body:
    """The body a tick later."""
    water = blocks(*_cell(body.x, body.y + 0.4, body.z)) == Kind.WATER
    sprinting = keys.sprint and keys.forward and not keys.sneak and not water
    vx, vy, vz, pause = body.vx, body.vy, body.vz, max(0, body.pause - 1) if keys.jump else 0
    sin, cos = math.sin(math.radians(body.yaw)), math.cos(math.radians(body.yaw))
    if keys.jump and water:
        vy += SWIM_UP
    elif keys.jump and body.on_ground and pause == 0:
        vy, pause = JUMP, JUMP_PAUSE
        if sprinting:
            vx, vz = vx - SPRINT_JUMP * sin, vz + SPRINT_JUMP * cos
    pushed = AIR_WALK if water or not body.on_ground else WALK
    pushed *= SPRINT if sprinting else 1.0
    slowness = SNEAK if keys.sneak else 1.0
    ahead, aside = slowness * (keys.forward - keys.back), slowness * (keys.left - keys.right)
    length = max(1.0, 0.98 * math.hypot(ahead, aside))
    ahead, aside = pushed * ahead / length, pushed * aside / length
    vx, vz = vx + aside * cos - ahead * sin, vz + ahead * cos + aside * sin

    dx, dy, dz = _moved(body, (vx, vy, vz), blocks)
    hit = abs(dx - vx) > TINY or abs(dz - vz) > TINY
    on_ground = vy < 0 and dy > vy + TINY
    drag = WATER_DRAG if water else GROUND_DRAG if body.on_ground else AIR_DRAG
    new_vy = vy if abs(dy - vy) <= TINY else 0.0
    if water:
        new_vy = new_vy * WATER_DRAG - WATER_GRAVITY
        if hit:
            new_vy = CLIMB_OUT
    else:
        new_vy = (new_vy - GRAVITY) * FALL_DRAG
    return replace(
        body,
        x=body.x + dx,
        y=body.y + dy,
        z=body.z + dz,
        vx=(vx if abs(dx - vx) <= TINY else 0.0) * drag,
        vy=new_vy,
        vz=(vz if abs(dz - vz) <= TINY else 0.0) * drag,
        on_ground=on_ground,
        pause=pause,
    )


def _moved(body: Body, wanted: tuple[float, float, float], blocks: Blocks) -> tuple[float, float, float]:
    """How far it comes of what it wants to move: y first, then x and z; low plates are walked up."""
    box = (
        body.x - HALF_WIDTH,
        body.y,
        body.z - HALF_WIDTH,
        body.x + HALF_WIDTH,
        body.y + HEIGHT,
        body.z + HALF_WIDTH,
    )
    flat = _slid(box, wanted, blocks)
    stopped = abs(flat[0] - wanted[0]) > TINY or abs(flat[2] - wanted[2]) > TINY
    if not stopped or not (body.on_ground or (wanted[1] < 0 and flat[1] > wanted[1] + TINY)):
        return flat
    up = _slid(box, (0.0, STEP_HEIGHT, 0.0), blocks)[1]
    over = _slid(_shifted(box, (0.0, up, 0.0)), (wanted[0], 0.0, wanted[2]), blocks)
    down = _slid(_shifted(box, (over[0], up, over[2])), (0.0, -up, 0.0), blocks)[1]
    if math.hypot(over[0], over[2]) <= math.hypot(flat[0], flat[2]) + TINY:
        return flat
    return over[0], up + down, over[2]


def _slid(box: Box, wanted: tuple[float, float, float], blocks: Blocks) -> tuple[float, float, float]:
    found = [0.0, 0.0, 0.0]
    for axis in (1, 0, 2):
        found[axis] = _clipped(box, axis, wanted[axis], blocks)
        shift = [0.0, 0.0, 0.0]
        shift[axis] = found[axis]
        box = _shifted(box, (shift[0], shift[1], shift[2]))
    return found[0], found[1], found[2]


def _shifted(box: Box, by: tuple[float, float, float]) -> Box:
    x, y, z = by
    return box[0] + x, box[1] + y, box[2] + z, box[3] + x, box[4] + y, box[5] + z


def _clipped(box: Box, axis: int, wanted: float, blocks: Blocks) -> float:
    """How far a box comes along one axis before it meets a block."""
    if wanted == 0.0:
        return 0.0
    low, high = list(box[:3]), list(box[3:])
    low[axis], high[axis] = min(low[axis], low[axis] + wanted), max(high[axis], high[axis] + wanted)
    ranges = [range(math.floor(a + TINY), math.floor(b - TINY) + 1) for a, b in zip(low, high, strict=True)]
    for x in ranges[0]:
        for y in ranges[1]:
            for z in ranges[2]:
                kind = blocks(x, y, z)
                if kind not in (Kind.FULL, Kind.PLATE):
                    continue
                top = y + (PLATE if kind == Kind.PLATE else 1.0)
                if axis != 1 and box[1] >= top - TINY:
                    continue
                near, far = ((x, x + 1.0), (y, top), (z, z + 1.0))[axis]
                if wanted > 0 and box[3 + axis] <= near + TINY:
                    wanted = min(wanted, max(0.0, near - box[3 + axis]))
                elif wanted < 0 and box[axis] >= far - TINY:
                    wanted = max(wanted, min(0.0, far - box[axis]))
    return wanted


def _cell(x: float, y: float, z: float) -> tuple[int, int, int]:
    return math.floor(x), math.floor(y), math.floor(z)
