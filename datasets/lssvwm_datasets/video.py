"""Reads video files: PyAV where it is installed, else decord (wheels for x86-64 Linux and Windows); same frames.

Decoders are C programs that meet damaged files: decord has been seen to crash on them. So they work in a process of
their own (`decoders`), which decodes ahead while this one goes on, and whose death or silence is a damaged recording.
PyAV is preferred: it refuses damaged frames where decord makes them up, and its memory does not grow with the video,
where decord decodes ahead of a slow reader without bound.
"""

import contextlib
import importlib.util
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

from lssvwm_datasets.errors import DamagedRecording, LssvwmError

if sys.platform == "linux":
    import fcntl

PIPE_BYTES = 2**20
LONGEST_SILENCE = 120.0  # seconds a decoder may take for a part
CRASHES = {getattr(signal, name, 0) for name in ("SIGSEGV", "SIGABRT", "SIGBUS", "SIGFPE", "SIGILL")}
WINDOWS_CRASHES = 0xC0000000  # exit codes from here on


@dataclass(frozen=True)
class VideoInfo:
    """What a video's container says: its frames (those that decode may be fewer), (H, W) and frames a second."""

    count: int
    size: tuple[int, int]
    fps: float


def probe_video(path: Path, decoder: str | None = None) -> VideoInfo:
    """Look into a video without decoding all of it. Raises: DamagedRecording when it cannot be opened."""
    (info,) = _answers(path, decoder, stop=0)
    return VideoInfo(info["count"], (info["size"][0], info["size"][1]), info["fps"])


def read_video(
    path: Path, decoder: str | None = None, start: int = 0, stop: int | None = None
) -> Iterator[NDArray[np.uint8]]:
    """Yield frames `start` to `stop` of a video in order, (n, H, W, 3) uint8 RGB at a time; never the whole video.

    Args:
        decoder: `decord` or `av`; None: whichever is installed, PyAV first.
        stop: None: the end.

    Raises: DamagedRecording when the file cannot be opened, or not be decoded as far as that.
    """
    with contextlib.closing(_answers(path, decoder, sys.maxsize if stop is None else stop)) as answers:
        info = next(answers)
        expected = info["count"] if stop is None else stop
        position = 0
        for part in answers:
            if position + len(part) > start:
                yield part[max(0, start - position) :]
            position += len(part)
    if position < expected:
        raise DamagedRecording(f"{path}: not a readable video (only {position} of {expected} frames can be decoded)")


def count_frames(path: Path) -> int:
    """How many frames decode, which may be fewer than the container says. Raises: DamagedRecording."""
    with contextlib.closing(_answers(path, None, sys.maxsize)) as answers:
        next(answers)
        return sum(map(len, answers))


def _answers(path: Path, decoder: str | None, stop: int) -> Generator[Any, None, None]:
    """Yields what the container says, then arrays of the first `stop` frames. Raises: DamagedRecording."""
    if decoder is None:
        decoder = "av" if importlib.util.find_spec("av") else "decord"
    process = _idle_or_new()
    finished = False
    try:
        process.ask({"path": str(path), "decoder": decoder, "stop": stop})
        while "end" not in (answer := process.answer()):
            if "error" in answer:
                finished = True
                raise DamagedRecording(f"{path}: not a readable video ({answer['error']})")
            yield process.part(answer["shape"]) if "shape" in answer else answer
        finished = True
    except (OSError, EOFError) as error:
        raise process.why_it_ended(path, decoder) from error
    finally:
        if finished:
            _idle.append(process)
        else:
            process.end()


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
        self.process = subprocess.Popen(
            [sys.executable, "-m", "lssvwm_datasets.decoders"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        if sys.platform == "linux":
            fcntl.fcntl(self.process.stdout, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        self._requests, self._answers = self.process.stdin, cast(BufferedReader, self.process.stdout)

    def ask(self, request: dict[str, Any]) -> None:
        self._requests.write(json.dumps(request).encode() + b"\n")
        self._requests.flush()

    def answer(self) -> dict[str, Any]:
        """Raises: EOFError when the process died, or was silent for too long and was killed."""
        watch = threading.Timer(LONGEST_SILENCE, self._give_up)
        watch.start()
        try:
            line = self._answers.readline()
        finally:
            watch.cancel()
        if not line.endswith(b"\n"):
            raise EOFError
        return json.loads(line)

    def part(self, shape: list[int]) -> NDArray[np.uint8]:
        part = np.empty(shape, np.uint8)
        if self._answers.readinto(part.reshape(-1).data) != part.nbytes:
            raise EOFError
        return part

    def why_it_ended(self, path: Path, decoder: str) -> LssvwmError:
        """A damaged recording when the decoder crashed on it or hung; another error when something else ended it."""
        code = self.end()
        if self._hung or -code in CRASHES or code >= WINDOWS_CRASHES:
            return DamagedRecording(f"{path}: not a readable video ({decoder} {'hung' if self._hung else 'crashed'})")
        return LssvwmError(f"{path}: the process that decodes it was ended from outside; run the command again")

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
