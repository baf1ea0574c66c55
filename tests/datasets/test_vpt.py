"""VPT: every rule of OpenAI's loader, without its rounding, on lines that recorders write."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lssvwm_datasets.episode import Episode
from lssvwm_datasets.errors import DamagedRecording
from lssvwm_datasets.sources import find_recordings
from lssvwm_datasets.vpt import ACTION_NAMES, ACTION_UNITS, read, read_ticks
from tests.datasets.layouts import GREY, LENGTH, VPT_COLUMNS, VPT_NAME, tick, vpt

SMALL = (72, 128)


def the_episode(folder: Path) -> Episode:
    (episode,) = read(folder / f"{VPT_NAME}.mp4", VPT_NAME)
    return episode


def column(actions: np.ndarray, name: str) -> list[int]:
    """The rows at which a button is down."""
    return np.flatnonzero(actions[:, ACTION_NAMES.index(name)]).tolist()


def ticks_of(tmp_path: Path, *lines: dict[str, Any]) -> np.ndarray:
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return read_ticks(tmp_path / "a.jsonl").actions


def test_columns_are_the_documented_ones() -> None:
    assert ACTION_NAMES == VPT_COLUMNS
    assert len(ACTION_NAMES) == 23 + 2
    assert ACTION_UNITS == ("binary",) * 23 + ("degrees",) * 2


@pytest.mark.parametrize("frames", [LENGTH - 1, LENGTH, LENGTH + 1, LENGTH - 5])
@pytest.mark.parametrize("ending", ["", "\n", "\n\n \n", "\r\n"])
def test_counts_that_differ_and_blank_last_lines(tmp_path: Path, frames: int, ending: str) -> None:
    expected = vpt(tmp_path, frames=frames, size=SMALL, ending=ending)
    episode = the_episode(tmp_path)
    levels = np.concatenate([part.mean(axis=(1, 2, 3)) for part in episode.frames])
    np.testing.assert_allclose(levels, expected.levels, atol=GREY / 2 - 0.5)
    np.testing.assert_allclose(episode.actions, expected.actions, rtol=1e-6)
    assert (episode.length, episode.fps) == (min(frames, LENGTH), 20)
    assert len(episode.notes) == (frames == LENGTH - 5)


def test_ticks_without_any_action_keep_their_frames(tmp_path: Path) -> None:
    still = {"mouse": {"dx": 0.0, "dy": 0.0}, "keyboard": {"keys": [], "newKeys": [], "chars": ""}}
    vpt(tmp_path, lines=[tick(t, **still) for t in range(LENGTH)], size=SMALL)
    episode = the_episode(tmp_path)
    assert episode.length == LENGTH
    assert not episode.actions.any()


def mouse(*buttons: int, new: tuple[int, ...] = (), **more: Any) -> dict[str, Any]:
    return {"mouse": {"buttons": list(buttons), "newButtons": list(new), **more}}


def test_attack_that_is_stuck_from_the_first_line_is_released_until_pressed_again(tmp_path: Path) -> None:
    lines = [mouse(0, new=(0,)), mouse(0), mouse(0, 1), mouse(1), mouse(0, new=(0,)), mouse(0), mouse()]
    actions = ticks_of(tmp_path, *(tick(t, **line) for t, line in enumerate(lines)))
    assert column(actions, "attack") == [4, 5]
    assert column(actions, "use") == [2, 3]


@pytest.mark.parametrize("first", [mouse(0), mouse(0, 1, new=(0, 1)), mouse(0, 1, new=(1,))])
def test_attack_that_is_held_otherwise_is_attack(tmp_path: Path, first: dict[str, Any]) -> None:
    actions = ticks_of(tmp_path, tick(0, **first), tick(1, **mouse(0)), tick(2))
    assert column(actions, "attack") == [0, 1]


def test_a_change_of_hotbar_is_a_key_whether_scrolled_or_pressed(tmp_path: Path) -> None:
    key = {"keyboard": {"keys": ["key.keyboard.3"], "newKeys": [], "chars": "3"}}
    lines = [tick(0, hotbar=4), tick(1, hotbar=4), tick(2, hotbar=2, **key), tick(3, hotbar=2), tick(4, hotbar=8)]
    actions = ticks_of(tmp_path, *lines)
    pressed = {number: column(actions, f"hotbar.{number}") for number in range(1, 10)}
    assert {number: rows for number, rows in pressed.items() if rows} == {5: [0], 3: [2], 9: [4]}


def test_camera_is_not_rounded_and_plus_is_down_and_right(tmp_path: Path) -> None:
    actions = ticks_of(tmp_path, tick(0, mouse={"dx": 5.0, "dy": -1.0}), tick(1, mouse={"dx": -1, "dy": 2000}))
    np.testing.assert_allclose(actions[:, -2:], [[-0.15, 0.75], [300, -0.15]], rtol=1e-6)


def test_every_key_has_its_column_and_unknown_ones_are_nothing(tmp_path: Path) -> None:
    keys = [*"wsad", "space", "left.shift", "left.control", *"qef", "escape", *"123456789", "f3", "unknown"]
    lines = [
        tick(t, keyboard={"keys": [f"key.keyboard.{key}"], "newKeys": [], "chars": ""}) for t, key in enumerate(keys)
    ]
    buttons = ticks_of(tmp_path, *lines)[:, :20]
    np.testing.assert_array_equal(buttons, np.eye(22, 20))


def test_lines_need_nothing_that_basalt_took_out(tmp_path: Path) -> None:
    line = tick(0)
    bare = {"mouse": {key: line["mouse"][key] for key in ("dx", "dy", "buttons", "newButtons", "x", "y")}}
    actions = ticks_of(tmp_path, {**bare, "keyboard": {"keys": ["key.keyboard.w"]}})
    assert column(actions, "forward") == [0]


def test_the_cursor_is_drawn_where_the_mouse_is_when_a_window_is_open(tmp_path: Path) -> None:
    open_window = {"isGuiOpen": True, "mouse": {"x": 320.0, "y": 180.0}}
    at_the_edge = {"isGuiOpen": True, "mouse": {"x": 1279.0, "y": 719.0}}
    lines = [tick(t) for t in range(LENGTH)]
    lines[10], lines[11] = tick(10, **open_window), tick(11, **at_the_edge)
    vpt(tmp_path, lines=lines)
    frames = np.concatenate(list(the_episode(tmp_path).frames))
    drawn = np.argwhere(np.abs(frames.astype(int) - np.median(frames, axis=(1, 2), keepdims=True)).max(axis=3) > 12)
    assert set(drawn[:, 0].tolist()) == {10, 11}
    rows, columns = drawn[drawn[:, 0] == 10][:, 1:].T
    assert (rows.min(), columns.min()) == (90, 160)  # its tip, in a frame half as high as the window
    assert rows.max() <= 90 + 16
    assert columns.max() <= 160 + 16
    assert frames[10, 95, 162].tolist() == [255, 255, 255]


LINES: dict[str, str] = {
    "no json": "{",
    "a list": "[]",
    "empty line": "",
    "no mouse": json.dumps({"keyboard": {"keys": []}}),
    "no keys": json.dumps({**tick(1), "keyboard": {}}),
    "keys not text": json.dumps(tick(1, keyboard={"keys": [["w"]]})),
    "buttons no list": json.dumps(tick(1, mouse={"buttons": 0})),
    "motion no number": json.dumps(tick(1, mouse={"dx": "far"})),
    "motion not finite": json.dumps(tick(1, mouse={"dx": float("nan")})),
    "motion without end": json.dumps(tick(1, mouse={"dy": 10**400})),
    "hotbar 12": json.dumps(tick(1, hotbar=12)),
    "cursor no number": json.dumps(tick(1, isGuiOpen=True, mouse={"x": None})),
}


@pytest.mark.parametrize("line", LINES.values(), ids=LINES.keys())
def test_a_line_that_is_no_tick_is_named(tmp_path: Path, line: str) -> None:
    (tmp_path / "a.jsonl").write_text("\n".join([json.dumps(tick(0)), line, json.dumps(tick(2))]))
    with pytest.raises(DamagedRecording, match=r"a\.jsonl: line [23] is not a tick \(\w+: "):
        read_ticks(tmp_path / "a.jsonl")


@pytest.mark.parametrize("content", [b"", b"\n\n", b"\xff\xfe"])
def test_a_file_without_lines_is_told(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.jsonl").write_bytes(content)
    with pytest.raises(DamagedRecording, match=r"a\.jsonl: (no lines|line 1 is not a tick)"):
        read_ticks(tmp_path / "a.jsonl")


def test_a_video_without_its_lines_is_told(tmp_path: Path) -> None:
    vpt(tmp_path, size=SMALL)
    (tmp_path / f"{VPT_NAME}.jsonl").unlink()
    (recording,) = find_recordings(tmp_path, "vpt")
    with pytest.raises(DamagedRecording, match=r"\.jsonl: no such file"):
        list(recording.episodes())
