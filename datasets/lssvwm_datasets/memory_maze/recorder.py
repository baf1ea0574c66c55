"""Records episodes of the real environment in the layout of the offline dataset.

An episode is a function of (size, seed, steps): it has its own environment and its own random generators.
"""

import gc
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from lssvwm_datasets.files import written_whole
from lssvwm_datasets.memory_maze.constants import SIZES
from lssvwm_datasets.memory_maze.environment import fast_physics, load_tasks, make_environment, set_up_process
from lssvwm_datasets.memory_maze.explorer import Explorer
from lssvwm_datasets.recorder import EpisodeRequest, Recorder

OBSERVED = (
    "image",
    "target_color",
    "agent_pos",
    "agent_dir",
    "targets_vec",
    "targets_pos",
    "target_vec",
    "target_pos",
    "maze_layout",
)
ZIP_TIME = (1980, 1, 1, 0, 0, 0)


def record(request: EpisodeRequest) -> None:
    """Write one episode to its path."""
    arrays = record_episode(request.size, request.seed, request.steps)
    with written_whole(request.path) as partial:
        save_npz(partial, arrays, zipfile.ZIP_LZMA if request.compact else zipfile.ZIP_DEFLATED)


def record_episode(size: str, seed: int, steps: int) -> dict[str, NDArray[Any]]:
    """One episode: the 13 arrays of the offline dataset (T = steps + 1 rows) and the simulator's state.

    `sim_qpos` (T, 5) float64 is x, y, z, steer, roll: with the maze (its seed) any frame can be rendered again exactly.
    """
    rng = np.random.default_rng(seed)
    rows: dict[str, list[Any]] = {key: [] for key in (*OBSERVED, "action", "reward", "sim_qpos")}
    with fast_physics():
        environment = make_environment(size, seed)
        try:
            timestep = environment.reset()
            explorer = Explorer(timestep.observation["maze_layout"].copy(), rng)
            action = None
            for step in range(steps + 1):
                if step > 0:
                    action = explorer.act(np.concatenate([rows["agent_pos"][-1], rows["agent_dir"][-1]]))
                    timestep = environment.step(action)
                for key in OBSERVED:
                    rows[key].append(np.array(timestep.observation[key]))  # a copy: buffers are reused
                rows["action"].append(np.eye(6)[action] if action is not None else np.zeros(6))
                rows["reward"].append(float(timestep.reward or 0.0))
                rows["sim_qpos"].append(environment.physics.data.qpos.copy())
        finally:
            environment.close()
            gc.collect()  # camera and physics refer to each other
    arrays = {key: np.stack(values) for key, values in rows.items()}
    qpos = arrays.pop("sim_qpos")
    arrays["terminal"] = np.zeros(steps + 1, dtype=bool)
    arrays["reset"] = np.arange(steps + 1) == 0
    arrays["sim_qpos"] = qpos
    return arrays


def save_npz(path: Path, arrays: dict[str, NDArray[Any]], compression: int) -> None:
    """`np.savez_compressed` with fixed time stamps, so that the same episode is the same file."""
    with zipfile.ZipFile(path, "w") as archive:
        for key, array in arrays.items():
            entry = zipfile.ZipInfo(f"{key}.npy", ZIP_TIME)
            entry.compress_type = compression
            with archive.open(entry, "w", force_zip64=True) as handle:
                npy.write_array(handle, np.ascontiguousarray(array), allow_pickle=False)


RECORDER = Recorder(record, check=load_tasks, set_up_process=set_up_process, sizes=SIZES, compacts=True)
