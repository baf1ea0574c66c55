"""The program that decodes videos for `video`, in a process of its own: `python -P -m lssvwm_datasets.decoders`.

A request is a line of JSON on standard input: {"path", "stop": how many frames, "most_pixels": of a frame}. The answer
on standard output is lines of JSON: what the container says, {"times", "size", "fps"}; then, for every part of the
first `stop` frames, {"shape"} followed by its bytes; then {"end": true}. At any point, instead: {"damaged": reason};
{"errno", "reason"} when the machine could not read the file; {"broken": reason} when no video can be decoded here.
"""

import errno
import itertools
import json
import os
import signal
import struct
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from lssvwm_datasets.errors import DamagedRecording
from lssvwm_datasets.frames import part_length
from lssvwm_datasets.opening import opened_recording, reason_of

CONTAINERS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,flv,asf,ogg,gif"  # none that names other files
MOST_BOXES = 10_000  # of an MP4 that are looked at


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that asks
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # decoders print
    for line in sys.stdin:
        try:
            _answer(answers, json.loads(line))
        except BrokenPipeError:
            return
        except DamagedRecording as error:
            _send(answers, {"damaged": str(error)})
        except MemoryError as error:
            _send(answers, {"errno": errno.ENOMEM, "reason": reason_of(error)})
        except OSError as error:
            _send(answers, {"errno": error.errno, "reason": error.strerror})
        except Exception as error:
            _send(answers, {"broken": reason_of(error)})


def _answer(answers: BinaryIO, request: dict[str, Any]) -> None:
    import av  # noqa: F401  # an installation that is broken is no fault of the recording

    with opened_recording(Path(request["path"]), "video") as file:
        info, stamps = _contents(file, request["most_pixels"])
        _send(answers, info)
        height, width = info["size"]
        length = part_length(height, width)
        part: list[NDArray[np.uint8]] = []
        try:
            for frame in itertools.islice(_frames(file, (height, width), stamps), request["stop"]):
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


def _contents(file: BinaryIO, most_pixels: int) -> tuple[dict[str, Any], list[int | None]]:
    """What the container says, and the time stamp of each frame, in the order of showing and in the stream's units.

    Packets that an edit list hides are no frames.
    """
    import av

    file.seek(0)
    with av.open(file, options=_options(most_pixels)) as container:
        if not container.streams.video:
            raise ValueError("no video stream")
        stream = container.streams.video[0]
        demuxed: Any = container  # PyAV's stubs say that it might be one to write
        packets = [packet for packet in demuxed.demux(stream) if packet.size > 0]
        decoding = [packet.dts for packet in packets if packet.dts is not None]
        shown: list[Any] = [packet.pts for packet in packets if not packet.is_discard]
        if not shown:
            raise ValueError("no frames")
        size = (stream.codec_context.height, stream.codec_context.width)
        if not 0 < size[0] * size[1] <= most_pixels:
            raise ValueError(
                f"frames of {size[0]}x{size[1]} pixels need more memory than a process may take; to read them, raise "
                "--max-memory"
            )
        rate, unit = float(stream.average_rate or 0), stream.time_base
        is_mp4 = "mp4" in container.format.name
    if None in shown or not unit:  # counted, then
        times = [number / (rate or 1) for number in range(len(shown))]
        return {"times": times, "size": size, "fps": rate}, [None] * len(shown)
    stamps = sorted(shown)
    if is_mp4 and _has_edit_list(file):
        start = 0
    elif is_mp4:  # without one, the first frame is late by what its decoder waits
        start = stamps[0] - min(decoding, default=stamps[0])
    else:
        start = stamps[0]
    times = [float((stamp - start) * unit) for stamp in stamps]
    return {"times": times, "size": size, "fps": rate}, list(stamps)


def _frames(file: BinaryIO, size: tuple[int, int], stamps: Sequence[int | None]) -> Iterator[NDArray[np.uint8]]:
    """Yields frames (H, W, 3). Raises: ValueError where a frame is not the one that the container promises."""
    import av
    from av.video.reformatter import VideoReformatter

    file.seek(0)
    expected = iter(stamps)
    with av.open(file, options=_options((size[0] + 64) * (size[1] + 64))) as container:  # coded in whole blocks
        stream = container.streams.video[0]
        stream.codec_context.options = {"err_detect": "explode"}  # no guesses at damaged blocks
        reformatter = VideoReformatter()
        failure: Exception | None = None
        demuxed: Any = container
        for packet in demuxed.demux(stream):
            try:
                decoded = packet.decode()
            except av.FFmpegError as error:
                failure, decoded = error, _before(packet.pts, stream.codec_context.decode(None))
            for frame in decoded:
                stamp = next(expected, None)
                if frame.is_corrupt or (frame.height, frame.width) != size or stamp not in (None, frame.pts):
                    raise ValueError(f"frame at {frame.time} s is damaged")
                picture: Any = reformatter.reformat(frame, format="rgb24").to_ndarray()
                yield np.ascontiguousarray(picture)  # rows of some widths are padded
            if failure:
                raise failure


def _options(most_pixels: int) -> dict[str, str]:
    return {"format_whitelist": CONTAINERS, "max_pixels": str(most_pixels)}


def _before(time: int | None, frames: list[Any]) -> list[Any]:
    """Frames come out in the order they are shown in, packets in another: those shown after a lost one are left out."""
    return [frame for frame in frames if time is not None and frame.pts is not None and frame.pts < time]


def _has_edit_list(file: BinaryIO) -> bool:
    """Whether an MP4 (ISO 14496-12) says at what time its pictures begin: a box moov/trak/edts/elst."""
    place = 0
    for _ in range(MOST_BOXES):
        file.seek(place)
        header = file.read(16)
        if len(header) < 8:
            return False
        size, kind = struct.unpack(">I4s", header[:8])
        if kind == b"elst":
            return True
        if size == 1 and len(header) == 16:
            size = struct.unpack(">Q", header[8:])[0]
        if kind in (b"moov", b"trak", b"edts"):
            size = 8  # look inside
        if size < 8:
            return False
        place += size
    return False


if __name__ == "__main__":
    main()
