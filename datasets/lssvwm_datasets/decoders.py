"""The program that decodes videos for `video`, in a process of its own: `python -m lssvwm_datasets.decoders`.

A request is a line of JSON on standard input: {"path", "decoder": "av" or "decord", "stop": how many frames}. The
answer on standard output is lines of JSON: what the container says, {"count", "size", "fps"}; then, for every part of
the first `stop` frames, {"shape"} followed by its bytes; then {"end": true}; or {"error": reason} at any point.
"""

import contextlib
import itertools
import json
import os
import signal
import sys
from collections.abc import Generator, Sequence
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from lssvwm_datasets.frames import PART_FRAMES

PART_BYTES = 8 * 2**20


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that asks
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # decoders print
    for line in sys.stdin:
        request = json.loads(line)
        try:
            _answer(answers, request)
        except BrokenPipeError:
            return
        except Exception as error:  # whatever a decoder raises, the file is at fault
            _send(answers, {"error": (str(error) or type(error).__name__).splitlines()[0]})


def _answer(answers: BinaryIO, request: dict[str, Any]) -> None:
    opened = (_with_decord if request["decoder"] == "decord" else _with_av)(request["path"])
    with contextlib.closing(opened):
        info = next(opened)
        _send(answers, info)
        height, width = info["size"]
        length = min(PART_FRAMES, max(1, PART_BYTES // (3 * height * width)))
        part: list[NDArray[np.uint8]] = []
        try:
            for frame in itertools.islice(opened, request["stop"]):
                part.append(frame)
                if len(part) == length:
                    _send(answers, {"shape": (length, height, width, 3)}, part)
                    part = []
        finally:  # what could be decoded before a failure is shown
            if part:
                _send(answers, {"shape": (len(part), height, width, 3)}, part)
        _send(answers, {"end": True})


def _send(answers: BinaryIO, header: dict[str, Any], part: Sequence[NDArray[np.uint8]] = ()) -> None:
    answers.write(json.dumps(header).encode() + b"\n")
    for frame in part:
        answers.write(frame.data)
    answers.flush()


def _with_decord(path: str) -> Generator[Any, None, None]:
    """Yields what the container says, then frames (H, W, 3)."""
    import decord

    reader = decord.VideoReader(path, num_threads=1)
    frame = reader.next().asnumpy()  # frame by frame: get_batch holds hundreds of frames
    height, width, channels = frame.shape
    if channels != 3:  # it infers the channels from the row's padded size, at 48 pixels wrongly
        raise ValueError("decord cannot read videos of this width; pip install av")
    yield {"count": len(reader), "size": (height, width), "fps": float(reader.get_avg_fps())}
    yield frame
    for _ in range(1, len(reader)):
        yield reader.next().asnumpy()


def _with_av(path: str) -> Generator[Any, None, None]:
    """Yields what the container says, then frames (H, W, 3)."""
    import av
    from av.video.reformatter import VideoReformatter

    with av.open(path) as container:
        if not container.streams.video:
            raise ValueError("no video stream")
        stream = container.streams.video[0]
        listed = sum(packet.size > 0 and not packet.is_discard for packet in container.demux(stream))
        if listed == 0:
            raise ValueError("no frames")
        size = (stream.codec_context.height, stream.codec_context.width)
        yield {"count": listed, "size": size, "fps": float(stream.average_rate or 0)}
    with av.open(path) as container:
        stream = container.streams.video[0]
        stream.codec_context.options = {"err_detect": "explode"}  # no guesses at damaged blocks
        reformatter = VideoReformatter()
        failure: Exception | None = None
        for packet in container.demux(stream):
            try:
                decoded = packet.decode()
            except av.FFmpegError as error:
                failure, decoded = error, _before(packet.pts, stream.codec_context.decode(None))
            for frame in decoded:
                if frame.is_corrupt or (frame.height, frame.width) != size:
                    raise ValueError(f"frame at {frame.time} s is damaged")
                yield reformatter.reformat(frame, format="rgb24").to_ndarray()
            if failure:
                raise failure


def _before(time: int | None, frames: list[Any]) -> list[Any]:
    """Frames come out in the order they are shown in, packets in another: those shown after a lost one are left out."""
    return [frame for frame in frames if time is not None and frame.pts is not None and frame.pts < time]


if __name__ == "__main__":
    main()
