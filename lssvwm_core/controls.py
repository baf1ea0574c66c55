"""What leads a rollout: actions as recorded, as the environment's explorer chooses, or as the user lists them.

Where a recording ends, the explorer goes on; poses then follow from the actions by the environment's kinematics.
"""

from dataclasses import dataclass
from itertools import cycle

import numpy as np
from numpy.typing import NDArray

from lssvwm_datasets.environments import environment_of, moves_of
from lssvwm_datasets.errors import LssvwmError
from lssvwm_datasets.shards import ShardHeader

RECORDED, EXPLORE = "recorded", "explore"
STICKY = 0.8  # probability that a random action is repeated, where nobody can explore


@dataclass(frozen=True)
class Controls:
    """Actions (T, A) and poses (T, P) of consecutive frames, rows of NaN where unknown."""

    actions: NDArray[np.float32]
    poses: NDArray[np.float32]


def parse_actions(text: str, names: tuple[str, ...]) -> list[int] | None:
    """`forward*10,left*5` -> numbers of moves; None for `recorded` and `explore`. Raises: LssvwmError."""
    if text in (RECORDED, EXPLORE):
        return None
    numbers: list[int] = []
    for part in text.split(","):
        name, star, count = (piece.strip() for piece in part.partition("*"))
        if name not in names or (star and not count.isdigit()):
            raise LssvwmError(
                f"--actions {text!r}: {part.strip()!r} is not an action; expected {RECORDED}, {EXPLORE}, "
                f"or a list such as 'forward*10,left*5' of: {', '.join(names)}"
            )
        numbers += [names.index(name)] * (int(count) if star else 1)
    if not numbers:
        raise LssvwmError(f"--actions {text!r}: no action is left of it")
    return numbers


def plan_controls(
    actions: str,
    frames: int,
    header: ShardHeader,
    pose: NDArray[np.float32] | None,
    layout: NDArray[np.uint8] | None,
    seed: int,
    recorded: Controls | None = None,
) -> Controls:
    """Actions and poses of the next `frames` frames.

    Args:
        actions: `recorded`, `explore`, or a list as in `parse_actions`, repeated as long as needed.
        header: of the data that the world was trained on; it tells the environment.
        pose: (P,) where the agent stands now; None where poses are unknown.
        layout: the map, for the explorer and for walls.
        recorded: what the recording holds from here on.

    Raises: LssvwmError for actions that the world does not have.
    """
    names, rows = moves_of(header)
    script = parse_actions(actions, names)
    start = min(frames, len(recorded.actions)) if recorded is not None and actions == RECORDED else 0
    if recorded is not None and len(recorded.poses):
        columns = recorded.poses.shape[1]
    else:
        columns = 0 if pose is None else len(pose)
    planned = Controls(np.zeros((frames, rows.shape[1]), np.float32), np.full((frames, columns), np.nan, np.float32))
    if start and recorded is not None:
        planned.actions[:start], planned.poses[:start] = recorded.actions[:start], recorded.poses[:start]
        pose = planned.poses[start - 1] if columns else None
    rng = np.random.default_rng(seed)
    environment = environment_of(header)
    if environment is None or columns != len(environment.pose_names):
        pose = None
    explorer = None
    if script is None and pose is not None and environment is not None and environment.explorer is not None:
        explorer = environment.explorer(layout, rng)
    kinematics = environment.kinematics if environment is not None and pose is not None else None
    listed = cycle(script) if script is not None else None
    move = int(rng.integers(len(names)))
    for frame in range(start, frames):
        if listed is not None:
            move = next(listed)
        elif explorer is not None and pose is not None:
            move = explorer.act(pose)
        elif rng.random() > STICKY:
            move = int(rng.integers(len(names)))
        planned.actions[frame] = rows[move]
        pose = kinematics(layout, pose, move) if kinematics is not None and pose is not None else None
        if pose is not None:
            planned.poses[frame] = pose
    return planned
