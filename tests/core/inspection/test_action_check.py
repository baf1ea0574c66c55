"""Turns against pictures: real mazes pass, shifted, mirrored and swapped ones are told, silence where nothing shows."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lssvwm_core.inspection.action_check import check_actions
from lssvwm_core.inspection.motion import agreement, sideways_motion, turns_of
from lssvwm_core.video import action_text
from lssvwm_datasets.sources import sample_recordings
from tests.conftest import lssvwm

EARLY, LATE, SWAPPED = "one frame early", "one frame late", "left and right look swapped"


def panorama(headings: np.ndarray, width: int = 80) -> np.ndarray:
    """Frames of a camera that turns before a wide picture; `headings` in pixels to the right."""
    wide = np.random.default_rng(0).integers(0, 256, (48, 4000, 3), dtype=np.uint8)
    wide = (wide[:, :-3].astype(int) + wide[:, 1:-2] + wide[:, 2:-1] + wide[:, 3:]) // 4  # smooth, as pictures are
    return np.stack([wide[:, heading : heading + width].astype(np.uint8) for heading in headings])


@pytest.mark.parametrize("step", [-31, -5, 0, 3, 20])
def test_motion_is_the_shift_of_the_picture(step: int) -> None:
    motion = sideways_motion(panorama(2000 + step * np.arange(4)))
    assert np.isnan(motion[0])
    kept = 80 - 2 * (80 // 16)
    np.testing.assert_allclose(motion[1:] * kept, step, atol=0.6)


def test_unrelated_pictures_have_no_motion() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3), dtype=np.uint8)
    assert np.isnan(sideways_motion(noise)).all()


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (("noop", "left", "right"), [0, -1, 1]),
        (("forward_left", "forward_right", "jump"), [-1, 1, 0]),
        (("left", "camera_pitch", "camera_yaw"), [0, 0, 1]),
        (("forward", "jump"), None),
    ],
)
def test_turns_are_known_by_name(names: tuple[str, ...], expected: list[float] | None) -> None:
    turns = turns_of(np.eye(len(names), dtype=np.float32), names)
    assert (turns is None) if expected is None else turns.tolist() == expected


@pytest.mark.parametrize(
    ("lag", "sign", "words"), [(0, 1, []), (1, 1, [EARLY]), (-1, 1, [LATE]), (1, -1, [EARLY, SWAPPED])]
)
def test_sign_and_alignment_of_a_turning_camera(lag: int, sign: int, words: list[str]) -> None:
    turns = np.random.default_rng(1).integers(-20, 21, 120)
    motion = sideways_motion(panorama(2000 + turns.cumsum()))
    found = agreement(motion, sign * np.roll(turns, -lag).astype(float))
    assert found.warning == bool(words)
    assert all(word in found.conclusion for word in words)
    assert found.turns > 100


def test_little_motion_is_no_verdict() -> None:
    turns = np.random.default_rng(1).normal(size=100)
    assert "too few" in agreement(np.random.default_rng(2).normal(size=100), turns).conclusion
    assert "too few" in agreement(turns, np.where(np.arange(100) < 10, turns, 0)).conclusion


def test_action_texts() -> None:
    action = np.array([1, 0, -2.5], np.float32)
    assert action_text(action, ("jump", "attack", "yaw")) == "jump, yaw -2.5"
    assert action_text(0 * action, ("jump", "attack", "yaw")) == "null"


def copy_with(folder: Path, change: str) -> Path:
    """A recording of the samples with its actions moved by a frame, or its pictures mirrored."""
    source = sample_recordings() / "train/0500000-500.npz"
    arrays = dict(np.load(source))
    if change == "mirrored":
        arrays["image"] = arrays["image"][:, :, ::-1]
    else:
        arrays["action"] = np.roll(arrays["action"], {"early": -1, "late": 1}[change], axis=0)
    (folder / change).mkdir()
    np.savez(folder / change / source.name, **arrays)
    return folder / change


@pytest.mark.parametrize(("change", "words"), [("early", EARLY), ("late", LATE), ("mirrored", SWAPPED)])
def test_spoilt_copies_of_a_maze_are_told(tmp_path: Path, change: str, words: str) -> None:
    verdict, _ = check_actions(copy_with(tmp_path, change))
    assert verdict is not None
    assert verdict.warning
    assert verdict.conclusion.startswith((words, "turns look recorded " + words))


def test_inspect_actions_on_recordings_and_shards(workspace: Path, tmp_path: Path) -> None:
    (tmp_path / "maze").mkdir()
    shutil.copy(sample_recordings() / "train/0500000-500.npz", tmp_path / "maze")
    for path in (tmp_path / "maze", workspace / "data/maze"):
        done = lssvwm(tmp_path, "inspect", str(path), "--actions", "--json")
        turns = json.loads(done.stdout)["details"]["turns"]
        assert not turns["warning"]
        assert "WARNING" not in done.stderr
        if path.parent == tmp_path:  # an untrained autoencoder shows no motion
            assert turns["correlation"]["0"] > 0.7
            assert "sign and alignment agree" in done.stderr
        assert Image.open(tmp_path / "contact-sheet.png").width == 1024
    (tmp_path / "video.mp4").touch()
    assert "has no actions" in lssvwm(tmp_path, "inspect", "video.mp4", "--actions", fails=True).stderr
