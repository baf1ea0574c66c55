"""Which actions and poses drive a rollout: as recorded, by the explorer, or as the user says.

Where a recording ends, the explorer of the recorder goes on; poses are then reckoned from the actions.
"""

from dataclasses import dataclass
from itertools import cycle

import numpy as np
from numpy.typing import NDArray

from lssvwm_datasets.errors import LssvwmError
from lssvwm_datasets.memory_maze import ACTION_NAMES, POSE_NAMES
from lssvwm_datasets.memory_maze.explorer import Explorer, walk

RECORDED, EXPLORE = "recorded", "explore"
STICKY = 0.8  # probability that a random action is repeated, where there is no map to explore by


@dataclass(frozen=True)
class Drive:
    """Conditions of consecutive frames, rows of NaN where unknown."""

    actions: NDArray[np.float32]  # (T, A)
    poses: NDArray[np.float32]  # (T, P)


def parse_actions(text: str, names: tuple[str, ...]) -> list[int] | None:
    """`forward*10,left*5` -> action ids; None for `recorded` and `explore`. Raises: LssvwmError."""
    if text in (RECORDED, EXPLORE):
        return None
    ids: list[int] = []
    for part in text.split(","):
        name, star, count = (piece.strip() for piece in part.partition("*"))
        if name not in names or (star and not count.isdigit()):
            raise LssvwmError(
                f"--actions {text!r}: {part.strip()!r} is not an action; expected {RECORDED}, {EXPLORE}, "
                f"or a list such as 'forward*10,left*5' of: {', '.join(names)}"
            )
        ids += [names.index(name)] * (int(count) if star else 1)
    if not ids:
        raise LssvwmError(f"--actions {text!r}: no action is left of it")
    return ids


def steer(
    actions: str,
    frames: int,
    action_names: tuple[str, ...],
    pose: NDArray[np.float32] | None,
    layout: NDArray[np.uint8] | None,
    seed: int,
    recorded: Drive | None = None,
) -> Drive:
    """Actions and poses of the next `frames` frames.

    Args:
        actions: `recorded`, `explore`, or a list as in `parse_actions`, repeated as long as needed.
        pose: (P,) where the agent stands now; None where poses are unknown.
        layout: the map, for the explorer and for walls.
        recorded: what the recording holds from here on.
    """
    script = parse_actions(actions, action_names)
    start = min(frames, len(recorded.actions)) if recorded is not None and actions == RECORDED else 0
    columns = (
        len(recorded.poses[0]) if recorded is not None and len(recorded.poses) else (0 if pose is None else len(pose))
    )
    drive = Drive(np.zeros((frames, len(action_names)), np.float32), np.full((frames, columns), np.nan, np.float32))
    if start and recorded is not None:
        drive.actions[:start], drive.poses[:start] = recorded.actions[:start], recorded.poses[:start]
        pose = drive.poses[start - 1] if columns else None
    rng = np.random.default_rng(seed)
    known = action_names == ACTION_NAMES and pose is not None and columns == len(POSE_NAMES)
    explorer = Explorer(layout, rng) if script is None and known and layout is not None else None
    listed = cycle(script) if script is not None else None
    action = int(rng.integers(len(action_names)))
    for frame in range(start, frames):
        if listed is not None:
            action = next(listed)
        elif explorer is not None and pose is not None:
            action = explorer.act(pose)
        elif rng.random() > STICKY:
            action = int(rng.integers(len(action_names)))
        drive.actions[frame, action] = 1
        if known and pose is not None:
            pose = walk(layout, pose, action)
            drive.poses[frame] = pose
    return drive
