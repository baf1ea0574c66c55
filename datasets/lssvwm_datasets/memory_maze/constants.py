"""What every recording of Memory Maze has in common."""

SOURCE_ALIGNMENT = "action[t] led to image[t]; action[0] is a dummy"
ACTION_NAMES = ("noop", "forward", "left", "right", "forward_left", "forward_right")
POSE_NAMES = ("x", "y", "cos", "sin")  # positions in cells
FPS = 4.0  # control frequency of the environment, Hz
SIZES = {"9x9": 1000, "11x11": 2000, "13x13": 3000, "15x15": 4000}  # steps before the environment's time limit
