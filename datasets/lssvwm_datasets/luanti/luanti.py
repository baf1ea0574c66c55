"""The record of Luanti, all that the rest of the toolkit knows of it."""

from lssvwm_datasets.environment import Environment, FullTurn
from lssvwm_datasets.luanti.constants import ACTION_NAMES, ACTION_UNITS, POSE_NAMES
from lssvwm_datasets.luanti.reader import FORMAT
from lssvwm_datasets.luanti.recorder import RECORDER
from lssvwm_datasets.worldmem import CAMERA_STEP, FPS

LUANTI = Environment(
    name="luanti",
    title="Luanti (Minetest Game), not Minecraft",
    action_names=ACTION_NAMES,
    action_units=ACTION_UNITS,
    moves={
        "stay": {},
        "forward": {"forward": 1},
        "back": {"back": 1},
        "strafe_left": {"left": 1},
        "strafe_right": {"right": 1},
        "turn_left": {"camera_yaw": -CAMERA_STEP},
        "turn_right": {"camera_yaw": CAMERA_STEP},
        "forward_left": {"forward": 1, "camera_yaw": -CAMERA_STEP},
        "forward_right": {"forward": 1, "camera_yaw": CAMERA_STEP},
        "jump": {"forward": 1, "jump": 1},
        "sprint": {"forward": 1, "sprint": 1},
        "look_up": {"camera_pitch": -CAMERA_STEP},
        "look_down": {"camera_pitch": CAMERA_STEP},
    },
    pose_names=POSE_NAMES,
    fps=FPS,
    idle="stay",
    keys={
        "w": "forward",
        "a": "turn_left",
        "s": "back",
        "d": "turn_right",
        "q": "forward_left",
        "e": "forward_right",
        "j": "jump",
        "r": "sprint",
        "i": "look_up",
        "k": "look_down",
        "z": "strafe_left",
        "c": "strafe_right",
        "ArrowUp": "forward",
        "ArrowLeft": "turn_left",
        "ArrowDown": "back",
        "ArrowRight": "turn_right",
    },
    full_turn=FullTurn("turn_left", frames=round(360 / CAMERA_STEP)),
    recorder=RECORDER,
    format=FORMAT,
)
