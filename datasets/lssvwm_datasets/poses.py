"""Poses in one form: what each column is, and how a recording's own columns become those that a world is told.

A column is of one kind:

    x, y      position on the ground, seen from above with y to the left of x
    z         height
    cos, sin  of the heading, which turns to the left from x to y
    pitch     where the agent looks, in radians above the horizon
    other     anything else; of recordings that were prepared before poses had kinds

Positions are in units of which an agent covers a part in a step and a view changes within one or two: cells of a maze,
blocks of Minecraft. A world's memory is addressed by the distances between poses (`lssvwm_core.model.address`), for
which such positions, cosines and sines are made.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

HIGHEST_POSE = 1e8  # blocks or degrees that a recording may have; Minecraft ends at 3e7
POSITIONS = ("x", "y", "z")
KINDS = (*POSITIONS, "cos", "sin", "pitch")  # in the order of canonical columns
HEADING = "heading"  # an angle; recordings have it, canonical poses have its cosine and sine
OTHER = "other"


@dataclass(frozen=True)
class Plane:
    """The numbers of the columns that tell where an agent stands on the ground, and which way it looks."""

    x: int
    y: int
    cos: int
    sin: int


def kinds_of(names: tuple[str, ...], kinds: tuple[str, ...] = ()) -> tuple[str, ...]:
    """The kinds of the columns `names`: as given, else by the names where all of these are names of kinds, else other.

    Raises: ValueError for kinds that are unknown, or not one a column.
    """
    if not kinds:
        return names if set(names) <= set(KINDS) else (OTHER,) * len(names)
    if len(kinds) != len(names) or not set(kinds) <= {*KINDS, OTHER}:
        raise ValueError(
            f"pose kinds {kinds} for columns {names}; expected one of {', '.join(KINDS)}, {OTHER} for each"
        )
    return kinds


def plane_of(names: tuple[str, ...], kinds: tuple[str, ...] = ()) -> Plane | None:
    """The columns of a position on the ground and a heading; None where a pose has not all four. See `kinds_of`."""
    kinds = kinds_of(names, kinds)
    if not {"x", "y", "cos", "sin"} <= set(kinds):
        return None
    return Plane(*(kinds.index(kind) for kind in ("x", "y", "cos", "sin")))


def places_of(
    poses: NDArray[np.float32], names: tuple[str, ...], kinds: tuple[str, ...] = ()
) -> NDArray[np.float32] | None:
    """(T, P) poses -> (T, 2) positions x, y on the ground; None where the columns do not tell. See `kinds_of`."""
    kinds = kinds_of(names, kinds)
    return poses[:, [kinds.index("x"), kinds.index("y")]] if {"x", "y"} <= set(kinds) else None


def canonical(
    raw: NDArray[np.floating],
    kinds: tuple[str, ...],
    *,
    degrees: bool = False,
    unit: float = 1.0,
    relative: bool = False,
) -> tuple[NDArray[np.float32], tuple[str, ...]]:
    """Poses as every recording should have them.

    Args:
        raw: (T, columns) as the recording has them; large positions should come in float64.
        kinds: of the columns: the canonical ones, or `heading`, an angle to the left of x.
        degrees: angles (heading, pitch) are in degrees, else in radians.
        unit: how many of the recording's units of length are one cell or block.
        relative: positions count from the episode's first frame: for worlds in which every episode starts elsewhere.

    Returns: (T, P) float32, and the names of the columns, which are their kinds: those of x, y, z, cos, sin, pitch that
        there are, in this order.

    Raises: ValueError for kinds that do not fit the columns, or each other.
    """
    given = set(kinds)
    if raw.ndim != 2 or raw.shape[1] != len(kinds) or len(given) < len(kinds) or not given <= {*KINDS, HEADING}:
        raise ValueError(f"poses of shape {raw.shape}, of kinds {kinds}; expected each of {KINDS} or {HEADING} once")
    if ("cos" in given) != ("sin" in given) or (HEADING in given and "cos" in given):
        raise ValueError(f"pose kinds {kinds}: a heading is an angle, or a cosine and a sine")
    columns = dict(zip(kinds, raw.astype(np.float64).T, strict=True))
    for kind in given & {HEADING, "pitch"} if degrees else ():
        columns[kind] = np.radians(columns[kind])
    for kind in given & set(POSITIONS):
        columns[kind] = (columns[kind] - (columns[kind][:1] if relative else 0.0)) / unit
    if HEADING in given:
        columns["cos"], columns["sin"] = np.cos(columns[HEADING]), np.sin(columns[HEADING])
    names = tuple(kind for kind in KINDS if kind in columns)
    return np.stack([columns[name] for name in names], axis=1).astype(np.float32), names


def minecraft_poses(raw: NDArray[np.floating]) -> tuple[NDArray[np.float32], tuple[str, ...]]:
    """(T, 5) Minecraft's x, y (the height), z in blocks, pitch and yaw in degrees -> canonical, and their names.

    Its yaw turns to the right from z, its pitch downwards; seen from above, z is to the right of x.
    """
    turned = raw * (1, 1, -1, -1, -1) + (0, 0, 0, 0, -90)
    return canonical(turned, ("x", "z", "y", "pitch", "heading"), degrees=True, relative=True)
