"""Recordings of one's own: how tables, pictures and `recording.toml` are read, and what is said of mistakes."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from lssvwm_datasets.episode import Episode
from lssvwm_datasets.errors import DamagedRecording, LssvwmError
from lssvwm_datasets.index import ShardHeader
from lssvwm_datasets.pictures import in_order
from lssvwm_datasets.shard_file import Shard
from lssvwm_datasets.shard_writer import ShardWriter
from lssvwm_datasets.sources import find_recordings
from tests.datasets.layouts import GREY, write_video

FRAMES = 6


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("film") / "film.mp4"
    write_video(path, GREY * np.arange(FRAMES), (32, 48))
    return path.read_bytes()


@pytest.fixture
def folder(film: bytes, tmp_path: Path) -> Path:
    """A folder with a video, walk.mp4, of six frames."""
    (tmp_path / "walk.mp4").write_bytes(film)
    return tmp_path


def pictures(folder: Path, numbers: list[int]) -> None:
    folder.mkdir()
    for number in numbers:
        Image.new("RGB", (48, 32), (GREY * number,) * 3).save(folder / f"frame_{number}.png")


def episode_of(folder: Path) -> Episode:
    (recording,) = find_recordings(folder, "folder")
    (episode,) = recording.episodes()
    return episode


def levels(episode: Episode) -> list[int]:
    return [round(float(frame.mean())) for part in episode.frames for frame in part]


ROWS = [{"forward": t % 2, "turn": 0.5 * t} for t in range(FRAMES)]
LED = np.array([(0, 0), *((t % 2, 0.5 * t) for t in range(FRAMES - 1))], np.float32)  # by rows taken at frames


def write_csv(path: Path, rows: list[dict[str, Any]]) -> None:
    lines = [list(rows[0]), *(row.values() for row in rows)]
    path.write_text("\n".join(";".join(map(str, line)) for line in lines) + "\n\n")


def write_jsonl(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("\n".join(map(json.dumps, rows)))


def write_npz(path: Path, rows: list[dict[str, Any]]) -> None:
    np.savez(path, **{name: np.array([row[name] for row in rows]) for name in rows[0]})


def write_parquet(path: Path, rows: list[dict[str, Any]]) -> None:
    pyarrow = pytest.importorskip("pyarrow", reason="the extra `parquet` is not installed")
    pytest.importorskip("pyarrow.parquet").write_table(pyarrow.Table.from_pylist(rows), path)


WRITERS = {".csv": write_csv, ".jsonl": write_jsonl, ".npz": write_npz, ".parquet": write_parquet}


@pytest.mark.parametrize("suffix", WRITERS)
def test_every_kind_of_table_gives_the_same_actions(folder: Path, suffix: str) -> None:
    WRITERS[suffix](folder / f"walk{suffix}", [{"taken_at": t, **row} for t, row in enumerate(ROWS)])
    episode = episode_of(folder)
    assert (episode.action_names, episode.action_units) == (("forward", "turn"), ("binary", "number"))
    assert (episode.fps, episode.frame_size, episode.notes) == (20.0, (32, 48), ())
    np.testing.assert_array_equal(episode.actions, LED)
    (found,) = find_recordings(folder)
    assert found.format.name == "folder", "a column of frame numbers tells it from other data sets"


@pytest.mark.parametrize(("column", "first"), [("led_to", 0), ("led_to", 1), ("taken_at", 0)])
def test_an_action_goes_with_the_frame_that_it_led_to(folder: Path, column: str, first: int) -> None:
    write_csv(folder / "walk.csv", [{column: t, "turn": 0.5 + t} for t in range(first, FRAMES)])
    expected = np.arange(FRAMES) + (0.5 if column == "led_to" else -0.5)
    expected[0] = 0  # nothing led to the first frame
    np.testing.assert_array_equal(episode_of(folder).actions[:, 0], expected)


def test_what_is_written_into_recording_toml_counts(folder: Path) -> None:
    rows = [{"key": t % 3, "dx": t, "px": 2.0 * t, "py": 4.0, "yaw": 90 * t, "note": "x"} for t in range(FRAMES)]
    write_jsonl(folder / "walk.jsonl", rows)
    (folder / "recording.toml").write_text(
        'alignment = "led_to"\nfps = 10\nangles = "degrees"\nunit = 2.0\nrelative = true\n'
        '[actions]\ndx = "degrees"\nkey = ["noop", "left", "right"]\n[poses]\npx = "x"\npy = "-y"\nyaw = "-heading"\n'
    )
    episode = episode_of(folder)
    assert episode.fps == 10
    assert episode.action_names == ("dx", "noop", "left", "right")
    assert episode.action_units == ("degrees", "one-hot", "one-hot", "one-hot")
    np.testing.assert_array_equal(episode.actions[1:4], [(1, 0, 1, 0), (2, 0, 0, 1), (3, 1, 0, 0)])
    assert episode.pose_names == ("x", "y", "cos", "sin")
    assert episode.poses is not None
    np.testing.assert_allclose(episode.poses[:3], [(0, 0, 1, 0), (1, 0, 0, -1), (2, 0, -1, 0)], atol=1e-6)
    (folder / "walk.toml").write_text('layout = ["10", "01"]\nfps = 5')
    episode = episode_of(folder)
    assert episode.fps == 5
    assert episode.layout is not None
    assert episode.layout.tolist() == [[1, 0], [0, 1]]


def test_a_folder_of_pictures_with_tables_inside_is_cut_where_a_picture_is_missing(tmp_path: Path) -> None:
    pictures(tmp_path / "walk", [*range(8, 14), *range(15, 18)])  # in the order of numbers: 8, 9, 10, …
    write_csv(tmp_path / "walk/actions.csv", [{"taken_at": t, "turn": 0.5 * t} for t in range(10)])
    write_csv(tmp_path / "walk/poses.csv", [{"x": 1.0 * t, "y": 0.5} for t in range(10)])
    (recording,) = find_recordings(tmp_path, "folder")
    with pytest.raises(DamagedRecording, match=r"walk: pictures do not tell .* fps = 20 into recording\.toml"):
        next(recording.episodes())
    (tmp_path / "recording.toml").write_text("fps = 4")
    before, after = recording.episodes()
    assert (levels(before), levels(after)) == ([GREY * n for n in range(8, 14)], [GREY * n for n in (15, 16, 17)])
    np.testing.assert_array_equal(after.actions[:, 0], [0, 3.5, 4.0])
    assert after.poses is not None
    np.testing.assert_array_equal(after.poses[:, 0], [7, 8, 9])
    assert after.notes == ("1 frame is missing before 1.75 s: cut there",)


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["shot-7", "shot-10", "shot-13", "shot-100"], [0, 1, 2, 31]),  # every third was kept; some are missing
        (["left_9", "right_10", "left_11"], [0, 1, 2]),
        (["12-9-58", "12-9-59", "12-10-0", "12-10-1"], [0, 1, 2, 3]),  # clock times
        (["0.50", "0.72", "0.90", "1.10", "10.20"], [0, 1, 2, 3, 4]),
        (["9", "10", "23", "107"], [0, 1, 2, 3]),  # numbers that do not count
        (["b9", "b10", "c"], [0, 1, 2]),
        (["alone"], [0]),
    ],
)
def test_pictures_are_in_the_order_of_their_numbers(names: list[str], expected: list[int]) -> None:
    paths = [Path(f"{name}.png") for name in names]
    for given in (paths, paths[::-1]):
        assert in_order(given) == (paths, expected)


def test_video_without_actions_is_unlabelled(folder: Path) -> None:
    episode = episode_of(folder)
    assert (episode.actions.shape, episode.action_names, episode.poses) == ((FRAMES, 0), (), None)
    assert levels(episode)[-1] == pytest.approx(GREY * (FRAMES - 1), abs=2)


MISTAKES: dict[str, tuple[str, str]] = {
    "a word": ("taken_at,turn\n0,1.0\n1,oops\n", r"walk\.csv: row 1 \(line 3\), column turn: .* number, found 'oops'"),
    "not finite": ("taken_at,turn\n0,nan\n", r"row 0 \(line 2\), column turn: .* finite number, found 'nan'"),
    "a cell too few": ("taken_at,turn\n0,1.0\n1\n", r"row 1 \(line 3\) has 1 cells; the header has 2"),
    "a frame left out": ("taken_at,turn\n0,1.0\n2,1.0\n", r"row 1 \(line 3\), column taken_at: found 2, expected 1"),
    "a late start": ("led_to,turn\n2,1.0\n3,1.0\n", r"row 0 \(line 2\), column led_to: found 2, expected 0 or 1"),
    "no alignment": ("turn\n1.0\n", r"call the column of frame numbers led_to or taken_at, or write alignment"),
    "which unit": ("taken_at,key\n0,0\n1,3\n", r"row 1 \(line 3\), column key: 3 may be an amount or the number of a"),
    "no rows": ("taken_at,turn\n", r"walk\.csv: no rows"),
    "twice": ("taken_at,turn,turn\n0,1,1\n", r"column turn is named twice"),
}


@pytest.mark.parametrize(("table", "message"), MISTAKES.values(), ids=MISTAKES.keys())
def test_mistakes_are_told_by_file_row_and_column(folder: Path, table: str, message: str) -> None:
    (folder / "walk.csv").write_text(table)
    with pytest.raises(DamagedRecording, match=message):
        episode_of(folder)


def wrong_choice(folder: Path) -> None:
    write_npz(folder / "walk.npz", [{"taken_at": t, "key": t} for t in range(FRAMES)])
    (folder / "recording.toml").write_text('[actions]\nkey = ["a", "b"]')


def two_tables(folder: Path) -> None:
    write_csv(folder / "walk.csv", ROWS)
    write_csv(folder / "actions.csv", ROWS)


def poses_unsaid(folder: Path) -> None:
    write_csv(folder / "walk.poses.csv", ROWS)


def wrong_key(folder: Path) -> None:
    (folder / "recording.toml").write_text('algnment = "led_to"')


def wrong_kind(folder: Path) -> None:
    (folder / "recording.toml").write_text('[poses]\na = "north"')


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (wrong_choice, r"walk\.npz: row 2, column key: found 2, expected a whole number 0\.\.1"),
        (two_tables, r"two tables of actions for one recording"),
        (
            poses_unsaid,
            r"walk\.poses\.csv: nothing says what the columns forward, turn are; write into",
        ),
        (wrong_key, r"recording\.toml: unknown key algnment; expected some of fps, alignment"),
        (wrong_kind, r"recording\.toml: pose a is 'north'; expected one of x, y, z"),
    ],
)
def test_mistakes_between_files_are_told(folder: Path, make: Callable[[Path], None], message: str) -> None:
    make(folder)
    with pytest.raises(LssvwmError, match=message):
        episode_of(folder)


def test_the_page_s_example_is_prepared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (Path(__file__).parents[2] / "docs/own_recordings.md").read_text(encoding="utf-8")
    example = page.partition("```python\n")[2].partition("```")[0]
    assert example.count("\n") <= 26
    monkeypatch.chdir(tmp_path)
    exec(example, {})
    (recording,) = find_recordings(tmp_path / "recordings/mine")
    (episode,) = recording.episodes()
    assert (episode.action_names, episode.action_units) == (("right", "speed"), ("binary", "number"))
    frames = np.concatenate(list(episode.frames)).astype(int)
    moved = np.abs(np.diff(frames, axis=0)).mean(axis=(1, 2, 3)) > 20
    np.testing.assert_array_equal(moved, episode.actions[1:, 0])


def test_unlabelled_video_is_written_into_shards(folder: Path) -> None:
    episode = episode_of(folder)
    header = ShardHeader("folder", episode.fps, episode.frame_size, (), (), "none", "0", (1, 4, 4))
    with ShardWriter(folder / "train.h5", header, "train", "", keep_frames=True) as writer:
        writer.add(episode, lambda frames: np.zeros((len(frames), 1, 4, 4), np.float16))
    with Shard(folder / "train.h5") as shard:
        actions, frames = shard.rows("actions"), shard.rows("frames")
    assert actions is not None
    assert actions.shape == (FRAMES, 0)
    assert frames is not None
    assert len(frames) == FRAMES
