"""Which files of a folder are recordings, and of which split."""

from pathlib import Path

import numpy as np
import pytest

from lssvwm_datasets.errors import LssvwmError
from lssvwm_datasets.sources import find_recordings, sample_recordings


def touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


@pytest.mark.parametrize(
    ("folder", "split"),
    [
        *((name, "train") for name in ("train", "train-part0", "training", "Train", "maze/train/y", "eval/train")),
        *((name, "validation") for name in ("eval", "val", "validation", "test", "maze/eval/y/z", "train/eval")),
    ],
)
def test_a_folder_on_the_way_names_the_split(tmp_path: Path, folder: str, split: str) -> None:
    names = [f"{letter}.npz" for letter in "edcba"]  # by their names alone they would not all be in one split
    touch(*(tmp_path / folder / name for name in names))
    recordings = find_recordings(tmp_path, "maze")
    assert [(r.split, r.id, r.path) for r in recordings] == [
        (split, f"{folder}/{name[0]}", tmp_path / folder / name) for name in sorted(names)
    ]


def test_the_source_itself_may_name_the_split_or_be_a_file(tmp_path: Path) -> None:
    touch(tmp_path / "eval" / "a.npz")
    for source in (tmp_path / "eval", tmp_path / "eval" / "a.npz"):
        assert [(r.split, r.id) for r in find_recordings(source, "maze")] == [("validation", "a")]


def test_without_split_folders_a_tenth_is_held_out_whatever_else_is_there(tmp_path: Path) -> None:
    touch(*(tmp_path / "all" / f"{number:04d}.npz" for number in range(400)))
    splits = {recording.id: recording.split for recording in find_recordings(tmp_path, "maze")}
    assert 20 < sum(split == "validation" for split in splits.values()) < 60
    (tmp_path / "all" / "0000.npz").unlink()
    fewer = {recording.id: recording.split for recording in find_recordings(tmp_path, "maze")}
    assert fewer.items() < splits.items()
    (moved,) = find_recordings(tmp_path / "all" / "0001.npz", "maze")
    assert moved.split == splits["all/0001"]


def test_other_and_hidden_files_are_left_alone(tmp_path: Path) -> None:
    source = tmp_path / ".cache" / "maze"  # hidden itself, yet asked for
    touch(source / "a.npz", source / ".a.7.partial.npz", source / ".trash" / "b.npz", source / "notes.txt")
    assert [recording.id for recording in find_recordings(source, "maze")] == ["a"]


def test_nothing_to_read_is_told(tmp_path: Path) -> None:
    with pytest.raises(LssvwmError, match="missing: no such folder"):
        find_recordings(tmp_path / "missing", "maze")
    touch(tmp_path / "notes.txt")
    with pytest.raises(LssvwmError, match="no recordings found; expected, at any depth, maze: npz files"):
        find_recordings(tmp_path, "maze")


def test_the_samples_are_real_and_of_different_mazes() -> None:
    recordings = find_recordings(sample_recordings(), "maze")
    assert sorted(recording.split for recording in recordings) == ["train"] * 3 + ["validation"]
    episodes = [next(recording.episodes()) for recording in recordings]
    assert len({episode.layout.tobytes() for episode in episodes if episode.layout is not None}) == 4
    for episode in episodes:
        assert np.concatenate(list(episode.frames)).std() > 20
        assert episode.poses is not None
        assert episode.layout is not None
        columns, rows = episode.poses[:, :2].astype(int).T
        assert episode.layout[rows, columns].all(), "the agent stands on free cells"
