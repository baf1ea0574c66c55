"""Reads the contractor recordings of VPT (Baker et al., 2022) and of BASALT 2022: mp4 and jsonl, a line a tick.

The mapping from keys and mouse to actions is that of OpenAI's loader, except that camera angles are not truncated to
whole degrees and that ticks without an action are kept: without them time would jump.
"""

import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from lssvwm_datasets import reckoning
from lssvwm_datasets.episode import Episode, null_at_first
from lssvwm_datasets.errors import DamagedRecording
from lssvwm_datasets.format import DEFAULTS, Format, ReaderOptions, find_pairs
from lssvwm_datasets.frames import FrameParts
from lssvwm_datasets.opening import opened_recording, reason_of
from lssvwm_datasets.poses import HIGHEST_POSE, minecraft_poses
from lssvwm_datasets.reckoning import reckoned_poses
from lssvwm_datasets.tables import column_names
from lssvwm_datasets.ticks import Stretch, stretches
from lssvwm_datasets.video import probe_video, video_frames

FPS = 20.0
SOURCE_ALIGNMENT = "line t was taken at frame t and led to frame t + 1; shifted by one"
KEYS = {
    "key.keyboard.w": "forward",
    "key.keyboard.s": "back",
    "key.keyboard.a": "left",
    "key.keyboard.d": "right",
    "key.keyboard.space": "jump",
    "key.keyboard.left.shift": "sneak",
    "key.keyboard.left.control": "sprint",
    "key.keyboard.q": "drop",
    "key.keyboard.e": "inventory",
    "key.keyboard.f": "swapHands",
    "key.keyboard.escape": "ESC",
    **{f"key.keyboard.{number}": f"hotbar.{number}" for number in range(1, 10)},
}
BUTTONS = {0: "attack", 1: "use", 2: "pickItem"}
CAMERA = ("camera_pitch", "camera_yaw")  # degrees a tick; + looks down, + turns right
DEGREES_PER_PIXEL = 360 / 2400
ACTION_NAMES = (*KEYS.values(), *BUTTONS.values(), *CAMERA)
ACTION_UNITS = tuple("degrees" if name in CAMERA else "binary" for name in ACTION_NAMES)
POSE = ("xpos", "ypos", "zpos", "pitch", "yaw")  # of a tick, before its action
MOST_PIXELS = 1_000_000  # of any motion or position
LONGEST_LINE = 2**20  # bytes; a tick with inventory and statistics has some thousands
MEMORY_A_BYTE = 8  # bytes that a byte of ticks takes in memory
WINDOW_HEIGHT = 720  # pixels of the window in which the mouse moved
CURSOR_HEIGHT = 16 / 360  # of the frame's
CURSOR = ((0, 0), (0, 12), (3, 9.5), (5, 14), (7, 13), (5, 9), (9, 9))  # an arrow 14 high, its tip where the mouse is


@dataclass(frozen=True)
class Ticks:
    """A recording's lines.

    Attributes:
        actions: (N, A) float32.
        cursor: (N, 2) x, y of the mouse in window pixels, NaN where it is not shown: no window of the game is open.
        poses: (N, 5) x, y, z, pitch and yaw as the game has them; None where a line lacks one.
    """

    actions: NDArray[np.float32]
    cursor: NDArray[np.float64]
    poses: NDArray[np.float64] | None


def read(path: Path, id: str, options: ReaderOptions = DEFAULTS) -> Iterator[Episode]:
    """Yields the episode of an mp4 and the jsonl beside it, several where frames are missing.

    Raises: DamagedRecording; OSError.
    """
    info = probe_video(path, options.max_memory)
    ticks = read_ticks(path.with_suffix(".jsonl"), options.max_memory)
    actions = np.zeros_like(ticks.actions)
    actions[1:] = ticks.actions[:-1]
    playing = np.ones((len(actions), 1), np.float32)
    playing[1:] = np.isnan(ticks.cursor[:-1, :1])  # where a window is open, keys and mouse are the window's
    for stretch in stretches(path, id, info.times, len(actions), FPS):
        taken = null_at_first(actions[stretch.rows])
        poses = _poses(ticks, stretch, taken * playing[stretch.rows])
        yield Episode(
            id=stretch.id,
            frames=_frames(path, stretch, ticks.cursor[stretch.rows], options),
            frame_size=options.frame_size(path, info.size),
            actions=taken,
            action_names=ACTION_NAMES,
            action_units=ACTION_UNITS,
            source_alignment=SOURCE_ALIGNMENT,
            fps=FPS,
            poses=poses.rows,
            pose_names=poses.names,
            pose_kinds=poses.kinds,
            notes=stretch.notes,
        )


@dataclass(frozen=True)
class _Poses:
    rows: NDArray[np.float32]
    names: tuple[str, ...]
    kinds: tuple[str, ...]


def _poses(ticks: Ticks, stretch: Stretch, actions: NDArray[np.float32]) -> _Poses:
    """As recorded; where they are not, as in BASALT's recordings, as reckoned from the actions."""
    if ticks.poses is None:
        rows = reckoned_poses(dict(zip(ACTION_NAMES, actions.T, strict=True)))
        return _Poses(rows, reckoning.NAMES, reckoning.KINDS)
    rows, names = minecraft_poses(ticks.poses[stretch.rows])
    return _Poses(rows, names, names)


def read_ticks(path: Path, max_memory: int = DEFAULTS.max_memory) -> Ticks:
    """Reads line by line: with inventory and statistics a file is large.

    Raises: DamagedRecording, naming the line; OSError.
    """
    keyboard = _Keyboard()
    actions, cursor, poses = [], [], []
    blank = 0
    with opened_recording(path) as file:
        if (size := os.fstat(file.fileno()).st_size) > max_memory // MEMORY_A_BYTE:
            raise DamagedRecording(f"{path}: {size / 1e6:.0f} MB are too many; to read them, raise --max-memory")
        for number, line in enumerate(iter(lambda: file.readline(LONGEST_LINE), b""), start=1):
            if not line.strip():
                blank = blank or number  # allowed at the end
                continue
            try:
                if blank:
                    raise ValueError(f"line {blank} before it is empty")
                tick = json.loads(line.decode("utf-8"))
                actions.append(keyboard.action(tick))
                mouse = tick["mouse"]
                shown = tick.get("isGuiOpen", False)
                cursor.append((_number(mouse["x"]), _number(mouse["y"])) if shown else (np.nan, np.nan))
                poses.append([_coordinate(tick[name]) for name in POSE if name in tick])
            except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
                reason = f"{type(error).__name__}: {reason_of(error)}"
                raise DamagedRecording(f"{path}: line {number} is not a tick ({reason})") from error
    if not actions:
        raise DamagedRecording(f"{path}: no lines")
    known = all(len(pose) == len(POSE) for pose in poses)
    return Ticks(np.stack(actions), np.array(cursor), np.array(poses) if known else None)


def _frames(path: Path, stretch: Stretch, cursor: NDArray[np.float64], options: ReaderOptions) -> FrameParts:
    frames = video_frames(path, stretch, options)
    return FrameParts(lambda: _with_cursor(frames, cursor), stretch.length).resized(options.size)


class _Keyboard:
    """Keys and mouse to actions, tick by tick, as OpenAI's loader does it."""

    def __init__(self) -> None:
        self.attack_is_stuck: bool | None = None  # known from the first tick on
        self.hotbar = 0

    def action(self, tick: dict[str, Any]) -> NDArray[np.float32]:
        """(A,) float32 of a tick."""
        mouse = tick["mouse"]
        pressed, held = mouse["newButtons"], set(mouse["buttons"])
        if self.attack_is_stuck is None:
            self.attack_is_stuck = pressed == [0]
        elif 0 in pressed:
            self.attack_is_stuck = False
        if self.attack_is_stuck:  # since before the recording began; the release was missed
            held.discard(0)
        names = [KEYS[key] for key in tick["keyboard"]["keys"] if key in KEYS]
        names += [BUTTONS[button] for button in held if button in BUTTONS]
        hotbar = tick.get("hotbar", self.hotbar)
        if hotbar != self.hotbar:  # by the scroll wheel, perhaps
            names.append(f"hotbar.{hotbar + 1}")
            self.hotbar = hotbar
        action = np.zeros(len(ACTION_NAMES), np.float32)
        for name in names:
            action[ACTION_NAMES.index(name)] = 1
        action[-2:] = _number(mouse["dy"]) * DEGREES_PER_PIXEL, _number(mouse["dx"]) * DEGREES_PER_PIXEL
        return action


def _coordinate(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= HIGHEST_POSE:
        raise ValueError(f"{value!r} is not a number of blocks or degrees")
    return float(value)


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < MOST_PIXELS:
        raise ValueError(f"{value!r} is not a number of pixels")
    return float(value)


def _with_cursor(parts: Iterable[NDArray[np.uint8]], cursor: NDArray[np.float64]) -> Iterator[NDArray[np.uint8]]:
    """Draws the mouse cursor, which the recorder did not see, where a window of the game is open."""
    first = 0
    for part in parts:
        shown = cursor[first : first + len(part)]
        for index in np.flatnonzero(~np.isnan(shown[:, 0])):
            part[index] = _draw_cursor(part[index], shown[index])
        first += len(part)
        yield part


def _draw_cursor(frame: NDArray[np.uint8], position: NDArray[np.float64]) -> NDArray[np.uint8]:
    height = frame.shape[0]
    tip = position * height / WINDOW_HEIGHT
    size = CURSOR_HEIGHT * height / 16
    picture = Image.fromarray(frame)
    arrow = [(float(tip[0] + size * x), float(tip[1] + size * y)) for x, y in CURSOR]
    ImageDraw.Draw(picture).polygon(arrow, fill=(255, 255, 255), outline=(0, 0, 0))
    return np.asarray(picture)


def _recognises(path: Path) -> bool:
    return path.exists() and "mouse" in column_names(path.with_suffix(".jsonl"))


def _session(name: str) -> str:
    return name.rsplit("-", 2)[0]  # of <alias>-<session>-<date>-<time>


FORMAT = Format(
    "vpt",
    "mp4 files, each with a jsonl of the same stem",
    partial(find_pairs, ".mp4", ".jsonl"),
    _recognises,
    read,
    session=_session,
)
