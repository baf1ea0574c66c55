"""Videos appear whole or not at all, and an error says what the encoder said."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from lssvwm_core.video import Frames, video_writer
from lssvwm_datasets.errors import LssvwmError
from lssvwm_datasets.video import read_video

NOISE = np.random.default_rng(0).integers(0, 255, (30, 64, 96, 3), np.uint8)
OLD = b"a good older video"
ENCODERS = {  # a shell script in place of ffmpeg, whose last argument is `file:` and the name; what the error says
    "exits 1 at the end": ('cat > /dev/null; echo partial > "${last#file:}"; exit 1', "exit code 1: no message"),
    "says why": ('echo "no memory" >&2; cat > /dev/null; echo "Conversion failed!" >&2; exit 4', "no memory; Conv"),
    "dies in the middle": ('echo partial > "${last#file:}"; head -c 99999 > /dev/null; kill -9 $$', "signal 9"),
    "ends early, content": ('echo partial > "${last#file:}"', "ended with exit code 0"),
    "writes no file": ("cat > /dev/null", "ended with exit code 0: no message"),
    "writes an empty file": ('cat > "${last#file:}" < /dev/null; cat > /dev/null', "ended with exit code 0"),
    "talks without end": ("head -c 3000000 /dev/zero | tr '\\0' x >&2; cat > /dev/null; exit 1", "xxx"),
    "talks a lot": ("yes 'too much' | head -n 99999 >&2; cat > /dev/null; exit 1", "too much; too much; too much"),
}


def write(path: Path, frames: Frames = NOISE, fps: float = 10) -> None:
    with video_writer(path, fps) as video:
        video.append(frames)


@pytest.mark.parametrize("suffix", [".mp4", ".gif"])
@pytest.mark.parametrize("case", ENCODERS)
def test_an_encoder_that_fails_leaves_the_old_video(
    case: str, suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script, message = ENCODERS[case]
    encoder = tmp_path / "ffmpeg"
    encoder.write_text(f"#!/bin/sh\nfor last; do :; done\n{script}\n", encoding="utf-8")
    encoder.chmod(0o755)
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", str(encoder))
    path = tmp_path / f"v{suffix}"
    path.write_bytes(OLD)
    with pytest.raises(LssvwmError) as failure:
        write(path)
    assert str(failure.value).startswith(f"{path}: ")
    assert message in str(failure.value)
    assert "\n" not in str(failure.value)
    assert len(str(failure.value)) < 2000
    assert path.read_bytes() == OLD
    assert {entry.name for entry in tmp_path.iterdir()} == {"ffmpeg", path.name}


@pytest.mark.parametrize("encoder", ["nowhere/ffmpeg", __file__])
def test_an_encoder_that_does_not_start_is_one_message(
    encoder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", encoder)
    with pytest.raises(LssvwmError, match="ffmpeg does not start"):
        write(tmp_path / "v.mp4")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["a:b", "file:c", "-y", "-", "a b", 'it\'s "q"', "%03d", "\udcff\udc80", "×"])
@pytest.mark.parametrize("suffix", [".mp4", ".gif"])
def test_any_name_will_do(name: str, suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write(Path(name + suffix))
    assert [entry.name for entry in tmp_path.iterdir()] == [name + suffix]
    shutil.copyfile(name + suffix, "copy" + suffix)
    assert sum(map(len, read_video(tmp_path / ("copy" + suffix)))) == len(NOISE)


def test_refusals(tmp_path: Path) -> None:
    for frames, fps, suffix, message in (
        (NOISE[:0], 10, ".mp4", "no frames"),
        (NOISE, float("nan"), ".mp4", "nan frames a second"),
        (NOISE, -4, ".gif", "-4 frames a second"),
        (NOISE, 10, ".avi", "ends in .mp4 or .gif"),
    ):
        with pytest.raises(LssvwmError, match=message):
            write(tmp_path / f"v{suffix}", frames, fps)
    assert not list(tmp_path.iterdir())


def test_an_interrupt_ends_the_encoder(tmp_path: Path) -> None:
    encoders = []

    def interrupted() -> None:
        with video_writer(tmp_path / "v.mp4", 10) as video:
            video.append(NOISE)
            encoders.append(video._encoder)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert [encoder and encoder.returncode for encoder in encoders] == [-signal.SIGKILL]
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(sys.platform == "win32", reason="sends kill -9")
def test_what_a_killed_writer_left_goes_with_the_next_video(tmp_path: Path) -> None:
    code = (
        "import os, time; from tests.core.test_video import *\n"
        f"with video_writer(Path({str(tmp_path / 'v.mp4')!r}), 10) as video:\n"
        "    video.append(NOISE)\n"
        "    while not os.listdir(video._path.parent): time.sleep(0.01)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -signal.SIGKILL
    assert [path.name.endswith(".partial.mp4") for path in tmp_path.iterdir()] == [True]
    write(tmp_path / "v.mp4")
    assert [path.name for path in tmp_path.iterdir()] == ["v.mp4"]


@pytest.mark.skipif(
    sys.platform != "linux" or os.geteuid() != 0 or not shutil.which("unshare"), reason="only root may mount a disk"
)
@pytest.mark.parametrize("name", ["v.mp4", "v.gif"])
def test_a_full_disk_leaves_the_old_video(name: str, tmp_path: Path) -> None:
    code = (
        "from tests.core.test_video import *\n"
        f"path = Path({str(tmp_path / 'disk' / name)!r})\n"
        "path.write_bytes(OLD)\n"
        "with pytest.raises(LssvwmError, match=f'{path}.*No space left on device'): write(path)\n"
        "assert path.read_bytes() == OLD\n"
        "assert [entry.name for entry in path.parent.iterdir()] == [path.name]\n"
    )
    (tmp_path / "disk").mkdir()
    script = 'mount -t tmpfs -o size=64k none "$1" && exec "$2" -c "$3"'
    command = ["unshare", "-m", "sh", "-c", script, "sh", str(tmp_path / "disk"), sys.executable, code]
    done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", check=False)
    if "mount" in done.stderr:
        pytest.skip("no disk may be mounted here")
    assert done.returncode == 0, done.stderr
