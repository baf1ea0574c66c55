"""Which files of a folder are recordings, and of which split."""

from pathlib import Path

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
        *((name, "train") for name in ("train", "train-part0", "training", "Train", "x/train/y")),
        *((name, "validation") for name in ("eval", "val", "validation", "test", "x/eval/y/z")),
    ],
)
def test_a_folder_on_the_way_names_the_split(tmp_path: Path, folder: str, split: str) -> None:
    touch(tmp_path / folder / "a.npz")
    (recording,) = find_recordings(tmp_path, "maze")
    assert (recording.split, recording.id) == (split, f"{folder}/a")


def test_the_source_itself_may_name_the_split(tmp_path: Path) -> None:
    touch(tmp_path / "eval" / "a.npz")
    for source in (tmp_path / "eval", tmp_path / "eval" / "a.npz"):
        assert [recording.split for recording in find_recordings(source, "maze")] == ["validation"]


def test_without_split_folders_a_tenth_is_held_out_whatever_else_is_there(tmp_path: Path) -> None:
    touch(*(tmp_path / "all" / f"{number:04d}.npz" for number in range(400)))
    splits = {recording.id: recording.split for recording in find_recordings(tmp_path, "maze")}
    assert 20 < sum(split == "validation" for split in splits.values()) < 60
    (tmp_path / "all" / "0000.npz").unlink()
    fewer = {recording.id: recording.split for recording in find_recordings(tmp_path, "maze")}
    assert fewer.items() < splits.items()


def test_other_and_hidden_files_are_left_alone(tmp_path: Path) -> None:
    touch(tmp_path / "a.npz", tmp_path / ".a.7.partial.npz", tmp_path / ".cache" / "b.npz", tmp_path / "notes.txt")
    assert [recording.id for recording in find_recordings(tmp_path, "maze")] == ["a"]


def test_nothing_to_read_is_told(tmp_path: Path) -> None:
    with pytest.raises(LssvwmError, match="no such folder"):
        find_recordings(tmp_path / "missing", "maze")
    with pytest.raises(LssvwmError, match=r"expected \*\.npz files"):
        find_recordings(tmp_path, "maze")


def test_the_samples_are_real_and_of_different_mazes() -> None:
    recordings = find_recordings(sample_recordings(), "maze")
    assert sorted(recording.split for recording in recordings) == ["train"] * 3 + ["validation"]
    episodes = [next(recording.episodes()) for recording in recordings]
    assert len({episode.layout.tobytes() for episode in episodes if episode.layout is not None}) == 4
    for episode in episodes:
        assert episode.frames.std() > 20
        assert episode.poses is not None
        assert episode.layout is not None
        columns, rows = episode.poses[:, :2].astype(int).T
        assert episode.layout[rows, columns].all(), "the agent stands on free cells"
