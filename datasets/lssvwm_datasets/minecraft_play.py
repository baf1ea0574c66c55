"""How to move in Minecraft, whatever columns of its controls a data set holds.

MineRL, VPT and WorldMem record keys and the camera's degrees beside controls of their own, TECO four actions. A world
of theirs is played, turned and listed actions for by the same moves; controls that no move uses are left alone.
"""

from collections.abc import Mapping
from typing import Protocol

from lssvwm_datasets import reckoning
from lssvwm_datasets.environment import Environment, FullTurn
from lssvwm_datasets.teco import MINECRAFT_ACTIONS
from lssvwm_datasets.teco import TURN as TECO_TURN

TURN_RATE = 150.0  # degrees a second, about, while a key is held: a full turn is a whole number of frames
FASTEST = 1000.0  # frames a second; configs come from anywhere
CAMERA = ("camera_pitch", "camera_yaw")
NEEDED = ("forward", "back", "left", "right", "jump", "sneak", "sprint", *CAMERA)
KEYS = {
    "w": "forward",
    "a": "turn_left",
    "s": "back",
    "d": "turn_right",
    "q": "forward_turn_left",
    "e": "forward_turn_right",
    "j": "jump",
    "r": "sprint",
    "i": "look_up",
    "k": "look_down",
    "z": "strafe_left",
    "c": "strafe_right",
    "f": "attack",
    "u": "use",
    "ArrowUp": "forward",
    "ArrowLeft": "turn_left",
    "ArrowDown": "back",
    "ArrowRight": "turn_right",
}
TECO_KEYS = {
    "w": "forward",
    "a": "left",
    "d": "right",
    "ArrowUp": "forward",
    "ArrowLeft": "left",
    "ArrowRight": "right",
}


class MinecraftColumns(Protocol):
    """What a data set of Minecraft says of its columns."""

    @property
    def action_names(self) -> tuple[str, ...]: ...
    @property
    def action_units(self) -> tuple[str, ...]: ...
    @property
    def pose_names(self) -> tuple[str, ...]: ...
    @property
    def pose_kinds(self) -> tuple[str, ...]: ...
    @property
    def fps(self) -> float: ...


def walking(degrees: float) -> dict[str, dict[str, float]]:
    """Moves of an agent on foot, by the columns that every data set has; turns are of so many degrees a frame."""
    return {
        "stay": {},
        "forward": {"forward": 1},
        "back": {"back": 1},
        "strafe_left": {"left": 1},
        "strafe_right": {"right": 1},
        "turn_left": {"camera_yaw": -degrees},
        "turn_right": {"camera_yaw": degrees},
        "forward_turn_left": {"forward": 1, "camera_yaw": -degrees},
        "forward_turn_right": {"forward": 1, "camera_yaw": degrees},
        "jump": {"forward": 1, "jump": 1},
        "sprint": {"forward": 1, "sprint": 1},
        "look_up": {"camera_pitch": -degrees},
        "look_down": {"camera_pitch": degrees},
    }


def keys_of(moves: Mapping[str, object]) -> dict[str, str]:
    """The keys of those moves that there are."""
    return {key: move for key, move in KEYS.items() if move in moves}


def minecraft_of(columns: MinecraftColumns) -> Environment | None:
    """Minecraft with the columns of a data set; None where these are not Minecraft's."""
    names = columns.action_names
    if names == MINECRAFT_ACTIONS and columns.pose_names == reckoning.NAMES:  # other agents turn by these names, too
        moves: dict[str, dict[str, float]] = {}
        keys, turn, idle = TECO_KEYS, FullTurn("left", round(360 / TECO_TURN)), MINECRAFT_ACTIONS[0]
    elif set(NEEDED) <= set(names) and _turns_by_degrees(columns) and columns.fps <= FASTEST:
        frames = max(1, round(360 * columns.fps / TURN_RATE))
        moves = walking(360 / frames)
        moves |= {name: {name: 1.0} for name in ("attack", "use") if name in names}
        keys, turn, idle = keys_of(moves), FullTurn("turn_left", frames), "stay"
    else:
        return None
    return Environment(
        name="minecraft",
        title="Minecraft",
        action_names=names,
        action_units=columns.action_units,
        moves=moves,
        pose_names=columns.pose_names,
        pose_kinds=columns.pose_kinds,
        fps=columns.fps,
        idle=idle,
        keys=keys,
        full_turn=turn,
    )


def _turns_by_degrees(columns: MinecraftColumns) -> bool:
    """Whether the camera's columns are in degrees, or nobody says in what."""
    units = dict(zip(columns.action_names, columns.action_units, strict=False))
    return all(units.get(name, "degrees") == "degrees" for name in CAMERA)
