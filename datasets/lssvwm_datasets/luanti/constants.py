"""What every recording of Luanti has in common."""

from lssvwm_datasets.worldmem import FPS

ACTION_NAMES = ("forward", "back", "left", "right", "jump", "sneak", "sprint", "camera_pitch", "camera_yaw")
ACTION_UNITS = ("binary",) * 7 + ("degrees",) * 2
POSE_NAMES = ("x", "y", "z", "cos", "sin", "pitch")
TICKS = round(20 / FPS)  # of Minecraft, in a step
SIZES = (64, 128)  # pixels
MARK = "luanti"  # the key of a recording's npz that tells it from WorldMem's: a JSON object of how it was made
