"""Pictures people look at: videos, captions, contact sheets, maps."""

import math
import re
import subprocess
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from fractions import Fraction
from pathlib import Path

import imageio_ffmpeg
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from lssvwm_datasets.errors import LssvwmError
from lssvwm_datasets.files import written_whole

Frames = NDArray[np.uint8]  # (T, H, W, 3) RGB

PALETTE_FRAMES = 200  # whose colours make a GIF's palette; as many wait in memory
PALETTE = (
    f"split[a][b];[a]trim=end_frame={PALETTE_FRAMES},palettegen=max_colors=128[p];"
    "[b][p]paletteuse=dither=none:diff_mode=rectangle"
)
FORMATS = {  # ffmpeg's options by suffix
    ".mp4": ["-f", "mp4", "-vcodec", "libx264", "-pix_fmt", "yuv420p", "-crf", "16", "-movflags", "+faststart"],
    ".gif": ["-f", "gif", "-vcodec", "gif", "-pix_fmt", "pal8", "-vf", PALETTE],
}
PATIENCE = 300.0  # seconds in which ffmpeg must take frames, or finish a file
# every pixel as it is, for other programs; ffmpeg keeps RGB in H.264 so, and browsers of Chromium's kin play it
EXACT = ["-f", "mp4", "-vcodec", "libx264rgb", "-qp", "0", "-preset", "veryfast", "-g", "32", "-movflags", "+faststart"]
LAST_WORDS = 3  # lines of ffmpeg's that an error repeats
LONGEST_LINE = 500  # bytes of one
CAPTION_HEIGHT = 20  # pixels
MAP_PIXELS = 2000  # along a side of a map, at most
TILE_WIDTHS = 128, 320  # least and greatest of a frame on a sheet, pixels
CONTEXT_COLOUR, GENERATED_COLOUR = (70, 130, 220), (40, 40, 40)
NEW_COLOUR, KNOWN_COLOUR = (240, 130, 30), (40, 150, 70)  # of a path, by how well the place was known


class VideoWriter:
    """Appends frames to a video; made by `video_writer`.

    The encoder is an ffmpeg process. It is started with the first frame, whose size is the video's.
    """

    def __init__(self, path: Path, partial: Path, fps: float, patience: float, exact: bool) -> None:
        self._path, self._partial, self._fps, self._patience, self._exact = path, partial, fps, patience, exact
        self._was_too_slow = False
        self._encoder: subprocess.Popen[bytes] | None = None
        self._said: deque[bytes] = deque(maxlen=LAST_WORDS)
        self._listener = threading.Thread(target=self._listen, daemon=True)

    def append(self, frames: Frames) -> None:
        """Encode (T, H, W, 3) uint8 frames at once; nothing is kept. Raises: LssvwmError when the encoder has ended."""
        for frame in frames:
            height, width = frame.shape[:2]
            odd = (0, 0) if self._exact else (height % 2, width % 2)  # yuv420p wants even sizes
            even = np.pad(frame, ((0, odd[0]), (0, odd[1]), (0, 0)), mode="edge")
            if self._encoder is None:
                self._encoder = self._start(even.shape[1], even.shape[0])
            assert self._encoder.stdin is not None
            with self._in_time():
                try:
                    self._encoder.stdin.write(even.data)
                except OSError as error:
                    raise self._failure() from error

    def finish(self) -> None:
        """Wait until the encoder has written everything. Raises: LssvwmError when it has not."""
        if self._encoder is None:
            raise LssvwmError(f"{self._path}: the video was not written, as it would have no frames")
        assert self._encoder.stdin is not None
        with self._in_time():
            try:
                self._encoder.stdin.close()
            except OSError as error:
                raise self._failure() from error
            if self._encoder.wait() or not self._partial.is_file() or not self._partial.stat().st_size:
                raise self._failure()

    def stop(self) -> None:
        """End the encoder where it still runs, whatever it has written."""
        if self._encoder is not None:
            assert self._encoder.stdin is not None
            self._encoder.kill()
            with suppress(OSError):  # what could not be written is lost
                self._encoder.stdin.close()
            self._encoder.wait()
            self._listener.join()

    @contextmanager
    def _in_time(self) -> Iterator[None]:
        """Ends an encoder that does not answer: one that was stopped would hold up whoever writes for ever."""

        def give_up() -> None:
            self._was_too_slow = True
            self._encoder.kill()  # type: ignore[union-attr]

        timer = threading.Timer(self._patience, give_up)
        timer.start()
        try:
            yield
        finally:
            timer.cancel()

    def _start(self, width: int, height: int) -> "subprocess.Popen[bytes]":
        size, rate = f"{width}x{height}", str(Fraction(self._fps).limit_denominator())
        source = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", size, "-r", rate, "-i", "-"]
        options = EXACT if self._exact else FORMATS[self._partial.suffix]
        target = [*options, f"file:{self._partial}"]  # a colon in a name is no protocol's
        try:
            encoder = subprocess.Popen(
                [imageio_ffmpeg.get_ffmpeg_exe(), "-y", "-v", "error", "-xerror", *source, "-an", *target],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                process_group=0,  # Ctrl-C is for this process, which then says how the video ends
            )
        except (OSError, RuntimeError) as error:  # RuntimeError: no ffmpeg was found
            raise LssvwmError(f"{self._path}: the video was not written, as ffmpeg does not start: {error}") from error
        self._encoder = encoder
        self._listener.start()
        return encoder

    def _listen(self) -> None:
        assert self._encoder is not None
        assert self._encoder.stderr is not None
        with self._encoder.stderr as lines:
            self._said.extend(iter(lambda: lines.readline(LONGEST_LINE), b""))

    def _failure(self) -> LssvwmError:
        """What became of the encoder, in its own words."""
        assert self._encoder is not None
        code = self._encoder.wait()
        self._listener.join()
        end = f"exit code {code}" if code >= 0 else f"signal {-code}"
        if self._was_too_slow:
            return LssvwmError(
                f"{self._path}: the video was not written: ffmpeg did not answer for {self._patience:g} seconds"
            )
        lines = (re.sub(r"^\[.* @ .*?\] ", "", line.decode(errors="replace").strip()) for line in self._said)
        words = "; ".join(filter(None, lines))
        return LssvwmError(f"{self._path}: the video was not written: ffmpeg ended with {end}: {words or 'no message'}")


@contextmanager
def video_writer(path: Path, fps: float, patience: float = PATIENCE, exact: bool = False) -> Iterator[VideoWriter]:
    """A video that appears under its name only when it is whole; its suffix says what it is.

    .mp4: H.264, yuv420p, plays everywhere; with `exact` H.264 that gives back every pixel, some times as large.
    .gif: for pages, with a palette of the first frames' colours.
    An ffmpeg that does not answer for `patience` seconds is ended. Raises: LssvwmError for other suffixes, without
    frames, and when ffmpeg fails, with what it said.
    """
    if path.suffix not in FORMATS:
        raise LssvwmError(f"{path}: expected a name that ends in {' or '.join(FORMATS)}")
    if not (math.isfinite(fps) and fps > 0):
        raise LssvwmError(f"{path}: a video cannot have {fps} frames a second; expected a number above 0")
    with written_whole(path) as partial:
        writer = VideoWriter(path, partial, fps, patience, exact)
        try:
            yield writer
            writer.finish()
        finally:
            writer.stop()


def save_picture(image: Image.Image, path: Path) -> None:
    """Write a picture in the format of its suffix. Raises: LssvwmError for a suffix that is none's; OSError."""
    if Image.registered_extensions().get(path.suffix.lower()) not in Image.SAVE:
        raise LssvwmError(f"{path}: expected the name of a picture, such as {path.stem or 'sheet'}.png")
    with written_whole(path) as partial:
        image.save(partial)


def upscale(frames: Frames, factor: int) -> Frames:
    """Nearest neighbour: every pixel stays a pixel."""
    return frames.repeat(factor, axis=1).repeat(factor, axis=2)


def caption(frames: Frames, texts: list[str], colour: tuple[int, int, int]) -> Frames:
    """Add a strip with a text below each frame."""
    count, height, width, _ = frames.shape
    captioned = np.empty((count, height + CAPTION_HEIGHT, width, 3), np.uint8)
    captioned[:, :height] = frames
    font = ImageFont.load_default(12)
    for picture, text in zip(captioned, texts, strict=True):
        strip = Image.new("RGB", (width, CAPTION_HEIGHT), colour)
        ImageDraw.Draw(strip).text((4, 2), text, (255, 255, 255), font)
        picture[height:] = np.asarray(strip)
    return captioned


def contact_sheet(frames: Frames, texts: list[str], columns: int, factor: int = 2) -> Image.Image:
    """Frames side by side, row by row, each with its text."""
    tiles = caption(upscale(frames, factor), texts, GENERATED_COLOUR)
    rows = -(-len(tiles) // columns)
    height, width = tiles.shape[1:3]
    sheet = np.full((rows * height, columns * width, 3), 255, np.uint8)
    for number, tile in enumerate(tiles):
        row, column = divmod(number, columns)
        sheet[row * height : (row + 1) * height, column * width : (column + 1) * width] = tile
    return Image.fromarray(sheet)


def action_sheet(
    frames: Frames, actions: NDArray[np.float32], names: tuple[str, ...], first: int, columns: int
) -> Image.Image:
    """Consecutive frames from `first` on, each with the action that led to it; (T, A) actions of the same frames."""
    step = -(-frames.shape[2] // TILE_WIDTHS[1])
    factor = -(-TILE_WIDTHS[0] // (frames.shape[2] // step))
    texts = [f"{first + number} {action_text(action, names)}" for number, action in enumerate(actions)]
    return contact_sheet(frames[:, ::step, ::step], texts, columns, factor)


def action_text(action: NDArray[np.float32], names: tuple[str, ...]) -> str:
    """The columns that are not zero: by name where 1, else with their value."""
    parts = [name if value == 1 else f"{name} {value:+.3g}" for name, value in zip(names, action, strict=True) if value]
    return ", ".join(parts) or "null"


def draw_map(
    layout: NDArray[np.uint8] | None,
    places: NDArray[np.floating],
    context: int,
    cell: int = 48,
    certainty: NDArray[np.floating] | None = None,
) -> Image.Image:
    """The world from above with the path walked: context frames blue, generated ones orange, a dot where it ends.

    Generated frames turn from orange to green by how well their place was known before, where `certainty`
    (T - context,) tells: 0 to 1, NaN where unknown.

    layout (N, N), 1 = free, indexed [y, x] with y upwards; places (T, 2), x and y in its cells, NaN where unknown.
    Without a layout the picture is as large as the path; it begins at the origin, or where the path goes below it.
    """
    there = np.isfinite(places).all(axis=1)
    known, context = places[there], int(there[:context].sum())
    if layout is None:
        known = known - np.floor(known.min(axis=0, initial=0))
    size = layout.shape[0] if layout is not None else int(np.ceil(known.max(initial=1)))
    cell = max(1, min(cell, MAP_PIXELS // size))
    image = Image.new("RGB", (size * cell, size * cell), (235, 235, 230))
    draw = ImageDraw.Draw(image)
    for y, x in np.argwhere(layout == 0) if layout is not None else ():
        draw.rectangle((x * cell, (size - 1 - y) * cell, (x + 1) * cell - 1, (size - y) * cell - 1), (90, 90, 100))
    points = [(float(x) * cell, (size - float(y)) * cell) for x, y in known]
    for part, colour in ((points[:context], CONTEXT_COLOUR), (points[max(context - 1, 0) :], NEW_COLOUR)):
        if len(part) > 1:
            draw.line(part, colour, width=3)
    if certainty is not None:
        shares = np.nan_to_num(certainty)[there[len(places) - len(certainty) :]]
        for number, share in enumerate(shares, start=len(points) - len(shares)):
            mixed = tuple(round((1 - share) * a + share * b) for a, b in zip(NEW_COLOUR, KNOWN_COLOUR, strict=True))
            draw.line(points[max(number - 1, 0) : number + 1], mixed, width=3)
    if points:
        x, y = points[-1]
        draw.ellipse((x - 6, y - 6, x + 6, y + 6), (200, 30, 30))
    return image
