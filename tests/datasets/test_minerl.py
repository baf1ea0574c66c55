"""MineRL: aligned by the end, the loader's work-around, both spellings, and what is refused."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lssvwm_datasets.episode import Episode
from lssvwm_datasets.errors import DamagedRecording
from lssvwm_datasets.format import ReaderOptions
from lssvwm_datasets.minerl import KNOWN_BAD, read
from lssvwm_datasets.sources import find_recordings
from tests.datasets.layouts import GREY, LENGTH, STREAM, Expected, minerl

STEPS = LENGTH - 1
V4_OBSERVATIONS = {
    "observation$compass$angle": np.zeros(LENGTH),
    "observation$equipped_items$mainhand$type": np.full(LENGTH, "none"),
}
V3_OBSERVATIONS = {
    "observation$compassAngle": np.zeros(LENGTH),
    "observation$equipped_items.mainhand.type": np.full(LENGTH, "none"),
}


def the_episode(stream: Path, **options: Any) -> Episode:
    (episode,) = read(stream, stream.name, ReaderOptions(**options))
    return episode


def check(episode: Episode, expected: Expected) -> None:
    levels = np.concatenate([part.mean(axis=(1, 2, 3)) for part in episode.frames])
    np.testing.assert_allclose(levels, expected.levels, atol=GREY / 2 - 0.5)
    np.testing.assert_allclose(episode.actions[:, :10], expected.actions, rtol=1e-6)


@pytest.mark.parametrize("extra", [0, 1, 5, 40])
def test_the_end_is_aligned_and_the_last_frame_is_the_one_before(tmp_path: Path, extra: int) -> None:
    expected = minerl(tmp_path, extra=extra)
    episode = the_episode(tmp_path / STREAM)
    check(episode, expected)
    assert (episode.length, episode.fps, episode.frame_size, episode.notes) == (LENGTH, 20, (64, 64), ())
    assert episode.action_names[-2:] == ("camera_pitch", "camera_yaw")
    assert episode.action_units == ("binary",) * 8 + ("degrees",) * 2


@pytest.mark.parametrize("said", [LENGTH, LENGTH + 4, LENGTH + 60])
def test_decoded_frames_count_whatever_the_metadata_says(tmp_path: Path, said: int) -> None:
    expected = minerl(tmp_path, extra=5, count=said)
    episode = the_episode(tmp_path / STREAM)
    check(episode, expected)
    assert f"{LENGTH + 5} frames decoded, metadata.json says {said}" in episode.notes[0]


def test_metadata_is_not_needed(tmp_path: Path) -> None:
    expected = minerl(tmp_path)
    (tmp_path / STREAM / "metadata.json").unlink()
    episode = the_episode(tmp_path / STREAM)
    check(episode, expected)
    assert episode.notes == ()


@pytest.mark.parametrize("codec", ["mpeg4", "libx264"])
def test_a_bad_last_frame_is_not_missed_and_never_mistaken(tmp_path: Path, codec: str) -> None:
    """Without B-frames the last packet is the last frame; with them an earlier one, which is missed."""
    expected = minerl(tmp_path, codec=codec)
    video = tmp_path / STREAM / "recording.mp4"
    content = bytearray(video.read_bytes())
    end = content.index(b"moov") - 4  # the box before it, mdat, ends with the last packet
    content[end - 6 : end] = b"\xff" * 6
    video.write_bytes(content)
    if codec == "mpeg4":
        check(the_episode(tmp_path / STREAM), expected)
    else:
        with pytest.raises(DamagedRecording, match="not a readable video"):
            check(the_episode(tmp_path / STREAM), expected)


def test_items_of_both_spellings_are_columns_of_the_same_names(tmp_path: Path) -> None:
    place = np.full(STEPS, "none", "<U16")
    place[3], place[7] = "dirt", "lapis_block"
    change = {"action$place": place, "action$equip": np.full(STEPS, "air")}
    expected = minerl(tmp_path, "v3_a-1_1-2", change={**change, **V3_OBSERVATIONS})
    minerl(tmp_path, "v4_b-1_1-2", change={**change, **V4_OBSERVATIONS})
    old, new = the_episode(tmp_path / "v3_a-1_1-2"), the_episode(tmp_path / "v4_b-1_1-2")
    check(old, expected)
    assert old.action_names == new.action_names
    columns = dict(zip(old.action_names, old.actions.T, strict=True))
    assert np.flatnonzero(columns["place_dirt"]).tolist() == [4]
    assert np.flatnonzero(columns["place_other"]).tolist() == [8]
    assert np.flatnonzero(columns["equip_air"]).tolist() == list(range(1, LENGTH))
    assert old.action_units[old.action_names.index("place_dirt")] == "one-hot"
    assert old.notes == ("action$place: lapis_block read as place_other",)


def test_camera_angles_are_kept_as_they_are_up_to_a_half_turn(tmp_path: Path) -> None:
    camera = np.zeros((STEPS, 2), np.float32)
    camera[4] = 0.15, -179.85
    camera[5] = -400, 181
    minerl(tmp_path, change={"action$camera": camera})
    episode = the_episode(tmp_path / STREAM)
    np.testing.assert_array_equal(episode.actions[5, -2:], np.float32([0.15, -179.85]))
    np.testing.assert_array_equal(episode.actions[6, -2:], [-180, 180])
    assert "2 camera angles" in episode.notes[0]


def test_frames_of_another_size_are_resized(tmp_path: Path) -> None:
    expected = minerl(tmp_path, size=(144, 256))
    episode = the_episode(tmp_path / STREAM, size=(64, 96))
    check(episode, expected)
    assert {part.shape[1:] for part in episode.frames} == {(64, 96, 3)}
    assert episode.frame_size == (64, 96)


REFUSED: dict[str, tuple[str, dict[str, Any], str]] = {
    "VectorObf": (STREAM, {"action$vector": np.zeros((STEPS, 64))}, "obfuscated actions .*without VectorObf"),
    "2019": (STREAM, {"action_forward": np.zeros(STEPS)}, "before version 3"),
    "version 2": ("v2_some_stream-1_1-2", {}, "data of version 2, expected 3 or 4"),
    "blacklisted": ("v3_tempting_capers_shapeshifter-14_1-2", {}, "left out by MineRL's own loader"),
    "no reward": (STREAM, {"reward": None}, "no reward: found"),
    "no camera": (STREAM, {"action$camera": None}, r"no action\$camera: found"),
    "no steps": (STREAM, {"reward": np.zeros(0)}, "reward has shape"),
    "an action too many": (STREAM, {"action$jump": np.zeros(LENGTH)}, r"action\$jump is .*expected numbers of \(23,\)"),
    "not pressed or released": (STREAM, {"action$jump": np.full(STEPS, 2)}, r"action\$jump\[0\] is 2"),
    "words for numbers": (STREAM, {"action$jump": np.full(STEPS, "no")}, r"action\$jump is <U2"),
    "numbers for words": (STREAM, {"action$place": np.zeros(STEPS)}, r"action\$place is float64"),
    "one angle": (STREAM, {"action$camera": np.zeros(STEPS)}, r"action\$camera is float64 of shape"),
    "angle not a number": (STREAM, {"action$camera": np.full((STEPS, 2), np.nan)}, r"action\$camera"),
    "pickled": (STREAM, {"action$jump": np.full(STEPS, None)}, r"rendered\.npz: not a readable npz"),
}


@pytest.mark.parametrize(("name", "change", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_what_is_refused_is_told(tmp_path: Path, name: str, change: dict[str, Any], message: str) -> None:
    minerl(tmp_path, name, change=change)
    with pytest.raises(DamagedRecording, match=message) as raised:
        the_episode(tmp_path / name)
    assert name in str(raised.value)


def test_a_video_shorter_than_its_states_is_refused(tmp_path: Path) -> None:
    minerl(tmp_path, extra=-2)
    with pytest.raises(DamagedRecording, match=f"{LENGTH - 2} frames for {LENGTH} states"):
        the_episode(tmp_path / STREAM)


@pytest.mark.parametrize("missing", ["recording.mp4", "rendered.npz"])
def test_a_stream_without_one_of_its_files_is_found_and_told(tmp_path: Path, missing: str) -> None:
    minerl(tmp_path / "MineRLTreechop-v0")
    (tmp_path / "MineRLTreechop-v0" / STREAM / missing).unlink()
    (recording,) = find_recordings(tmp_path, "minerl")
    with pytest.raises(DamagedRecording, match=missing.replace(".", r"\.")):
        list(recording.episodes())


def test_streams_are_found_at_any_depth_and_known_bad_ones_can_be_skipped(tmp_path: Path) -> None:
    minerl(tmp_path / "extra" / "MineRLTreechop-v0", KNOWN_BAD[0])
    minerl(tmp_path / "extra" / "MineRLTreechop-v0")
    bad, good = find_recordings(tmp_path, "minerl", ReaderOptions(skip=KNOWN_BAD))[::-1]
    assert good.id == f"extra/MineRLTreechop-v0/{STREAM}"
    assert next(good.episodes()).length == LENGTH
    with pytest.raises(DamagedRecording, match="on the skip list"):
        next(bad.episodes())


def test_a_stream_by_itself_is_a_source(tmp_path: Path) -> None:
    minerl(tmp_path)
    assert [recording.id for recording in find_recordings(tmp_path / STREAM)] == [STREAM]
