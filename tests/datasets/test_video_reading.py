"""Reading videos: every frame once, in order; damage is named, and told apart from trouble of the machine."""

import faulthandler
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import imageio.v2 as imageio
import imageio_ffmpeg
import numpy as np
import pytest

from lssvwm_datasets.errors import DamagedRecording, UnreadableNow
from lssvwm_datasets.frames import PART_FRAMES
from lssvwm_datasets.video import VideoInfo, _DecoderProcess, _idle, probe_video, read_video


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


def test_every_frame_is_read_in_order_and_never_all_at_once(video: Path) -> None:
    parts = list(read_video(video))
    assert [part.shape for part in parts] == [(PART_FRAMES, 48, 64, 3), (1, 48, 64, 3)]
    assert {part.dtype for part in parts} == {np.dtype(np.uint8)}
    levels = np.concatenate(parts).mean(axis=(1, 2, 3))
    np.testing.assert_allclose(levels, 3 * np.arange(PART_FRAMES + 1), atol=1.4)  # less than half a level apart


@pytest.mark.parametrize("codec", ["libx264", "mpeg4"])
def test_colours_are_red_green_blue(tmp_path: Path, codec: str) -> None:
    path = tmp_path / "a.mp4"
    with imageio.get_writer(path, format="FFMPEG", fps=10, codec=codec, macro_block_size=2) as writer:
        for frame in np.random.default_rng(0).integers(0, 256, (10, 6, 8, 3), dtype=np.uint8):
            writer.append_data(np.kron(frame // (1, 2, 4), np.ones((8, 8, 1))).astype(np.uint8))  # red, less green
    frames = np.concatenate(list(read_video(path)))
    assert frames[..., 0].mean() > frames[..., 1].mean() > frames[..., 2].mean()


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
def test_damaged_videos_are_named(video: Path, damage: Callable[[bytes], bytes]) -> None:
    video.write_bytes(damage(video.read_bytes()))
    with pytest.raises(DamagedRecording, match=r"a\.mp4: not a readable video \(.+\)"):
        list(read_video(video))


def test_what_is_no_video_is_named(tmp_path: Path) -> None:
    with pytest.raises(DamagedRecording, match="missing"):
        list(read_video(tmp_path / "missing.mp4"))
    sound = tmp_path / "sound.mp4"
    ffmpeg = [imageio_ffmpeg.get_ffmpeg_exe(), "-loglevel", "error", "-f", "lavfi", "-i", "sine=duration=1", str(sound)]
    subprocess.run(ffmpeg, check=True)
    with pytest.raises(DamagedRecording, match=r"sound\.mp4"):
        list(read_video(sound))


@pytest.mark.parametrize(("start", "stop"), [(0, 0), (0, 1), (0, PART_FRAMES), (5, 6), (31, 33), (3, PART_FRAMES + 1)])
def test_a_window_of_a_video(video: Path, start: int, stop: int) -> None:
    whole = np.concatenate(list(read_video(video)))
    parts = [whole[:0], *read_video(video, start, stop)]
    np.testing.assert_array_equal(np.concatenate(parts), whole[start:stop])


def test_a_window_beyond_the_end_is_damage(video: Path) -> None:
    with pytest.raises(DamagedRecording, match=f"only {PART_FRAMES + 1} of 90 frames"):
        list(read_video(video, 3, 90))


def test_a_look_into_a_video(video: Path) -> None:
    assert probe_video(video) == VideoInfo(tuple(number / 10 for number in range(PART_FRAMES + 1)), (48, 64), 10.0)


def test_one_process_decodes_video_after_video_and_two_decode_two_at_once(video: Path) -> None:
    list(read_video(video))
    before = list(_idle)
    list(read_video(video))
    assert _idle == before
    pairs = list(zip(read_video(video), read_video(video), strict=True))
    assert all((one == other).all() for one, other in pairs)
    next(read_video(video))  # left in its middle
    assert len(list(read_video(video))) == 2


def test_an_idle_decoder_that_was_killed_is_replaced(video: Path) -> None:
    list(read_video(video))
    for process in _idle:
        process.process.kill()
        process.process.wait()
    assert len(list(read_video(video))) == 2


class EndsAfter(_DecoderProcess):
    """A decoder that gets a signal after its first answer."""

    signal = signal.SIGSEGV

    def answer(self) -> dict[str, Any]:
        answer = super().answer()
        self.process.send_signal(self.signal)
        self.process.wait()
        return answer


@pytest.fixture
def ends_by(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    def by(number: int) -> None:
        monkeypatch.setattr(EndsAfter, "signal", number)
        monkeypatch.setattr("lssvwm_datasets.video._DecoderProcess", EndsAfter)
        monkeypatch.setattr("lssvwm_datasets.video._idle", [])

    return by


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGABRT])
def test_a_decoder_that_crashes_is_a_damaged_recording(
    video: Path, ends_by: Callable[[int], None], number: int
) -> None:
    ends_by(number)
    with pytest.raises(DamagedRecording, match=r"a\.mp4: not a readable video \(the decoder crashed\)"):
        list(read_video(video))


def test_a_decoder_that_is_killed_is_no_fault_of_the_recording(video: Path, ends_by: Callable[[int], None]) -> None:
    ends_by(signal.SIGKILL)
    with pytest.raises(UnreadableNow, match="ended from outside"):
        list(read_video(video))


def test_a_decoder_that_hangs_is_a_damaged_recording(video: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Stopped(_DecoderProcess):
        def ask(self, request: dict[str, Any]) -> None:
            self.process.send_signal(signal.SIGSTOP)
            super().ask(request)

    monkeypatch.setattr("lssvwm_datasets.video.LONGEST_SILENCE", 1.5)
    monkeypatch.setattr("lssvwm_datasets.video._DecoderProcess", Stopped)
    monkeypatch.setattr("lssvwm_datasets.video._idle", [])
    with pytest.raises(DamagedRecording, match=r"a\.mp4: not a readable video \(the decoder hung\)"):
        list(read_video(video))


@pytest.mark.skipif(sys.platform != "linux", reason="looks for processes below /proc")
def test_ctrl_c_does_not_reach_the_decoder(video: Path) -> None:
    parts = read_video(video)
    first = next(parts)
    for child in Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split():
        if b"lssvwm_datasets.decoders" in Path(f"/proc/{child}/cmdline").read_bytes():
            os.kill(int(child), signal.SIGINT)
    assert len(first) + sum(map(len, parts)) == PART_FRAMES + 1


@pytest.mark.skipif(sys.platform != "linux", reason="looks for processes below /proc")
@pytest.mark.parametrize("state", ["reading", "idle"])
def test_the_decoder_ends_with_a_killed_reader(video: Path, state: str) -> None:
    program = (
        "import sys, time; from pathlib import Path; from lssvwm_datasets import video\n"
        "parts = video.read_video(Path(sys.argv[1]))\n"
        "next(parts) if sys.argv[2] == 'reading' else list(parts)\n"
        "print('ready', flush=True); time.sleep(60)"
    )
    reader = subprocess.Popen([sys.executable, "-c", program, video, state], stdout=subprocess.PIPE, text=True)
    assert reader.stdout is not None
    assert reader.stdout.readline() == "ready\n"
    (child,) = Path(f"/proc/{reader.pid}/task/{reader.pid}/children").read_text().split()
    decoder = Path("/proc", child)
    reader.kill()
    reader.communicate()
    deadline = time.monotonic() + 20
    while decoder.exists():
        assert time.monotonic() < deadline, "an orphan waits"
        time.sleep(0.1)


@pytest.mark.parametrize("codec", ["libx264", "mpeg4"])
def test_random_damage_never_crashes_hangs_or_invents_frames(tmp_path: Path, codec: str) -> None:
    path = tmp_path / "a.mp4"
    with imageio.get_writer(path, format="FFMPEG", fps=10, codec=codec, macro_block_size=2) as writer:
        for level in range(20):
            writer.append_data(np.roll(np.arange(48 * 64 * 3, dtype=np.uint8).reshape(48, 64, 3), level, axis=1))
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    noticed = 0
    for _ in range(40):
        start, length = rng.integers(len(whole)), rng.choice([1, 20, 300])
        path.write_bytes(whole[:start] + rng.bytes(length) + whole[start + length :])
        try:
            assert sum(map(len, read_video(path))) <= 20
        except DamagedRecording:
            noticed += 1
    assert noticed > 10


@pytest.mark.skipif(sys.platform != "linux", reason="other systems count memory in other units")
def test_memory_does_not_grow_with_the_video(tmp_path: Path) -> None:
    program = (
        "import resource, sys; from pathlib import Path; from lssvwm_datasets.video import _idle, read_video\n"
        "frames = sum(len(part) for part in read_video(Path(sys.argv[1])))\n"
        "_idle[0].end()\n"
        "used = [resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]\n"
        "print(frames, sum(used))"
    )
    peaks = {}
    for frames in (60, 300):
        path = tmp_path / f"{frames}.mp4"
        with imageio.get_writer(path, format="FFMPEG", fps=20, codec="mpeg4", macro_block_size=2) as writer:
            for level in range(frames):
                writer.append_data(np.full((360, 640, 3), level % 250, np.uint8))
        done = subprocess.run([sys.executable, "-c", program, path], capture_output=True, text=True, check=True)
        assert int(done.stdout.split()[0]) == frames
        peaks[frames] = int(done.stdout.split()[1])  # kB
    assert peaks[300] < peaks[60] + 40_000, "300 frames are 207 MB"
