"""A second environment, as somebody would add one: a lawn without walls, its pictures a function of the pose."""

import math
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np

from lssvwm_datasets.environment import Environment, FullTurn, Layout, Pose
from lssvwm_datasets.episode import Episode
from lssvwm_datasets.errors import DamagedRecording
from lssvwm_datasets.files import written_whole
from lssvwm_datasets.format import Format, ReaderOptions, find_singles
from lssvwm_datasets.frames import FrameParts
from lssvwm_datasets.npz import load_arrays, npz_keys
from lssvwm_datasets.poses import canonical
from lssvwm_datasets.recorder import EpisodeRequest, Recorder

ACTIONS = ("stay", "ahead", "port", "starboard")
POSE_NAMES = ("height", "east", "north", "cosine", "sine")
POSE_KINDS = ("z", "x", "y", "cos", "sin")
STEP, TURN = 0.5, math.tau / 8


class Wanderer:
    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng

    def act(self, pose: Pose) -> int:
        """Ahead, with a turn now and then, back towards the origin when far from it."""
        far = math.hypot(pose[1], pose[2]) > 4
        return int(self.rng.choice(4, p=[0.05, 0.35, 0.55, 0.05] if far else [0.05, 0.7, 0.2, 0.05]))


def explorer(layout: Layout | None, rng: np.random.Generator) -> Wanderer:
    return Wanderer(rng)


def move(layout: Layout | None, pose: Pose, action: int) -> Pose:
    z, x, y, cos, sin = (float(value) for value in pose)
    heading = math.atan2(sin, cos) + {2: TURN, 3: -TURN}.get(action, 0.0)
    step = STEP if action == 1 else 0.0
    return np.array([z, x + step * cos, y + step * sin, math.cos(heading), math.sin(heading)], np.float32)


def record(request: EpisodeRequest) -> None:
    rng = np.random.default_rng(request.seed)
    agent, pose = Wanderer(rng), np.array([7, 0, 0, 1, 0], np.float32)
    poses, moves = [pose], [0]
    for _ in range(request.steps):
        moves.append(agent.act(pose))
        poses.append(move(None, poses[-1], moves[-1]))
        pose = poses[-1]
    places = np.stack(poses)
    bearings = np.degrees(np.arctan2(places[:, 4], places[:, 3]))
    across = np.arange(64) / 64 * math.tau
    bright = np.cos(across - np.radians(bearings)[:, None]) + 0.3 * np.cos(places[:, 1:2] + 2 * places[:, 2:3])
    views = np.broadcast_to((128 + 90 * bright).astype(np.uint8)[:, None, :, None], (len(places), 64, 64, 3))
    with written_whole(request.path) as partial_file, partial_file.open("wb") as file:
        np.savez_compressed(file, views=views, moves=moves, place=places[:, [1, 2, 0]], bearing=bearings)


def check() -> None:
    """Nothing has to be installed for it."""


def read(path: Path, id: str, options: ReaderOptions) -> Iterator[Episode]:
    arrays = load_arrays(path, ("views", "moves", "place", "bearing"))
    if len(arrays) < 4:
        raise DamagedRecording(f"{path}: expected views, moves, place and bearing")
    raw = np.concatenate([arrays["place"], arrays["bearing"][:, None]], axis=1)
    poses, names = canonical(raw, ("x", "y", "z", "heading"), degrees=True)
    assert names == ("x", "y", "z", "cos", "sin")
    actions = np.eye(4, dtype=np.float32)[arrays["moves"]]
    actions[0] = 0
    yield Episode(
        id=id,
        frames=FrameParts.of(arrays["views"]).resized(options.size),
        frame_size=options.size or (64, 64),
        actions=actions,
        action_names=ACTIONS,
        action_units=("one-hot",) * len(ACTIONS),
        source_alignment="action[t] led to frame[t]; action[0] is a dummy",
        fps=10.0,
        poses=poses[:, [2, 0, 1, 3, 4]],
        pose_names=POSE_NAMES,
        pose_kinds=POSE_KINDS,
    )


def recognises(path: Path) -> bool:
    return {"views", "moves"} <= npz_keys(path)


TOY = Environment(
    name="toy",
    title="A lawn",
    action_names=ACTIONS,
    pose_names=POSE_NAMES,
    pose_kinds=POSE_KINDS,
    fps=10.0,
    idle="stay",
    keys={"i": "ahead", "j": "port", "l": "starboard"},
    explorer=explorer,
    kinematics=move,
    full_turn=FullTurn("port", frames=8),
    recorder=Recorder(record, check),
    format=Format("toy", "npz files with views and moves", partial(find_singles, ".npz"), recognises, read),
)
