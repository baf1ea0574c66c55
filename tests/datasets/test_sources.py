"""Which files of a folder are recordings, and of which split."""

import os
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lssvwm_datasets.episode import Episode
from lssvwm_datasets.errors import DamagedRecording, LssvwmError
from lssvwm_datasets.format import ReaderOptions, parse_bytes
from lssvwm_datasets.sources import find_recordings, sample_recordings
from tests.datasets.layouts import STREAM, VPT_NAME, maze, minerl, vpt


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


def test_linked_folders_are_entered(tmp_path: Path) -> None:
    touch(tmp_path / "disk" / "train" / "a.npz", tmp_path / "disk" / "deep" / "b.npz", tmp_path / "source/eval/c.npz")
    (tmp_path / "source" / "train").symlink_to(tmp_path / "disk" / "train")
    (tmp_path / "disk" / "train" / "more").symlink_to("../deep")
    found = [(r.id, r.split) for r in find_recordings(tmp_path / "source", "maze")]
    assert found == [("eval/c", "validation"), ("train/a", "train"), ("train/more/b", "train")]
    (tmp_path / "link").symlink_to("source")
    assert len(find_recordings(tmp_path / "link", "maze")) == 3


@pytest.mark.parametrize("target", [".", "..", "../..", "/", "../all", "again"])
def test_loops_and_second_ways_end_and_are_told(tmp_path: Path, target: str, caplog: pytest.LogCaptureFixture) -> None:
    source = tmp_path / "x" / "source"
    touch(source / "all" / "a.npz", source / "other" / "b.npz")
    (source / "other" / "again").symlink_to(target)
    assert [r.id for r in find_recordings(source, "maze")] == ["all/a", "other/b"]
    assert "passed over" in caplog.text
    assert "again" in caplog.text


def test_a_dangling_link_is_a_recording_that_cannot_be_read_or_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    touch(tmp_path / "train" / "a.npz")
    (tmp_path / "train" / "gone.npz").symlink_to("/nowhere.npz")
    (tmp_path / "eval").symlink_to("/nowhere")
    good, gone = find_recordings(tmp_path, "maze")
    assert (good.id, gone.id, gone.bytes) == ("train/a", "train/gone", 0)
    with pytest.raises(DamagedRecording, match=r"gone\.npz: a link to /nowhere\.npz, which does not exist"):
        next(gone.episodes())
    assert "eval: a link to /nowhere, which does not exist" in caplog.text


NAMES = [
    *(
        "with space",
        "with'quote\"s",
        "-dash",
        "--out=x",
        "a:b",
        "concat:a|b",
        "http:a",
        "file:a",
        "pipe:0",
        "[b]",
        "%d",
    ),
    *("new\nline", "\x1b[31mred", "é", "日本", "x" * 249, "a#b", "*"),
    os.fsdecode(b"no utf-8 \xff"),
]


@pytest.mark.parametrize("name", NAMES, ids=[repr(name[:20]) for name in NAMES])
def test_any_name_that_a_file_can_have(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = vpt(tmp_path / "train", name, size=(72, 128), options=False)
    maze(tmp_path / "maze" / name[:240], name)
    monkeypatch.chdir(tmp_path / "train")
    for recording in (*find_recordings(Path("."), "vpt"), *find_recordings(tmp_path / "maze", "maze")):
        (episode,) = recording.episodes()
        assert sum(map(len, episode.frames)) == len(expected.actions)
        assert episode.id.isprintable()
        episode.id.encode()


def test_names_that_look_alike_when_printed_stay_apart(tmp_path: Path) -> None:
    names = [os.fsdecode(b"a\xff"), "a\\xff", os.fsdecode(b"a\xfe"), "a\x1b", "a\\x1b"]
    touch(*(tmp_path / f"{name}.npz" for name in names))
    assert len({recording.id for recording in find_recordings(tmp_path, "maze")}) == len(names)


def test_a_named_pipe_in_place_of_a_file_is_not_waited_for(tmp_path: Path) -> None:
    for write, folder in ((maze, "maze"), (vpt, "vpt"), (minerl, "minerl")):
        write(tmp_path / folder)
    replaced = ["maze/20220920T045048-23.npz", f"vpt/{VPT_NAME}.mp4", f"vpt/{VPT_NAME}.jsonl"]
    replaced += [f"minerl/{STREAM}/{name}" for name in ("recording.mp4", "rendered.npz", "metadata.json")]
    for name in replaced:
        path = tmp_path / name
        content = path.read_bytes()
        path.unlink()
        os.mkfifo(path)
        (recording,) = find_recordings(tmp_path / name.partition("/")[0], name.partition("/")[0])
        with pytest.raises(DamagedRecording, match="not a regular file"):
            list(recording.episodes())
        path.unlink()
        path.write_bytes(content)
        assert len(list(recording.episodes())) == 1


METADATA = {
    "nested": "[" * 200_000 + "]" * 200_000,
    "infinite": '{"true_video_frame_count": Infinity}',
    "huge": '{"true_video_frame_count": 1e400}',
    "text": '{"true_video_frame_count": "29"}',
    "a list": "[]",
    "no utf-8": b"\xff\xfe".decode("latin-1"),
}


@pytest.mark.parametrize("content", METADATA.values(), ids=METADATA.keys())
def test_metadata_of_any_content_are_damage(tmp_path: Path, content: str) -> None:
    minerl(tmp_path)
    (tmp_path / STREAM / "metadata.json").write_bytes(content.encode("latin-1"))
    (recording,) = find_recordings(tmp_path, "minerl")
    with pytest.raises(DamagedRecording, match=r"metadata\.json: "):
        list(recording.episodes())


def test_whatever_a_reader_raises_is_damage(tmp_path: Path) -> None:
    def read(*_: object) -> Iterator[Episode]:
        raise IndexError("none there")
        yield

    touch(tmp_path / "a.npz")
    (recording,) = find_recordings(tmp_path, "maze")
    broken = replace(recording, format=replace(recording.format, read=read))
    with pytest.raises(DamagedRecording, match=r"a\.npz: not readable as maze \(IndexError: none there\)"):
        list(broken.episodes())


def test_arrays_that_need_too_much_memory_are_refused_by_their_headers(tmp_path: Path) -> None:
    maze(tmp_path, "small")
    with zipfile.ZipFile(tmp_path / "bomb.npz", "w") as archive, archive.open("image.npy", "w") as member:
        header = {"descr": "|u1", "fortran_order": False, "shape": (310_000, 64, 64, 3)}
        np.lib.format.write_array_header_1_0(member, header)
        member.write(bytes(1000))
    bomb, small = find_recordings(tmp_path, "maze")
    with pytest.raises(DamagedRecording, match=r"image need 3\.8 GB of memory.*--max-memory"):
        list(bomb.episodes())
    assert len(list(small.episodes())) == 1
    (small,) = find_recordings(tmp_path / "small.npz", "maze", ReaderOptions(max_memory=100_000))
    with pytest.raises(DamagedRecording, match="--max-memory"):
        list(small.episodes())


@pytest.mark.parametrize(
    ("max_memory", "size", "fits"), [(10**7, (64, 64), False), (8 * 10**7, None, False), (8 * 10**7, (64, 64), True)]
)
def test_frames_that_need_too_much_memory_are_refused(
    tmp_path: Path, max_memory: int, size: tuple[int, int] | None, fits: bool
) -> None:
    """A frame of 360x640 takes 0.7 MB, and many are held at once; resized, only the decoder holds some."""
    vpt(tmp_path)
    (recording,) = find_recordings(tmp_path, "vpt", ReaderOptions(size, max_memory=max_memory))
    if fits:
        assert len(list(recording.episodes())) == 1
    else:
        with pytest.raises(DamagedRecording, match=r"360x640 pixels need more.*--max-memory"):
            list(recording.episodes())


@pytest.mark.parametrize(
    ("text", "size"), [("2GB", 2 * 10**9), ("500mb", 5 * 10**8), ("1.5", 15 * 10**8), ("1 TB", 10**12)]
)
def test_sizes_of_memory(text: str, size: int) -> None:
    assert parse_bytes(text) == size


@pytest.mark.parametrize("text", ["", "0", "-1", "2KB", "much", "1e9", "inf", "99999999"])
def test_sizes_of_memory_that_are_none_are_told(text: str) -> None:
    with pytest.raises(LssvwmError, match="such as 2GB"):
        parse_bytes(text)
