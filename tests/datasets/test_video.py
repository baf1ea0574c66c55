"""Reading videos: both decoders see the same frames; damage is named."""

import faulthandler
import importlib.util
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import imageio.v2 as imageio
import imageio_ffmpeg
import numpy as np
import pytest

from lssvwm_datasets.errors import DamagedRecording
from lssvwm_datasets.frames import PART_FRAMES
from lssvwm_datasets.video import read_video

DECODERS = [name for name in ("decord", "av") if importlib.util.find_spec(name)]


@pytest.fixture(autouse=True)
def _a_hang_is_a_failure() -> Iterator[None]:
    faulthandler.dump_traceback_later(60, exit=True, file=sys.__stderr__)
    yield
    faulthandler.cancel_dump_traceback_later()


@pytest.fixture
def video(tmp_path: Path) -> Path:
    """One frame more than is decoded at once, each of its own grey level."""
    path = tmp_path / "a.mp4"
    options = {"codec": "libx264", "macro_block_size": 2, "output_params": ["-movflags", "+faststart"]}  # index first
    with imageio.get_writer(path, format="FFMPEG", fps=10, **options) as writer:
        for level in range(PART_FRAMES + 1):
            writer.append_data(np.full((48, 64, 3), 3 * level, np.uint8))
    return path


@pytest.mark.parametrize("decoder", [*DECODERS, None])
def test_every_frame_is_read_in_order_and_never_all_at_once(video: Path, decoder: str | None) -> None:
    parts = list(read_video(video, decoder))
    assert [part.shape for part in parts] == [(PART_FRAMES, 48, 64, 3), (1, 48, 64, 3)]
    assert {part.dtype for part in parts} == {np.dtype(np.uint8)}
    levels = np.concatenate(parts).mean(axis=(1, 2, 3))
    np.testing.assert_allclose(levels, 3 * np.arange(PART_FRAMES + 1), atol=1.4)  # less than half a level apart


@pytest.mark.skipif(len(DECODERS) < 2, reason="only one decoder is installed")
def test_the_decoders_agree_in_every_pixel_and_channel(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    with imageio.get_writer(path, format="FFMPEG", fps=10, codec="libx264", macro_block_size=2) as writer:
        for frame in np.random.default_rng(0).integers(0, 256, (10, 6, 8, 3), dtype=np.uint8):
            writer.append_data(np.kron(frame // (1, 2, 4), np.ones((8, 8, 1))).astype(np.uint8))  # red, less green
    one, other = (np.concatenate(list(read_video(path, decoder))) for decoder in DECODERS)
    np.testing.assert_array_equal(one, other)
    assert one[..., 0].mean() > one[..., 1].mean() > one[..., 2].mean(), "RGB"


def without_samples(video: bytes) -> bytes:
    sizes = video.index(b"stsz") + 4
    return video[: sizes + 8] + bytes(4) + video[sizes + 12 :]  # version and flags, one size for all, their number


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda video: b"",
    "text": lambda video: b"no video at all",
    "truncated index": lambda video: video[:300],
    "truncated frames": lambda video: video[: int(0.9 * len(video))],
    "garbage in the middle": lambda video: video[: video.index(b"mdat") + 4] + b"\xa5" * 3000,
    "no frames": without_samples,
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE.keys())
@pytest.mark.parametrize("decoder", DECODERS)
def test_damaged_videos_are_named(video: Path, decoder: str, damage: Callable[[bytes], bytes]) -> None:
    video.write_bytes(damage(video.read_bytes()))
    with pytest.raises(DamagedRecording, match=r"a\.mp4: not a readable video \(.+\)"):
        list(read_video(video, decoder))


@pytest.mark.parametrize("decoder", DECODERS)
def test_what_is_no_video_is_named(tmp_path: Path, decoder: str) -> None:
    with pytest.raises(DamagedRecording, match="missing"):
        list(read_video(tmp_path / "missing.mp4", decoder))
    sound = tmp_path / "sound.mp4"
    ffmpeg = [imageio_ffmpeg.get_ffmpeg_exe(), "-loglevel", "error", "-f", "lavfi", "-i", "sine=duration=1", str(sound)]
    subprocess.run(ffmpeg, check=True)
    with pytest.raises(DamagedRecording, match=r"sound\.mp4"):
        list(read_video(sound, decoder))


def test_a_width_that_decord_misreads_is_told(tmp_path: Path) -> None:
    pytest.importorskip("decord")
    path = tmp_path / "a.mp4"
    with imageio.get_writer(path, format="FFMPEG", fps=10, codec="libx264", macro_block_size=2) as writer:
        writer.append_data(np.zeros((64, 48, 3), np.uint8))
    with pytest.raises(DamagedRecording, match="pip install av"):
        list(read_video(path, "decord"))
