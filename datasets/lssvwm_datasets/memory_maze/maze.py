"""The record of Memory Maze, all that the rest of the toolkit knows of it."""

import math

from lssvwm_datasets.environment import Environment, FullTurn
from lssvwm_datasets.memory_maze.constants import ACTION_NAMES, FPS, POSE_NAMES
from lssvwm_datasets.memory_maze.explorer import TURN_PER_STEP, explorer, walk
from lssvwm_datasets.memory_maze.reader import FORMAT
from lssvwm_datasets.memory_maze.recorder import RECORDER
from lssvwm_datasets.memory_maze.simulator import SIMULATOR

MAZE = Environment(
    name="maze",
    title="Memory Maze",
    action_names=ACTION_NAMES,
    pose_names=POSE_NAMES,
    fps=FPS,
    idle="noop",
    keys={
        "w": "forward",
        "a": "left",
        "s": "noop",
        "d": "right",
        "q": "forward_left",
        "e": "forward_right",
        "ArrowUp": "forward",
        "ArrowLeft": "left",
        "ArrowDown": "noop",
        "ArrowRight": "right",
    },
    explorer=explorer,
    kinematics=walk,
    full_turn=FullTurn("left", frames=round(math.tau / TURN_PER_STEP)),
    recorder=RECORDER,
    simulator=SIMULATOR,
    format=FORMAT,
)
