"""Reading videos: both decoders see the same frames; damage is named."""

import importlib.util
from pathlib import Path

import imageio.v2 as imageio
import numpy as np
import pytest

from lssvwm_datasets.errors import DamagedRecording
from lssvwm_datasets.video import READ_FRAMES, read_video

DECODERS = [name for name in ("decord", "av") if importlib.util.find_spec(name)]


@pytest.fixture
def video(tmp_path: Path) -> Path:
    """One frame more than is decoded at once, each of its own grey level."""
    path = tmp_path / "a.mp4"
    with imageio.get_writer(path, format="FFMPEG", fps=10, codec="libx264", macro_block_size=2) as writer:
        for level in range(READ_FRAMES + 1):
            writer.append_data(np.full((48, 64, 3), 3 * level, np.uint8))
    return path


@pytest.mark.parametrize("decoder", DECODERS)
def test_every_frame_is_read_in_order(video: Path, decoder: str) -> None:
    frames = np.concatenate(list(read_video(video, decoder)))
    assert frames.shape == (READ_FRAMES + 1, 48, 64, 3)
    np.testing.assert_allclose(frames.mean(axis=(1, 2, 3)), 3 * np.arange(READ_FRAMES + 1), atol=2)


@pytest.mark.skipif(len(DECODERS) < 2, reason="only one decoder is installed")
def test_the_decoders_agree(video: Path) -> None:
    one, other = (np.concatenate(list(read_video(video, decoder))) for decoder in DECODERS)
    np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("decoder", DECODERS)
def test_damaged_videos_are_named(video: Path, decoder: str) -> None:
    for content in (b"", b"no video at all", video.read_bytes()[:300]):
        video.write_bytes(content)
        with pytest.raises(DamagedRecording, match=r"a\.mp4: not a readable video"):
            list(read_video(video, decoder))


def test_a_width_that_decord_misreads_is_told(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    with imageio.get_writer(path, format="FFMPEG", fps=10, codec="libx264", macro_block_size=2) as writer:
        writer.append_data(np.zeros((64, 48, 3), np.uint8))
    pytest.importorskip("decord")
    with pytest.raises(DamagedRecording, match="pip install av"):
        list(read_video(path, "decord"))
