"""Memory Maze (Pašukonis et al., 2022): its record (`maze`), reader of the offline layout, recorder, explorer."""

from lssvwm_datasets.memory_maze.constants import ACTION_NAMES, POSE_NAMES

__all__ = ["ACTION_NAMES", "POSE_NAMES"]
