"""Memory Maze (Pašukonis et al., 2022): reader of the offline layout, recorder of new episodes, explorer."""

SOURCE_ALIGNMENT = "action[t] led to image[t]; action[0] is a dummy"
ACTION_NAMES = ("noop", "forward", "left", "right", "forward_left", "forward_right")
POSE_NAMES = ("x", "y", "cos", "sin")
FPS = 4.0  # control frequency of the environment, Hz
SIZES = ("9x9", "11x11", "13x13", "15x15")
