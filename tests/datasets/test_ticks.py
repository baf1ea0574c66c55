"""Every picture keeps the action of its own tick, whatever the recorder dropped, doubled or stamped."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lssvwm_datasets.episode import Episode
from lssvwm_datasets.errors import DamagedRecording
from lssvwm_datasets.sources import find_recordings
from lssvwm_datasets.ticks import stretches, tick_numbers
from lssvwm_datasets.video import probe_video
from tests.datasets.layouts import (
    GREY,
    LENGTH,
    Expected,
    minerl,
    teco_minecraft,
    vpt,
    worldmem,
    write_timed_video,
)

EXTRA = 5  # frames before a MineRL recording's first state
PERIOD = 0.05


def cut(ticks: Any, rows: int, **options: Any) -> list[tuple[int, int, int]]:
    times = tuple((PERIOD * np.asarray(ticks, float)).tolist())
    return [(s.start, s.stop, s.tick) for s in stretches(Path("a.mp4"), "a", times, rows, 20, **options)]


@pytest.mark.parametrize("drift", [0.997, 1.0, 1.004])
@pytest.mark.parametrize("jitter", [0.0, 0.1, 0.2])
def test_ticks_are_found_under_jitter_drift_and_gaps(jitter: float, drift: float) -> None:
    rng = np.random.default_rng(0)
    for length in rng.integers(20, 2000, size=20):
        true = np.flatnonzero(rng.random(length) > 0.03)
        stamps = np.sort(true + rng.uniform(-jitter, jitter, len(true)))
        np.testing.assert_array_equal(tick_numbers(PERIOD * stamps * drift, PERIOD), true)


def test_stamps_in_whole_milliseconds_are_steady() -> None:
    times = tuple((np.round(np.arange(3000) * 1000 / 30) / 1000).tolist())
    (stretch,) = stretches(Path("a.mp4"), "a", times, 3000, 30)
    assert (stretch.id, stretch.rows, stretch.notes) == ("a", slice(0, 3000), ())


def test_where_a_video_is_cut() -> None:
    whole = list(range(40))
    assert cut(whole, 40) == [(0, 40, 0)]
    assert cut(whole[:10] + whole[11:], 40) == [(0, 10, 0), (10, 39, 11)]
    assert cut(whole[3:], 40) == [(0, 37, 3)]
    assert cut(whole[2:10] + whole[11:20] + whole[23:], 40) == [(0, 8, 2), (8, 17, 11), (17, 34, 23)]
    assert cut([*whole[:11], 10, *whole[11:]], 40) == [(0, 11, 0), (12, 41, 11)], "two at one time: the second goes"
    assert cut([*whole[:11], 10, *whole[12:]], 40) == [(0, 11, 0), (12, 40, 12)], "its tick is not sure"
    assert cut(whole, 20) == [(0, 20, 0)]
    assert cut(whole[:10] + whole[11:], 11) == [(0, 10, 0)]
    assert cut([0], 1) == [(0, 1, 0)]


def test_a_start_offset_that_actions_do_not_reach_is_none_of_the_recording() -> None:
    assert cut(range(2, 42), 40) == [(0, 40, 0)]
    assert cut(range(2, 42), 42) == [(0, 40, 2)]


def test_from_the_end_only_what_has_a_row_counts() -> None:
    ticks = [*range(20), *range(21, 50)]
    assert cut(ticks, 40, from_end=True) == [(10, 20, 0), (20, 49, 11)]
    assert cut(ticks, 20, from_end=True) == [(29, 49, 0)]
    with pytest.raises(DamagedRecording, match="50 frames for 51 states"):
        cut(ticks, 51, from_end=True)


def test_a_video_of_another_rate_is_read_by_its_own() -> None:
    assert cut(2 * np.arange(20), 20) == [(0, 20, 0)]


@pytest.mark.parametrize("keep", [2, 3, 4])
def test_a_video_that_lacks_a_part_of_its_pictures_throughout_is_refused(keep: int) -> None:
    """Every second or third picture dropped, or one of four."""
    ticks = [tick for tick in range(60) if (tick % 4 if keep == 4 else tick % keep == 0)]
    with pytest.raises(DamagedRecording, match=r"a\.mp4: its time stamps have no steady rate.*fps=20"):
        cut(ticks, 60)


def write_vpt(folder: Path) -> tuple[Path, Expected]:
    expected = vpt(folder, size=(72, 128))
    return next(folder.glob("*.mp4")), expected


def write_minerl(folder: Path) -> tuple[Path, Expected]:
    expected = minerl(folder, extra=EXTRA)
    (folder / "v3_absolute_grape_changeling-16_2489-4511" / "metadata.json").unlink()
    return next(folder.rglob("*.mp4")), expected


def write_teco(folder: Path) -> tuple[Path, Expected]:
    expected = teco_minecraft(folder)
    return folder / "000123.mp4", expected


def write_worldmem(folder: Path) -> tuple[Path, Expected]:
    expected = worldmem(folder)
    return folder / "000007.mp4", expected


WRITERS = {"vpt": write_vpt, "minerl": write_minerl, "teco": write_teco, "worldmem": write_worldmem}
FAULTS: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = {  # ticks dropped, ticks shown twice
    "none": ((), ()),
    "first": ((0,), ()),
    "first two": ((0, 1), ()),
    "middle": ((10,), ()),
    "two gaps": ((7, 15, 16), ()),
    "first and middle": ((0, 12), ()),
    "doubled": ((), (9,)),
    "doubled and dropped": ((14,), (9,)),
}


def check(format: str, episodes: list[Episode], expected: Expected, extra: int) -> list[int]:
    """Every picture has the action that led to it; returns the ticks shown."""
    shown: list[int] = []
    for episode in episodes:
        levels = np.concatenate([part.mean(axis=(1, 2, 3)) for part in episode.frames])
        ticks = np.rint(levels / GREY).astype(int) - extra
        if format == "minerl" and episode is episodes[-1]:
            ticks[-1] += 1  # the loader shows the last but one twice
        assert not episode.actions[0].any()
        np.testing.assert_allclose(episode.actions[1:], expected.actions[ticks[1:]], rtol=1e-5)
        np.testing.assert_array_equal(np.diff(ticks), 1)
        if episode.poses is not None:
            assert len(episode.poses) == len(ticks)
        shown += ticks.tolist()
    return shown


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("format", WRITERS)
def test_every_picture_keeps_the_action_of_its_tick(tmp_path: Path, format: str, fault: str) -> None:
    dropped, doubled = FAULTS[fault]
    path, expected = WRITERS[format](tmp_path)
    extra = EXTRA if format == "minerl" else 0
    ticks = [tick for tick in range(-extra, LENGTH) if tick not in dropped]
    shown = sorted([*((tick, GREY * (tick + extra)) for tick in ticks), *((t + 0.02, 250) for t in doubled)])
    fps = 10 if format == "worldmem" else 20
    write_timed_video(path, [level for _, level in shown], [tick + extra for tick, _ in shown], fps=fps)
    (recording,) = find_recordings(tmp_path, format)
    episodes = list(recording.episodes())
    assert check(format, episodes, expected, extra) == [tick for tick in ticks if tick >= 0]
    notes = [note for episode in episodes for note in episode.notes]
    assert bool(notes) == bool(dropped or doubled), notes
    for tick in dropped:
        if tick > 1 and tick + 1 not in dropped:
            assert any(f"before {(tick + 1 + extra) / fps:.2f} s" in note for note in notes), notes
    for tick in doubled:
        assert any(f"two frames of one time at {(tick + extra) / fps:.2f} s" in note for note in notes), notes
    assert [e.id for e in episodes] == [
        f"{recording.id}#{k}" if len(episodes) > 1 else recording.id for k in range(len(episodes))
    ]


@pytest.mark.parametrize("bf", [0, 1, 2])
@pytest.mark.parametrize("first", [0, 1, 2, 3])
def test_frames_that_refer_to_later_ones_do_not_hide_what_is_missing_at_the_start(
    tmp_path: Path, bf: int, first: int
) -> None:
    write_timed_video(tmp_path / "a.mp4", range(0, 200, 5), range(first, first + 40), bf=bf)
    times = probe_video(tmp_path / "a.mp4").times
    np.testing.assert_allclose(times, PERIOD * np.arange(first, first + 40), atol=0.002)


@pytest.mark.parametrize("options", [{"use_editlist": "0"}, {"movflags": "frag_keyframe+empty_moov"}])
@pytest.mark.parametrize("bf", [0, 1, 2])
def test_without_an_edit_list_the_delay_of_the_decoder_is_no_gap(
    tmp_path: Path, bf: int, options: dict[str, str]
) -> None:
    write_timed_video(tmp_path / "a.mp4", range(0, 200, 5), range(40), bf=bf, options=options)
    np.testing.assert_allclose(probe_video(tmp_path / "a.mp4").times, PERIOD * np.arange(40), atol=0.002)
