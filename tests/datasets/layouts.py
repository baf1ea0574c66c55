"""Writes small recordings in the genuine layout of every format, with what reading them must give.

Frame t of a recording is flat, of grey level `GREY * t`, and actions are a function of t, so that an error of one frame
in their alignment shows. The expected actions are written down from the formats' descriptions.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import h5py
import imageio.v2 as imageio
import numpy as np
from numpy.typing import NDArray

GREY = 6
LENGTH = 24  # frames of an episode


@dataclass
class Expected:
    """Grey levels (T,) and actions (T, A) of an episode, in the toolkit's alignment."""

    levels: NDArray[np.float64]
    actions: NDArray[np.float32]


def write_video(path: Path, levels: Any, size: tuple[int, int], fps: float = 20, codec: str = "libx264") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with imageio.get_writer(path, format="FFMPEG", fps=fps, codec=codec, macro_block_size=2, quality=9) as writer:
        for level in levels:
            writer.append_data(np.full((*size, 3), level, np.uint8))


def write_timed_video(
    path: Path,
    levels: Any,
    ticks: Any,
    size: tuple[int, int] = (64, 64),
    fps: int = 20,
    codec: str = "libx264",
    bf: int = 0,
    options: dict[str, str] | None = None,
) -> None:
    """A video whose frame i is shown at `ticks[i]` frame periods, or fractions; `bf` frames refer to later ones."""
    unit = Fraction(1, 1000 * fps)
    with av.open(str(path), "w", format="mp4", options=options or {}) as container:
        stream = container.add_stream(codec, rate=fps)
        stream.height, stream.width = size
        stream.pix_fmt = "yuv420p"
        stream.time_base = stream.codec_context.time_base = unit
        stream.options = {"crf": "4", "bf": str(bf)} if codec == "libx264" else {}
        for level, tick in zip(levels, ticks, strict=True):
            frame = av.VideoFrame.from_ndarray(np.full((*size, 3), level, np.uint8), format="rgb24")
            frame.pts, frame.time_base = round(1000 * tick), unit
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def one_hot(ids: Any, count: int) -> NDArray[np.float32]:
    return np.eye(count, dtype=np.float32)[np.asarray(ids)]


def maze(folder: Path, name: str = "20220920T045048-23", change: dict[str, Any] | None = None) -> Expected:
    steps = np.arange(LENGTH)
    actions = one_hot(steps % 6, 6)
    actions[0] = 0
    image = np.broadcast_to((GREY * steps).astype(np.uint8)[:, None, None, None], (LENGTH, 64, 64, 3))
    arrays = {
        "image": image,
        "agent_pos": np.zeros((LENGTH, 2)),
        "agent_dir": np.ones((LENGTH, 2)),
        "maze_layout": np.ones((LENGTH, 9, 9), np.uint8),
        "action": actions.astype(float),
        "reset": steps == 0,
    }
    folder.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(folder / f"{name}.npz", **{**arrays, **(change or {})})
    return Expected(GREY * steps, actions)


STREAM = "v3_absolute_grape_changeling-16_2489-4511"
BUTTONS = ("forward", "back", "left", "right", "jump", "sneak", "sprint", "attack")


def minerl(
    folder: Path,
    name: str = STREAM,
    *,
    extra: int = 5,
    count: int | None = None,
    size: tuple[int, int] = (64, 64),
    codec: str = "libx264",
    change: dict[str, Any] | None = None,
) -> Expected:
    """`extra` frames precede the first state; `count` is what the metadata says instead of the truth."""
    steps = np.arange(LENGTH - 1)
    rng = np.random.default_rng(len(name))
    buttons = {button: rng.integers(0, 2, LENGTH - 1) for button in BUTTONS}
    camera = np.stack([-0.5 * steps, 0.25 * steps], axis=1).astype(np.float32)  # pitch, yaw
    arrays: dict[str, Any] = {f"action${button}": values for button, values in buttons.items()}
    arrays |= {"action$camera": camera, "reward": np.zeros(LENGTH - 1, np.float32)}
    arrays |= {key: value for key, value in (change or {}).items() if value is not None}
    stream = folder / name
    frames = np.arange(-extra, LENGTH) + extra  # the first states are frames `extra` and on
    write_video(stream / "recording.mp4", GREY * frames % 250, size, codec=codec)
    np.savez_compressed(stream / "rendered.npz", **{k: v for k, v in arrays.items() if k not in removed(change)})
    metadata = {"success": True, "duration_steps": LENGTH - 1, "true_video_frame_count": count or len(frames)}
    (stream / "metadata.json").write_text(json.dumps(metadata))
    taken = np.stack([*(buttons[button] for button in BUTTONS), *camera.T], axis=1)
    levels = GREY * frames[extra:] % 250
    levels[-1] = levels[-2]  # the loader's work-around for bad last frames
    return Expected(levels, np.concatenate([np.zeros((1, 10)), taken]).astype(np.float32))


def removed(change: dict[str, Any] | None) -> set[str]:
    return {key for key, value in (change or {}).items() if value is None}


VPT_NAME = "cheeky-cornflower-setter-02e496ce4abb-20220421-092639"
VPT_COLUMNS = (
    *("forward", "back", "left", "right", "jump", "sneak", "sprint", "drop", "inventory", "swapHands", "ESC"),
    *(f"hotbar.{number}" for number in range(1, 10)),
    *("attack", "use", "pickItem", "camera_pitch", "camera_yaw"),
)


def tick(t: int, **change: Any) -> dict[str, Any]:
    """A line of a VPT recording: forward on every third tick, the mouse moving t pixels right and t / 2 up."""
    mouse = {"x": 640.0, "y": 360.0, "dx": float(t), "dy": -t / 2, "scaledX": 0.0, "scaledY": 0.0, "dwheel": 0.0}
    line = {
        "mouse": {**mouse, "buttons": [], "newButtons": [], **change.pop("mouse", {})},
        "keyboard": {"keys": ["key.keyboard.w"] if t % 3 == 0 else [], "newKeys": [], "chars": ""},
        "isGuiOpen": False,
        "isGuiInventory": False,
        "hotbar": 0,
        "tick": t,
    }
    return {**line, **change}


def vpt(
    folder: Path,
    name: str = VPT_NAME,
    *,
    lines: list[dict[str, Any]] | None = None,
    frames: int = LENGTH,
    size: tuple[int, int] = (360, 640),
    ending: str = "\n",
    options: bool = True,
) -> Expected:
    lines = [tick(t) for t in range(LENGTH)] if lines is None else lines
    write_video(folder / f"{name}.mp4", GREY * np.arange(frames) % 250, size)
    (folder / f"{name}.jsonl").write_text("\n".join(map(json.dumps, lines)) + ending)
    if options:
        (folder / f"{name}-options.json").write_text("{}")
    length = min(len(lines), frames)
    actions = np.zeros((length, len(VPT_COLUMNS)), np.float32)
    for t in range(1, length):  # line t - 1 led to frame t
        actions[t, 0] = (t - 1) % 3 == 0
        actions[t, -2:] = -(t - 1) / 2 * 0.15, (t - 1) * 0.15
    return Expected(GREY * np.arange(length) % 250, actions)


def teco_minecraft(folder: Path, name: str = "000123", *, frames: int = LENGTH, actions: Any = None) -> Expected:
    ids = 1 + np.arange(LENGTH) % 3
    ids[0] = 0
    ids = ids.astype(np.int32) if actions is None else actions
    write_video(folder / f"{name}.mp4", GREY * np.arange(frames) % 250, (128, 128), codec="mpeg4")
    np.savez_compressed(folder / f"{name}.npz", actions=ids)
    length = min(frames, LENGTH)
    expected = one_hot(1 + np.arange(length) % 3, 4)
    expected[0] = 0
    return Expected(GREY * np.arange(length) % 250, expected)


def teco_dmlab(folder: Path, name: str = "208", *, change: dict[str, Any] | None = None) -> Expected:
    steps = np.arange(LENGTH)
    video = np.broadcast_to((GREY * steps).astype(np.uint8)[:, None, None, None], (LENGTH, 64, 64, 3))
    folder.mkdir(parents=True, exist_ok=True)
    arrays = {"video": video, "actions": steps % 3, **(change or {})}
    np.savez_compressed(folder / f"{name}.npz", **{k: v for k, v in arrays.items() if v is not None})
    actions = one_hot(steps % 3, 3)
    actions[0] = 0
    return Expected(GREY * steps, actions)


WORLDMEM_COLUMNS = (
    *("forward", "back", "left", "right", "jump", "sneak", "sprint"),
    *("use", "drop", "attack", "craft", "equip", "place", "destroy", "camera_pitch", "camera_yaw"),
)


def worldmem_choices() -> NDArray[np.int32]:
    choices = np.zeros((LENGTH, 8), np.int32)
    choices[:, 3:5] = 12
    choices[1:, 0] = 1 + np.arange(LENGTH - 1) % 2
    choices[1:, 4] = 11 + np.arange(LENGTH - 1) % 3
    return choices


def worldmem(folder: Path, name: str = "000007", *, change: dict[str, Any] | None = None) -> Expected:
    poses = np.arange(5 * LENGTH, dtype=np.float64).reshape(LENGTH, 5)
    write_video(folder / f"{name}.mp4", GREY * np.arange(LENGTH) % 250, (360, 640), fps=10, codec="mpeg4")
    arrays = {"actions": worldmem_choices(), "poses": poses, **(change or {})}
    np.savez_compressed(folder / f"{name}.npz", **{k: v for k, v in arrays.items() if v is not None})
    actions = np.zeros((LENGTH, len(WORLDMEM_COLUMNS)), np.float32)
    for t in range(1, LENGTH):
        actions[t, (t - 1) % 2] = 1
        actions[t, -1] = 15 * ((t - 1) % 3 - 1)
    return Expected(GREY * np.arange(LENGTH) % 250, actions)


def luanti(folder: Path, name: str = "0000007-23") -> Expected:
    expected = worldmem(folder, name, change={"luanti": np.array("{}")})
    return Expected(expected.levels, expected.actions[:, [*range(7), -2, -1]])


CSGO_MOUSE_X = (0, 2, 4, 10, 20, 30, 60, 100, 200, 300, 500, 1000)  # to the right; as many to the left


def csgo(folder: Path, name: str = "hdf5_dm_july2021_1", *, change: dict[str, Any] | None = None) -> Expected:
    """Frame t goes forward (w) on every third frame and turns right by the t-th step that the mouse may make."""
    folder.mkdir(parents=True, exist_ok=True)
    actions = np.zeros((LENGTH, 15), np.float32)
    with h5py.File(folder / f"{name}.hdf5", "w") as file:
        for t in range(LENGTH):
            flags = np.zeros(51)
            flags[0], flags[13 + 11 + t % 12], flags[13 + 23 + 7] = t % 3 == 0, 1, 1
            arrays = {"x": np.full((150, 280, 3), GREY * t, np.uint8), "y": flags}
            arrays |= {"xaux": np.zeros(54), "helperarr": np.zeros(2), **(change or {})}
            for key, array in arrays.items():
                file.create_dataset(f"frame_{t}_{key}", data=array)
            if t + 1 < LENGTH:
                actions[t + 1, 0], actions[t + 1, 13] = t % 3 == 0, CSGO_MOUSE_X[t % 12]
    return Expected(GREY * np.arange(LENGTH) % 250, actions)


def own_recording(folder: Path, name: str = "walk", *, rows: list[str] | None = None) -> Expected:
    """An mp4 and a CSV of the frames at which actions were taken."""
    write_video(folder / f"{name}.mp4", GREY * np.arange(LENGTH) % 250, (64, 64))
    taken = [f"{t},{t % 2},{0.5 * t}" for t in range(LENGTH)] if rows is None else rows
    (folder / f"{name}.csv").write_text("taken_at,forward,turn\n" + "\n".join(taken) + "\n")
    actions = np.zeros((LENGTH, 2), np.float32)
    actions[1:] = [(t % 2, 0.5 * t) for t in range(LENGTH - 1)]
    return Expected(GREY * np.arange(LENGTH) % 250, actions)


LEROBOT_PATHS = {
    "data_path": "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet",
    "video_path": "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4",
}
LEROBOT_CAMERA = "observation.images.front"


def lerobot(
    root: Path, files: tuple[int, ...] = (0, 0, 1), *, info: dict[str, Any] | None = None
) -> dict[str, Expected]:
    """A data set whose episode k lies in file `files[k]`, after those before it; its action of frame t is (t, -k)."""
    import pyarrow
    import pyarrow.parquet

    def write(path: Path, rows: dict[str, Any]) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        pyarrow.parquet.write_table(pyarrow.table(rows), path)

    steps, count = np.arange(LENGTH), len(files)
    features: dict[str, Any] = {
        LEROBOT_CAMERA: {"dtype": "video", "shape": [64, 64, 3], "names": ["height", "width", "channels"]},
        "action": {"dtype": "float32", "shape": [2], "names": ["gripper", "wrist"]},
        "observation.state": {"dtype": "float32", "shape": [2], "names": {"motors": ["gripper", "wrist"]}},
    }
    features |= {name: {"dtype": "int64", "shape": [1], "names": None} for name in ("episode_index", "frame_index")}
    content = {"codebase_version": "v3.0", "robot_type": None, "fps": 20, "features": features, **LEROBOT_PATHS}
    content |= {
        "total_episodes": count,
        "splits": {"train": f"0:{count - 1}", "test": f"{count - 1}:{count}"},
        **(info or {}),
    }
    (root / "meta").mkdir(parents=True, exist_ok=True)
    (root / "meta/info.json").write_text(json.dumps(content))
    before = [sum(other == file for other in files[:k]) for k, file in enumerate(files)]
    episodes: dict[str, Any] = {"episode_index": list(range(count)), "length": [LENGTH] * count}
    for key in ("data", f"videos/{LEROBOT_CAMERA}"):
        episodes |= {f"{key}/chunk_index": [0] * count, f"{key}/file_index": list(files)}
    episodes[f"videos/{LEROBOT_CAMERA}/from_timestamp"] = [k * LENGTH / 20 for k in before]
    write(root / "meta/episodes/chunk-000/file-000.parquet", episodes)
    expected = {}
    for file in sorted(set(files)):
        inside = [k for k in range(count) if files[k] == file]
        levels = np.concatenate([(GREY * steps + k) % 250 for k in inside])
        write_video(root / f"videos/{LEROBOT_CAMERA}/chunk-000/file-{file:03d}.mp4", levels, (64, 64))
        taken = [[float(t), -float(k)] for k in inside for t in steps]
        rows = {"action": pyarrow.array(taken, pyarrow.list_(pyarrow.float32(), 2))}
        rows |= {"observation.state": rows["action"], "episode_index": np.repeat(inside, LENGTH)}
        write(root / f"data/chunk-000/file-{file:03d}.parquet", {**rows, "frame_index": np.tile(steps, len(inside))})
    for k in range(count):
        actions = np.stack([steps - 1.0, np.full(LENGTH, -k)], axis=1).astype(np.float32)
        actions[0] = 0
        expected[f"{'test' if k == count - 1 else 'train'}/episode_{k:06d}"] = Expected(
            (GREY * steps + k) % 250, actions
        )
    return expected


LAYOUTS: dict[
    str, tuple[Callable[..., Any], tuple[str, ...]]
] = {  # format -> how one recording is written, and where three lie
    "maze": (maze, ("train", "train", "eval")),
    "minerl": (minerl, ("MineRLTreechop-v0",) * 3),
    "vpt": (vpt, ("7.x",) * 3),
    "teco-minecraft": (teco_minecraft, ("train/0", "train/1", "test/0")),
    "teco-dmlab": (teco_dmlab, ("train/0", "train/1", "test/0")),
    "luanti": (luanti, ("train", "train", "eval")),
    "worldmem": (worldmem, ("training/a", "training/b", "validation/a")),
    "csgo": (csgo, ("1-200",) * 3),
    "folder": (own_recording, ("train", "train", "eval")),
    "lerobot": (lerobot, ()),  # all in one
}
NAMES = {
    "maze": ("20220920T045048-23", "20220921T045048-23", "20220922T045048-23"),
    "minerl": (STREAM, "v3_equal_olive_chimera-1_25021-26077", "v4_some_newer_stream-2_1-24"),
    "vpt": (VPT_NAME, "quiet-blue-fox-12e496ce4abb-20220421-092639", "quiet-blue-fox-12e496ce4abb-20220421-093139"),
}


def write_all(format: str, root: Path) -> dict[str, Expected]:
    """Three recordings below `root`; returns what each must give, by its id."""
    write, folders = LAYOUTS[format]
    if format == "lerobot":
        return lerobot(root)
    names = NAMES.get(format, ("000000", "000001", "000002"))
    return {f"{folder}/{name}": write(root / folder, name) for folder, name in zip(folders, names, strict=True)}
