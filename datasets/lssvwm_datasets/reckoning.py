"""Poses reckoned from actions by Minecraft's own physics, for recordings that have none.

Turns are exact, since the camera's degrees are the actions; steps are those of an agent on an endless plain
(`minecraft`): walls, slopes, water and knocks are not known, and each leads the reckoning astray a little. How far:
docs/minerl.md. Their columns are named so that nobody takes them for recorded ones.
"""

from collections.abc import Mapping
from dataclasses import fields

import numpy as np
from numpy.typing import NDArray

from lssvwm_datasets.minecraft import Body, Keys, Kind, tick
from lssvwm_datasets.poses import minecraft_poses

KINDS = ("x", "y", "cos", "sin", "pitch")
NAMES = tuple(f"reckoned_{kind}" for kind in KINDS)
KEYS = tuple(field.name for field in fields(Keys))


def reckoned_poses(columns: Mapping[str, NDArray[np.floating]], ticks: int = 1) -> NDArray[np.float32]:
    """(T, 5) poses of `NAMES`, from the first frame on.

    Args:
        columns: (T,) each, what led to every frame: whether a key is held, by the names of `minecraft.Keys`, and how
            many degrees the camera turned down (`camera_pitch`) and to the right (`camera_yaw`). One missing is 0.
        ticks: of the game, in a frame.
    """
    length = len(next(iter(columns.values())))
    held = np.stack([columns.get(key, np.zeros(length)) for key in KEYS], axis=1) > 0.5
    turns = [columns.get(name, np.zeros(length)) for name in ("camera_pitch", "camera_yaw")]
    body = Body(0.0, 0.0, 0.0)
    raw = np.zeros((length, 5))
    for frame, (keys, pitch, yaw) in enumerate(zip(held.tolist(), *map(np.ndarray.tolist, turns), strict=True)):
        if frame:  # nothing led to the first
            body = body.turned(yaw, pitch)
            for _ in range(ticks):
                body = tick(body, Keys(*keys), _plain)
        raw[frame] = body.x, body.y, body.z, body.pitch, body.yaw
    poses, names = minecraft_poses(raw)
    return poses[:, [names.index(kind) for kind in KINDS]]  # the height is the terrain's, which is not known


def _plain(x: int, y: int, z: int) -> int:
    return Kind.FULL if y < 0 else Kind.FREE
