"""Records episodes of Luanti in the layout of WorldMem's Minecraft data set: an mp4 without loss, and an npz beside it.

An episode is a function of (seed, steps, size): it has a world of its own.
"""

import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lssvwm_datasets.files import written_whole
from lssvwm_datasets.luanti.constants import MARK, SIZES, TICKS
from lssvwm_datasets.luanti.explorer import Action
from lssvwm_datasets.luanti.game import GAME, Game, check, version
from lssvwm_datasets.luanti.walk import Walk, find_start, shoot, take_walk
from lssvwm_datasets.recorder import EpisodeRequest, Recorder
from lssvwm_datasets.worldmem import CAMERA_NULL, CAMERA_STEP, COLUMNS, FPS

VIEW = 48  # nodes
VIEWS = (16, 96)  # nodes, from the least to the most
LARGER = 2  # times as large a picture is drawn as it is kept: its pixels are means of several
LONGEST = 10_000  # steps
SUFFIX = ".npz"


def record(request: EpisodeRequest) -> None:
    """Write one episode: the video beside the path first, then what the path names."""
    rng = np.random.default_rng(request.seed)
    with Game(request.seed, LARGER * int(request.size), request.view) as game:
        terrain, start = find_start(game, rng)
        walk = take_walk(terrain, start, request.steps, TICKS, rng)
        pictures = shoot(game, walk, rng)
    write_episode(request.path, smaller(pictures), walk, request.seed, request.view)


def write_episode(path: Path, frames: NDArray[np.uint8], walk: Walk, seed: int, view: int) -> None:
    """The video beside `path` first, then what `path` names: WorldMem's arrays, and how the episode was made."""
    with written_whole(path.with_suffix(".mp4")) as partial:
        write_video(partial, frames)
    made = {"game": GAME, "engine": version(), "seed": seed, "viewing_range": view}
    with written_whole(path) as partial, partial.open("wb") as file:
        actions = np.stack([choices(action) for action in walk.actions])
        arrays: dict[str, Any] = {"actions": actions, "poses": walk.poses, MARK: np.array(json.dumps(made))}
        np.savez_compressed(file, **arrays)


def choices(action: Action) -> NDArray[np.int32]:
    """(8,) an action as MineDojo has it."""
    row, keys = np.zeros(COLUMNS, np.int32), action.keys
    row[0] = 1 if keys.forward else 2 if keys.back else 0
    row[1] = 1 if keys.left else 2 if keys.right else 0
    row[2] = 1 if keys.jump else 2 if keys.sneak else 3 if keys.sprint else 0
    row[3], row[4] = (CAMERA_NULL + round(angle / CAMERA_STEP) for angle in (action.pitch, action.yaw))
    return row


def write_video(path: Path, frames: NDArray[np.uint8]) -> None:
    """An mp4 from which the same pixels are read."""
    import av

    with av.open(str(path), "w", format="mp4") as container:
        options = {"qp": "0", "preset": "veryslow", "threads": "1"}
        stream = container.add_stream("libx264rgb", rate=Fraction(FPS), options=options)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "rgb24"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())


def smaller(pictures: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(T, H, W, 3) -> (T, H / LARGER, W / LARGER, 3): means, rounded."""
    length, height, width, _ = pictures.shape
    parts = pictures.reshape(length, height // LARGER, LARGER, width // LARGER, LARGER, 3)
    return ((parts.sum(axis=(2, 4), dtype=np.uint16) + LARGER**2 // 2) // LARGER**2).astype(np.uint8)


RECORDER = Recorder(
    record, check=check, suffix=SUFFIX, sizes={str(size): LONGEST for size in SIZES}, views=VIEWS, view=VIEW
)
