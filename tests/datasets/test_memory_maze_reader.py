"""The reader of Memory Maze: every variant gives the same episode; damage is named."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from lssvwm_datasets.errors import DamagedRecording
from lssvwm_datasets.memory_maze.reader import read

Arrays = dict[str, NDArray[Any]]


def episode(length: int = 30, seed: int = 0) -> Arrays:
    """The 13 keys of the offline dataset; frame t has grey level t % 256, action t is t % 6, but for the first."""
    rng = np.random.default_rng(seed)
    headings = np.cumsum(rng.normal(size=length))
    actions = np.eye(6)[np.arange(length) % 6]
    actions[0] = 0
    targets = rng.integers(0, 9, (3, 2)) + 0.5
    grey = (np.arange(length) % 256).astype(np.uint8)
    return {
        "image": np.broadcast_to(grey[:, None, None, None], (length, 64, 64, 3)).copy(),
        "target_color": np.ones((length, 3)),
        "agent_pos": rng.uniform(0, 9, (length, 2)),
        "agent_dir": np.stack([np.cos(headings), np.sin(headings)], axis=1),
        "targets_vec": np.zeros((length, 3, 2)),
        "targets_pos": np.repeat(targets[None], length, axis=0),
        "target_vec": np.zeros((length, 2)),
        "target_pos": np.zeros((length, 2)),
        "maze_layout": np.repeat(rng.integers(0, 2, (1, 9, 9), dtype=np.uint8), length, axis=0),
        "action": actions,
        "reward": np.zeros(length),
        "terminal": np.zeros(length, dtype=bool),
        "reset": np.arange(length) == 0,
    }


def save(path: Path, arrays: Arrays) -> Path:
    np.savez_compressed(path, **arrays)
    return path


def test_the_official_layout(tmp_path: Path) -> None:
    arrays = episode(1001)
    (read_back,) = read(save(tmp_path / "20220920T045048-1000.npz", arrays), "eval/20220920T045048-1000")
    assert read_back.id == "eval/20220920T045048-1000"
    assert read_back.fps == 4
    grey = read_back.frames[:, 0, 0, 0]
    np.testing.assert_array_equal(grey, np.arange(1001) % 256)
    np.testing.assert_array_equal(read_back.actions[1:].argmax(axis=1), np.arange(1, 1001) % 6)
    assert not read_back.actions[0].any()
    np.testing.assert_allclose(read_back.poses, np.hstack([arrays["agent_pos"], arrays["agent_dir"]]), rtol=1e-6)
    np.testing.assert_array_equal(read_back.layout, arrays["maze_layout"][0])
    np.testing.assert_allclose(read_back.targets, arrays["targets_pos"][0])


def rename(key: str, new: str) -> Callable[[Arrays], Arrays]:
    return lambda arrays: {new if name == key else name: array for name, array in arrays.items()}


VARIANTS: dict[str, Callable[[Arrays], Arrays]] = {
    "image_t is H, W, C, T": lambda a: rename("image", "image_t")({**a, "image": a["image"].transpose(1, 2, 3, 0)}),
    "obs": rename("image", "obs"),
    "integer actions": lambda a: {**a, "action": a["action"].argmax(axis=1)},
    "other dtypes": lambda a: {**a, "action": a["action"].astype(bool), "agent_pos": a["agent_pos"].astype("f4")},
    "no terminal, no reset": lambda a: {k: v for k, v in a.items() if k not in ("terminal", "reset")},
    "layout stored once": lambda a: {**a, "maze_layout": a["maze_layout"][0], "targets_pos": a["targets_pos"][0]},
    "more keys": lambda a: {**a, "policy_value": np.zeros(3), "action_prob": np.zeros(5)},
}


@pytest.mark.parametrize("variant", VARIANTS.values(), ids=VARIANTS.keys())
def test_variants_give_the_same_episode(tmp_path: Path, variant: Callable[[Arrays], Arrays]) -> None:
    (expected,) = read(save(tmp_path / "a.npz", episode()), "a")
    (found,) = read(save(tmp_path / "b.npz", variant(episode())), "a")
    for name in ("frames", "actions", "poses", "layout", "targets"):
        np.testing.assert_allclose(getattr(found, name), getattr(expected, name), rtol=1e-6, err_msg=name)


def test_several_episodes_in_a_file_are_split_at_reset(tmp_path: Path) -> None:
    arrays = episode()
    arrays["reset"][[12, 20]] = True
    parts = list(read(save(tmp_path / "a.npz", arrays), "a"))
    assert [part.id for part in parts] == ["a#0", "a#1", "a#2"]
    assert [part.frames[0, 0, 0, 0] for part in parts] == [0, 12, 20]
    assert [len(part.actions) for part in parts] == [12, 8, 10]
    assert not any(part.actions[0].any() for part in parts)


def test_poses_and_maps_are_optional(tmp_path: Path) -> None:
    arrays = {key: array for key, array in episode().items() if key in ("image", "action")}
    (found,) = read(save(tmp_path / "a.npz", arrays), "a")
    assert (found.poses, found.pose_names, found.layout, found.targets) == (None, (), None, None)


def with_nan(arrays: Arrays) -> Arrays:
    arrays["agent_pos"][7] = np.nan
    return arrays


DAMAGE: dict[str, tuple[Callable[[Arrays], Arrays], str]] = {
    "no frames": (rename("image", "picture"), "no frames"),
    "no actions": (rename("action", "actions"), "no actions: found keys"),
    "float frames": (lambda a: {**a, "image": a["image"] / 255.0}, "image is float64"),
    "grey frames": (lambda a: {**a, "image": a["image"][..., :1]}, "expected uint8 RGB"),
    "too few actions": (lambda a: {**a, "action": a["action"][:-1]}, r"action has shape \(29, 6\)"),
    "unknown action": (lambda a: {**a, "action": np.full(30, 6)}, "ids 0..5"),
    "too few poses": (lambda a: {**a, "agent_dir": a["agent_dir"][:-1]}, "agent_dir has shape"),
    "pose not a number": (with_nan, "pose of frame 7"),
    "reset of another length": (lambda a: {**a, "reset": a["reset"][:-1]}, "reset has shape"),
}


@pytest.mark.parametrize(("damage", "message"), DAMAGE.values(), ids=DAMAGE.keys())
def test_damage_is_named(tmp_path: Path, damage: Callable[[Arrays], Arrays], message: str) -> None:
    path = save(tmp_path / "bad.npz", damage(episode()))
    with pytest.raises(DamagedRecording, match=message) as raised:
        list(read(path, "bad"))
    assert str(path) in str(raised.value)


@pytest.mark.parametrize("kept", [0, 100, 0.5, 0.99])
def test_truncated_files_are_named(tmp_path: Path, kept: float) -> None:
    path = save(tmp_path / "bad.npz", episode())
    whole = path.read_bytes()
    path.write_bytes(whole[: int(kept if kept > 1 else kept * len(whole))])
    with pytest.raises(DamagedRecording, match=r"bad\.npz: not a readable npz"):
        list(read(path, "bad"))


def test_flipped_bytes_are_noticed(tmp_path: Path) -> None:
    path = save(tmp_path / "bad.npz", episode(seed=1))
    content = bytearray(path.read_bytes())
    middle = content.index(b"agent_pos.npy") + 200
    content[middle : middle + 50] = bytes(50)
    path.write_bytes(content)
    with pytest.raises(DamagedRecording):
        list(read(path, "bad"))
