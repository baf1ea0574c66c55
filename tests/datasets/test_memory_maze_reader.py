"""The reader of Memory Maze: every variant gives the same episode; damage is named."""

from collections.abc import Callable
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import numpy as np
import pytest
from numpy.typing import NDArray

from lssvwm_datasets.errors import DamagedRecording
from lssvwm_datasets.memory_maze.reader import read

Arrays = dict[str, NDArray[Any]]
Change = Callable[[Arrays], Arrays]
LENGTH = 30


def episode(length: int = LENGTH, size: int = 9, targets: int = 3) -> Arrays:
    """The 13 keys of the offline dataset; frame t has grey level t % 256, action t is t % 6; the first is a dummy."""
    rng = np.random.default_rng(0)
    steps = np.arange(length)
    headings = np.cumsum(rng.normal(size=length))
    one_hot = np.eye(6)[steps % 6]
    one_hot[0] = 0
    return {
        "image": np.broadcast_to((steps % 256).astype(np.uint8)[:, None, None, None], (length, 64, 64, 3)),
        "target_color": np.ones((length, 3)),
        "agent_pos": rng.uniform(0, size, (length, 2)),
        "agent_dir": np.stack([np.cos(headings), np.sin(headings)], axis=1),
        "targets_vec": np.zeros((length, targets, 2)),
        "targets_pos": np.repeat(rng.integers(0, size, (1, targets, 2)) + 0.5, length, axis=0),
        "target_vec": np.zeros((length, 2)),
        "target_pos": np.zeros((length, 2)),
        "maze_layout": np.repeat(rng.integers(0, 2, (1, size, size), dtype=np.uint8), length, axis=0),
        "action": one_hot,
        "reward": np.zeros(length),
        "terminal": np.zeros(length, dtype=bool),
        "reset": steps == 0,
    }


def save(path: Path, arrays: Arrays) -> Path:
    np.savez_compressed(path, **arrays)
    return path


@pytest.mark.parametrize(("size", "targets"), [(9, 3), (15, 6)])
def test_the_official_layout(tmp_path: Path, size: int, targets: int) -> None:
    arrays = episode(1001, size, targets)
    (found,) = read(save(tmp_path / "20220920T045048-1000.npz", arrays), "eval/20220920T045048-1000")
    steps = np.arange(1001)
    assert (found.id, found.fps) == ("eval/20220920T045048-1000", 4)
    frames = np.concatenate(list(found.frames))
    assert (found.length, found.frame_size) == (1001, (64, 64))
    assert (frames.dtype, frames.shape) == (np.uint8, (1001, 64, 64, 3))
    np.testing.assert_array_equal(frames[:, 5, 60, 2], steps % 256)
    assert found.actions.dtype == np.float32
    assert not found.actions[0].any()
    np.testing.assert_array_equal(found.actions[1:], np.eye(6)[steps[1:] % 6])
    assert found.poses is not None
    assert found.poses.dtype == np.float32
    np.testing.assert_allclose(found.poses, np.hstack([arrays["agent_pos"], arrays["agent_dir"]]), rtol=1e-6)
    np.testing.assert_array_equal(found.layout, arrays["maze_layout"][0])
    np.testing.assert_array_equal(found.targets, arrays["targets_pos"][0])


def rename(key: str, new: str) -> Change:
    return lambda arrays: {new if name == key else name: array for name, array in arrays.items()}


def change(**arrays: Any) -> Change:
    return lambda before: {**before, **arrays}


def cast(dtype: str, *keys: str) -> Change:
    return lambda arrays: {key: array.astype(dtype) if key in keys else array for key, array in arrays.items()}


def once(*keys: str) -> Change:
    return lambda arrays: {key: array[0] if key in keys else array for key, array in arrays.items()}


VARIANTS: dict[str, Change] = {
    "image_t is H, W, C, T": lambda a: rename("image", "image_t")({**a, "image": a["image"].transpose(1, 2, 3, 0)}),
    "obs": rename("image", "obs"),
    "integer actions": lambda a: {**a, "action": a["action"].argmax(axis=1)},
    "first action noop": lambda a: {**a, "action": np.eye(6)[np.arange(LENGTH) % 6]},
    "bool": cast("bool", "action", "maze_layout"),
    "float32": cast("f4", "action", "agent_pos", "agent_dir", "targets_pos", "reset"),
    "float64": cast("f8", "action", "maze_layout", "reset"),
    "no terminal, no reset": lambda a: {k: v for k, v in a.items() if k not in ("terminal", "reset")},
    "map stored once": once("maze_layout", "targets_pos"),
    "more keys": change(policy_value=np.zeros(3), policy_entropy=np.zeros(0), action_prob=np.array("x")),
}


@pytest.mark.parametrize("variant", VARIANTS.values(), ids=VARIANTS.keys())
def test_variants_give_the_same_episode(tmp_path: Path, variant: Change) -> None:
    (expected,) = read(save(tmp_path / "a.npz", episode()), "a")
    (found,) = read(save(tmp_path / "b.npz", variant(episode())), "a")
    np.testing.assert_array_equal(np.concatenate(list(found.frames)), np.concatenate(list(expected.frames)))
    for name in ("actions", "poses", "layout", "targets"):
        assert getattr(found, name).dtype == getattr(expected, name).dtype
        np.testing.assert_allclose(getattr(found, name), getattr(expected, name), rtol=1e-6, err_msg=name)


def test_several_episodes_in_a_file_are_split_at_reset(tmp_path: Path) -> None:
    arrays = episode()
    bounds = [0, 12, 20, LENGTH]
    arrays["reset"][bounds[:-1]] = True
    arrays["maze_layout"][12:] = 1 - arrays["maze_layout"][12:]  # another maze
    whole = arrays["image"].transpose(1, 2, 3, 0)
    parts = list(read(save(tmp_path / "a.npz", rename("image", "image_t")({**arrays, "image": whole})), "a"))
    assert [part.id for part in parts] == ["a#0", "a#1", "a#2"]
    for part, start, stop in zip(parts, bounds, bounds[1:], strict=False):
        np.testing.assert_array_equal(np.concatenate(list(part.frames))[:, 0, 0, 0], np.arange(start, stop))
        assert not part.actions[0].any()
        np.testing.assert_array_equal(part.actions[1:], arrays["action"][start + 1 : stop])
        np.testing.assert_allclose(part.poses[:, :2], arrays["agent_pos"][start:stop], rtol=1e-6)
        np.testing.assert_array_equal(part.layout, arrays["maze_layout"][start])


def test_poses_and_maps_are_optional(tmp_path: Path) -> None:
    arrays = {key: array for key, array in episode().items() if key in ("image", "action")}
    (found,) = read(save(tmp_path / "a.npz", arrays), "a")
    assert (found.poses, found.pose_names, found.layout, found.targets) == (None, (), None, None)


def with_nan(key: str) -> Change:
    def damage(arrays: Arrays) -> Arrays:
        arrays[key][7, 1] = np.nan
        return arrays

    return damage


def without_last(*keys: str) -> Change:
    return lambda arrays: {key: array[:-1] if key in keys else array for key, array in arrays.items()}


DAMAGE: dict[str, tuple[Change, str]] = {
    "no frames": (rename("image", "picture"), "image"),
    "no actions": (rename("action", "actions"), "'action'"),
    "no rows": (lambda a: {key: array[:0] for key, array in a.items()}, "image"),
    "float frames": (lambda a: {**a, "image": a["image"] / 255.0}, "image is float64"),
    "grey frames": (lambda a: {**a, "image": a["image"][..., :1]}, "image"),
    "flat frames": (lambda a: {**a, "image": a["image"][..., 0]}, "image"),
    "flat image_t": (lambda a: rename("image", "image_t")({**a, "image": a["image"][..., 0]}), "image_t"),
    "too few actions": (without_last("action"), r"action has shape \(29, 6\)"),
    "five actions": (lambda a: {**a, "action": a["action"][:, :5]}, r"action has shape \(30, 5\)"),
    "action id 6": (change(action=np.full(LENGTH, 6)), r"action.*ids 0\.\.5"),
    "action id -1": (change(action=np.full(LENGTH, -1)), r"action.*ids 0\.\.5"),
    "action id a fraction": (change(action=np.full(LENGTH, 0.5)), r"action.*ids 0\.\.5"),
    "action not a number": (with_nan("action"), "action"),
    "all actions at once": (change(action=np.ones((LENGTH, 6))), "action"),
    "too few poses": (without_last("agent_dir"), "agent_dir has shape"),
    "position not a number": (with_nan("agent_pos"), "pose of frame 7"),
    "direction not a number": (with_nan("agent_dir"), "pose of frame 7"),
    "reset of another length": (without_last("reset"), "reset has shape"),
    "map not square": (change(maze_layout=np.ones(9, np.uint8)), "maze_layout"),
    "map of other rows": (lambda a: {**a, "maze_layout": a["maze_layout"][:5]}, "maze_layout"),
    "targets not a table": (change(targets_pos=np.zeros(3)), "targets_pos"),
    "pickled objects": (change(action=np.full(LENGTH, None)), "not a readable npz"),
}


@pytest.mark.parametrize(("damage", "message"), DAMAGE.values(), ids=DAMAGE.keys())
def test_damage_is_named(tmp_path: Path, damage: Change, message: str) -> None:
    path = save(tmp_path / "bad.npz", damage(episode()))
    with pytest.raises(DamagedRecording, match=message) as raised:
        list(read(path, "bad"))
    assert str(path) in str(raised.value)


@pytest.mark.parametrize("kept", [0.0, 0.02, 0.5, 0.99])
def test_truncated_files_are_named(tmp_path: Path, kept: float) -> None:
    path = save(tmp_path / "bad.npz", episode())
    path.write_bytes(path.read_bytes()[: int(kept * path.stat().st_size)])
    with pytest.raises(DamagedRecording, match=r"bad\.npz: not a readable npz"):
        list(read(path, "bad"))


def test_files_that_are_no_npz_are_named(tmp_path: Path) -> None:
    path = tmp_path / "bad.npz"
    with path.open("wb") as file:
        np.save(file, np.zeros(3))
    with pytest.raises(DamagedRecording, match=r"bad\.npz"):
        list(read(path, "bad"))
    with ZipFile(path, "w") as archive:
        archive.writestr("image", "no array")
        archive.writestr("action", "no array")
    with pytest.raises(DamagedRecording, match=r"bad\.npz"):
        list(read(path, "bad"))


def test_garbage_in_the_middle_is_noticed_or_touches_nothing(tmp_path: Path) -> None:
    path = save(tmp_path / "bad.npz", episode())
    (expected,) = read(path, "bad")
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    noticed = 0
    for _ in range(400):
        start, length = rng.integers(len(whole)), rng.choice([1, 4, 40])
        damaged = bytearray(whole)
        damaged[start : start + length] = rng.bytes(len(whole[start : start + length]))
        path.write_bytes(damaged)
        try:
            (found,) = read(path, "bad")
        except DamagedRecording:
            noticed += 1
        else:
            np.testing.assert_array_equal(np.concatenate(list(found.frames)), np.concatenate(list(expected.frames)))
            np.testing.assert_array_equal(found.actions, expected.actions)
    assert noticed > 100
