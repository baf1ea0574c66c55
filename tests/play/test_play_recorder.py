"""A video that cannot be written, or must not be, is told and given up; the next one is another matter."""

import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from lssvwm_core.play import recorder
from lssvwm_core.play.recorder import Recorder
from lssvwm_core.play.session import Session
from lssvwm_datasets.errors import LssvwmError
from lssvwm_datasets.video import read_video
from tests.play.conftest import Watcher

FRAME = np.zeros((64, 64, 3), np.uint8)


def encoder_of(writes: Recorder) -> "subprocess.Popen[bytes]":
    assert writes._video is not None
    assert writes._video._encoder is not None
    return writes._video._encoder


def kill_encoder(writes: Recorder) -> None:
    encoder_of(writes).kill()
    encoder_of(writes).wait()


def stop_encoder(writes: Recorder) -> None:
    """It stays there and answers no more, as on a disk that hangs; from now on nobody waits long for it."""
    encoder_of(writes).send_signal(signal.SIGSTOP)
    assert writes._video is not None
    writes._video._patience = 0.5


def videos(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.mp4"))


def test_videos_do_not_replace_each_other(tmp_path: Path) -> None:
    writes = Recorder(tmp_path, 4)
    assert writes.append(FRAME) == writes.stop() == ""
    for _ in range(2):
        writes.start()
        assert writes.start() == ""
        assert writes.append(FRAME) == ""
        assert writes.stop() == "the video is saved"
    assert [sum(map(len, read_video(path))) for path in videos(tmp_path)] == [1, 1]


def test_an_encoder_that_dies_is_told_and_leaves_nothing(tmp_path: Path) -> None:
    writes = Recorder(tmp_path, 4)
    writes.start()
    writes.append(FRAME)
    kill_encoder(writes)
    with pytest.raises(LssvwmError, match="signal 9"):
        writes.append(FRAME)
    assert not writes.running
    writes.start()
    writes.append(FRAME)
    kill_encoder(writes)
    with pytest.raises(LssvwmError, match="signal 9"):
        writes.stop()
    assert not list(tmp_path.iterdir())
    writes.start()
    writes.append(FRAME)
    writes.stop()
    assert len(videos(tmp_path)) == 1


def test_an_encoder_that_answers_no_more_is_given_up(tmp_path: Path) -> None:
    for call in ("append", "stop"):
        writes = Recorder(tmp_path, 4)
        writes.start()
        writes.append(FRAME)
        encoder = encoder_of(writes)
        stop_encoder(writes)
        with pytest.raises(LssvwmError, match=r"the video was not written: ffmpeg did not answer for 0\.5 seconds"):
            writes.stop() if call == "stop" else writes.append(FRAME)
        assert encoder.poll() == -signal.SIGKILL
        assert not writes.running
        assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("end", [kill_encoder, stop_encoder])
def test_the_game_goes_on_without_its_encoder(end: Callable[[Recorder], None], session: Session) -> None:
    watcher = Watcher()
    session.join(watcher)
    session.submit(lambda: session.record(True))
    begun = watcher.wait_for(lambda picture: picture.status["recording"]).status["frames"]
    watcher.wait_for(lambda picture: picture.status["frames"] > begun + 1)
    end(session._recorder)
    told = watcher.wait_for(lambda picture: "ffmpeg" in picture.status["notice"])
    watcher.wait_for(lambda picture: picture.status["frames"] > told.status["frames"] + 2)
    assert not watcher.seen[-1].status["recording"]
    assert session.failure is None


def test_a_limit_of_videos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorder, "MAX_VIDEOS", 2)
    writes = Recorder(tmp_path, 4)
    (tmp_path / "older.mp4").touch()
    writes.start()
    writes.append(FRAME)
    writes.stop()
    with pytest.raises(LssvwmError, match="as many videos as are kept"):
        writes.start()
    (tmp_path / "older.mp4").unlink()
    writes.start()


def test_a_limit_of_bytes_ends_a_video_that_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorder, "MAX_BYTES", 100_000)
    writes, noise = Recorder(tmp_path, 4), np.random.default_rng(0)
    writes.start()
    frame, told = -1, ""
    while not told:
        frame += 1
        told = writes.append(noise.integers(0, 256, FRAME.shape, np.uint8))
    assert "as many videos as are kept" in told
    assert "the video is saved" in told
    assert not writes.running
    (path,) = videos(tmp_path)
    assert sum(map(len, read_video(path))) == frame + 1
    assert frame < 100, "what the encoder holds back, and the frames between two checks"
    with pytest.raises(LssvwmError, match="remove some"):
        writes.start()
