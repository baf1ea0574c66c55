"""Recordings that are small on disk and would fill the memory: refused before any is taken, and named."""

import struct
import tracemalloc
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from lssvwm_datasets.errors import DamagedRecording, LssvwmError
from lssvwm_datasets.format import ReaderOptions
from lssvwm_datasets.npz import load_arrays
from lssvwm_datasets.sources import find_recordings
from tests.datasets.layouts import csgo, lerobot, maze

MB = 2**20
SMALL = ReaderOptions(size=(16, 16), max_memory=16 * MB)
EPISODES, ROWS = "meta/episodes/chunk-000/file-000.parquet", "data/chunk-000/file-000.parquet"


@contextmanager
def within(most: int) -> Iterator[None]:
    """Python and numpy take no more memory than `most` bytes at once."""
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < most
    finally:
        tracemalloc.stop()


def damage(source: Path, options: ReaderOptions = SMALL) -> list[str]:
    """What is said of the recordings of a folder that cannot be read."""
    said = []
    for recording in find_recordings(source, options=options):
        try:
            for episode in recording.episodes():
                for _ in episode.frames:
                    pass
        except DamagedRecording as error:
            said.append(str(error))
    return said


def test_the_header_of_an_array_is_short(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("image.npy", b"\x93NUMPY\x02\x00" + struct.pack("<I", 64 * MB) + b" " * (64 * MB))
    with within(4 * MB), pytest.raises(DamagedRecording, match="reading array header"):
        load_arrays(path, {"image"})


def with_chunks(name: str, file: h5py.File) -> None:
    picture = file[name][:]
    del file[name]
    bomb = file.create_dataset(
        name, picture.shape, "u1", maxshape=(None, None, 3), chunks=(8000, 8000, 3), compression="gzip"
    )
    bomb[:] = picture


def with_pixels(file: h5py.File) -> None:
    for name in [name for name in file if name.endswith("_x")]:
        del file[name]
        file.create_dataset(name, (20_000, 20_000, 3), "u1", chunks=(64, 64, 3), compression="gzip")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda file: with_chunks("frame_1_x", file), "larger chunks"),
        (lambda file: with_chunks("frame_0_x", file), "larger chunks"),
        (with_pixels, "frames of 20000x20000 pixels need more"),
    ],
)
def test_frames_in_hdf5_are_no_larger_than_they_say(
    tmp_path: Path, change: Callable[[h5py.File], None], message: str
) -> None:
    csgo(tmp_path / "good", "hdf5_dm_july2021_1")
    csgo(tmp_path / "bad", "hdf5_dm_july2021_2")
    with h5py.File(tmp_path / "bad/hdf5_dm_july2021_2.hdf5", "r+") as file:
        change(file)
    with within(32 * MB):
        [said] = damage(tmp_path)
    assert message in said


def test_pictures_that_are_made_smaller_are_read_few_at_once(tmp_path: Path) -> None:
    from PIL import Image

    for name, side, count in (("walk", 900, 33), ("huge", 4000, 1)):
        (tmp_path / name).mkdir()
        for number in range(count):
            Image.new("RGB", (side, side)).save(tmp_path / name / f"{number}.png", compress_level=1)
    (tmp_path / "recording.toml").write_text("fps = 20\n", encoding="utf-8")
    with within(96 * MB):  # 32 would take 74 MB, and once more when they are put together
        [said] = damage(tmp_path, ReaderOptions(size=(16, 16), max_memory=64 * MB))
    assert "huge" in said
    assert "frames of 4000x4000 pixels need more" in said
    assert "raise --max-memory" in said


def set_columns(path: Path, **columns: Any) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    table = parquet.read_table(path)
    for name, values in columns.items():
        if name in table.column_names:
            table = table.drop([name])
        table = table.append_column(name, pyarrow.array(values) if isinstance(values, list) else values)
    parquet.write_table(table, path)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"lssvwm/id": ["/etc/passwd", "b", "c"]}, "row 0: lssvwm/id is '/etc/passwd', expected a path below"),
        ({"lssvwm/id": ["a", "../../b", "c"]}, "row 1: lssvwm/id is '../../b'"),
        ({"lssvwm/id": ["a", "b//c", "c"]}, "row 1: lssvwm/id"),
        ({"lssvwm/id": ["a", "a", "c"]}, "a is there twice"),
        ({"lssvwm/id": [1, 2, 3]}, "column lssvwm/id: expected texts"),
        ({"lssvwm/layout": ["0", "1" * 100_000, "0"]}, "column lssvwm/layout: expected texts of at most 65536 letters"),
        ({"data/chunk_index": [0.5, 0.0, 0.0]}, "row 0: expected numbers from 0 on"),
        ({"length": [24.5, 24.0, 24.0]}, "row 0: expected numbers"),
        ({"length": [24, 0, 24]}, "row 1: expected numbers"),
    ],
)
def test_the_episodes_of_lerobot_are_of_their_folder(tmp_path: Path, columns: dict[str, Any], message: str) -> None:
    pytest.importorskip("pyarrow")
    lerobot(tmp_path)
    set_columns(tmp_path / EPISODES, **columns)
    with pytest.raises(LssvwmError, match=message):
        find_recordings(tmp_path)


def test_an_episode_of_lerobot_has_as_many_rows_as_it_says(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    lerobot(tmp_path)
    set_columns(tmp_path / EPISODES, length=[2**52, 24, 24])
    with within(96 * MB):
        [said] = damage(tmp_path)
    assert "episode 0 has 24 rows; expected 4503599627370496" in said


def test_values_that_parquet_repeats_are_counted_before_they_are_read(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    lerobot(tmp_path, (0, 1))
    rows, long = 24, 4 * MB
    starts = np.concatenate([[0], long + 2 * np.arange(rows)]).astype(np.int32)
    lists = pyarrow.ListArray.from_arrays(starts, np.zeros(long + 2 * (rows - 1), np.float32))
    set_columns(tmp_path / ROWS, action=lists)
    assert (tmp_path / ROWS).stat().st_size < MB
    [said] = damage(tmp_path)
    assert "file-000.parquet: needs more than" in said
    assert "raise --max-memory" in said


@pytest.mark.parametrize(
    ("lists", "message"),
    [
        ([[1.0, 2.0]] * 23 + [[1.0]], "row 23, column action: a list of 1, the first row has 2"),
        ([[1.0, 2.0]] * 23 + [[1.0, None]], "row 23, column action: expected finite numbers, found none"),
        (["left"] * 24, "column action is of text"),
    ],
)
def test_lists_of_parquet_are_rows_of_numbers(tmp_path: Path, lists: list[Any], message: str) -> None:
    pytest.importorskip("pyarrow")
    lerobot(tmp_path, (0, 1))
    set_columns(tmp_path / ROWS, action=lists)
    [said] = damage(tmp_path)
    assert message in said


def test_one_bad_recording_costs_no_other(tmp_path: Path) -> None:
    """The machine is not to blame for a file that asks for more than there is."""
    maze(tmp_path / "train", "good")
    with zipfile.ZipFile(tmp_path / "train/bad.npz", "w") as archive:
        header = b"{'descr': '|u1', 'fortran_order': False, 'shape': (99999999999999,), }"
        archive.writestr("image.npy", b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header)
    [said] = damage(tmp_path, ReaderOptions())
    assert "raise --max-memory" in said
