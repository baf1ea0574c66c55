"""The record of Luanti, all that the rest of the toolkit knows of it."""

from lssvwm_datasets.environment import Environment, FullTurn
from lssvwm_datasets.luanti.constants import ACTION_NAMES, ACTION_UNITS, POSE_NAMES
from lssvwm_datasets.luanti.reader import FORMAT
from lssvwm_datasets.luanti.recorder import RECORDER
from lssvwm_datasets.minecraft_play import keys_of, walking
from lssvwm_datasets.worldmem import CAMERA_STEP, FPS

MOVES = walking(CAMERA_STEP)

LUANTI = Environment(
    name="luanti",
    title="Luanti (Minetest Game), not Minecraft",
    action_names=ACTION_NAMES,
    action_units=ACTION_UNITS,
    moves=MOVES,
    pose_names=POSE_NAMES,
    fps=FPS,
    idle="stay",
    keys=keys_of(MOVES),
    full_turn=FullTurn("turn_left", frames=round(360 / CAMERA_STEP)),
    recorder=RECORDER,
    format=FORMAT,
)
