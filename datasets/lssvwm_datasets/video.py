"""Reads video files with PyAV.

Decoders are C programs that meet damaged files, and some crash on them. So PyAV works in a process of its own
(`decoders`), which decodes ahead while this one goes on, and whose death or silence is a damaged recording.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from lssvwm_datasets.errors import DamagedRecording, LssvwmError, UnreadableNow
from lssvwm_datasets.format import DEFAULTS, ReaderOptions
from lssvwm_datasets.frames import FrameParts
from lssvwm_datasets.ticks import Stretch

if sys.platform == "linux":
    import fcntl

PIPE_BYTES = 2**20
LONGEST_SILENCE = 120.0  # seconds a decoder may take for a part
DECODER_FRAMES = 16  # that a decoder holds at once: those that others refer to, and a part
CRASHES = {getattr(signal, name, 0) for name in ("SIGSEGV", "SIGABRT", "SIGBUS", "SIGFPE", "SIGILL")}
WINDOWS_CRASHES = 0xC0000000  # exit codes from here on


@dataclass(frozen=True)
class VideoInfo:
    """What a video's container says; the frames that decode may be fewer.

    Attributes:
        times: when each frame is shown, in seconds, increasing; 0 is where the video begins, with or without a frame.
        size: (H, W) pixels.
        fps: frames a second.
    """

    times: tuple[float, ...]
    size: tuple[int, int]
    fps: float

    @property
    def count(self) -> int:
        return len(self.times)


def probe_video(path: Path, max_memory: int = DEFAULTS.max_memory) -> VideoInfo:
    """Look into a video without decoding all of it.

    Raises: DamagedRecording when it is no video, or when its frames are too large for `max_memory` bytes; OSError.
    """
    (info,) = _answers(path, 0, max_memory)
    return VideoInfo(tuple(info["times"]), (info["size"][0], info["size"][1]), info["fps"])


def read_video(
    path: Path, start: int = 0, stop: int | None = None, max_memory: int = DEFAULTS.max_memory
) -> Iterator[NDArray[np.uint8]]:
    """Yield frames `start` to `stop` of a video in order, (n, H, W, 3) uint8 RGB at a time; never the whole video.

    Args:
        stop: None: the end.

    Raises: DamagedRecording when it is no video, or cannot be decoded as far as that; OSError when the machine could
    not read the file.
    """
    with contextlib.closing(_answers(path, sys.maxsize if stop is None else stop, max_memory)) as answers:
        info = next(answers)
        expected = len(info["times"]) if stop is None else stop
        position = 0
        for part in answers:
            if position + len(part) > start:
                yield part[max(0, start - position) :]
            position += len(part)
    if position < expected:
        raise DamagedRecording(f"{path}: not a readable video (only {position} of {expected} frames can be decoded)")


def count_frames(path: Path, max_memory: int = DEFAULTS.max_memory) -> int:
    """How many frames decode, which may be fewer than the container says. Raises: DamagedRecording; OSError."""
    with contextlib.closing(_answers(path, sys.maxsize, max_memory)) as answers:
        next(answers)
        return sum(map(len, answers))


def video_frames(path: Path, stretch: Stretch, options: ReaderOptions) -> FrameParts:
    """The frames of a stretch of a video, as recorded; read when iterated."""
    return FrameParts(lambda: read_video(path, stretch.start, stretch.stop, options.max_memory), stretch.length)


def _answers(path: Path, stop: int, max_memory: int) -> Generator[Any, None, None]:
    """Yields what the container says, then arrays of the first `stop` frames. Raises: DamagedRecording; OSError."""
    process = _idle_or_new()
    absolute = os.path.abspath(path)  # the process may have started in another working folder
    failed: dict[str, Any] = {}
    finished = False
    try:
        process.ask({"path": absolute, "stop": stop, "most_pixels": max_memory // (3 * DECODER_FRAMES)})
        while "end" not in (answer := process.answer()):
            if not {"times", "shape"} & set(answer):
                failed = answer
                break
            yield process.part(answer["shape"]) if "shape" in answer else answer
        finished = True
    except (OSError, EOFError) as error:
        raise process.why_it_ended(path) from error
    finally:
        if finished:
            _idle.append(process)
        else:
            process.end()
    if "damaged" in failed:
        raise DamagedRecording(f"{path}: {failed['damaged'].removeprefix(f'{absolute}: ')}")
    if "errno" in failed:
        raise OSError(failed["errno"], failed["reason"], str(path))
    if failed:
        raise LssvwmError(f"videos cannot be decoded here ({failed['broken']}); install PyAV anew: pip install av")


def _idle_or_new() -> "_DecoderProcess":
    with contextlib.suppress(IndexError):  # of an empty list; other threads take from it too
        while (process := _idle.pop()).process.poll() is not None:
            process.end()
        return process
    return _DecoderProcess()


class _DecoderProcess:
    """A process that answers requests, see `decoders`; it ends with this one, since it then reads no more requests."""

    def __init__(self) -> None:
        self._hung = False
        places = [*filter(None, sys.path), str(Path(__file__).parents[1])]
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", "lssvwm_datasets.decoders"],  # nothing is imported from the working folder
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(places)},
        )
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        if sys.platform == "linux":
            with contextlib.suppress(OSError):  # over the user's limit: slower, no worse
                fcntl.fcntl(self.process.stdout, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        self._requests, self._answers = self.process.stdin, cast(BufferedReader, self.process.stdout)

    def ask(self, request: dict[str, Any]) -> None:
        self._requests.write(json.dumps(request).encode() + b"\n")
        self._requests.flush()

    def answer(self) -> dict[str, Any]:
        """The next line of the answer. Raises: EOFError when the process died, or was killed since it fell silent."""
        with self._watched():
            line = self._answers.readline()
        if not line.endswith(b"\n"):
            raise EOFError
        return json.loads(line)

    def part(self, shape: list[int]) -> NDArray[np.uint8]:
        """An array of the answer. Raises: EOFError as `answer` does."""
        part = np.empty(shape, np.uint8)
        with self._watched():
            received = self._answers.readinto(part.reshape(-1).data)
        if received != part.nbytes:
            raise EOFError
        return part

    @contextlib.contextmanager
    def _watched(self) -> Iterator[None]:
        watch = threading.Timer(LONGEST_SILENCE, self._give_up)
        watch.start()
        try:
            yield
        finally:
            watch.cancel()

    def why_it_ended(self, path: Path) -> LssvwmError:
        """A damaged recording when the decoder crashed on it or hung; trouble when something else ended it."""
        code = self.end()
        if self._hung or -code in CRASHES or code >= WINDOWS_CRASHES:
            return DamagedRecording(f"{path}: not a readable video (the decoder {'hung' if self._hung else 'crashed'})")
        return UnreadableNow(f"{path}: the process that decodes it was ended from outside (out of memory, perhaps)")

    def end(self) -> int:
        """Kill the process where it still runs; returns its exit code."""
        with contextlib.suppress(BrokenPipeError):
            self._requests.close()
        self._answers.close()
        self.process.kill()
        return self.process.wait()

    def _give_up(self) -> None:
        self._hung = True
        self.process.kill()


_idle: list[_DecoderProcess] = []
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_idle.clear)
