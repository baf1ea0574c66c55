"""Pictures people look at: videos, captions, contact sheets, maps."""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

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
FORMATS: dict[str, dict[str, Any]] = {
    ".mp4": {
        "codec": "libx264",
        "pix_fmt_out": "yuv420p",
        "output_params": ["-crf", "16", "-movflags", "+faststart"],
    },
    ".gif": {"codec": "gif", "pix_fmt_out": "pal8", "output_params": ["-vf", PALETTE]},
}
CAPTION_HEIGHT = 20  # pixels
TILE_WIDTHS = 128, 320  # least and greatest of a frame on a sheet, pixels
CONTEXT_COLOUR, GENERATED_COLOUR = (70, 130, 220), (40, 40, 40)


class VideoWriter:
    """Appends frames to a video; made by `video_writer`."""

    def __init__(self, path: Path, fps: float) -> None:
        self._path, self._fps = path, fps
        self._encoder: Any = None

    def append(self, frames: Frames) -> None:
        """Encode (T, H, W, 3) uint8 frames at once; nothing is kept."""
        for frame in frames:
            height, width = frame.shape[:2]
            even = np.pad(frame, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")  # yuv420p wants even sizes
            if self._encoder is None:
                options = FORMATS[self._path.suffix] | {"fps": self._fps, "ffmpeg_log_level": "error"}
                size = even.shape[1], even.shape[0]
                self._encoder = imageio_ffmpeg.write_frames(
                    self._path, size, quality=None, macro_block_size=2, **options
                )
                self._encoder.send(None)
            self._encoder.send(even)

    def close(self) -> None:
        if self._encoder is not None:
            self._encoder.close()


@contextmanager
def video_writer(path: Path, fps: float) -> Iterator[VideoWriter]:
    """A video that appears under its name only when it is whole; its suffix says what it is.

    .mp4: H.264, yuv420p, plays everywhere. .gif: for pages, with a palette of the first frames' colours.
    Raises: LssvwmError for other suffixes.
    """
    if path.suffix not in FORMATS:
        raise LssvwmError(f"{path}: expected a name that ends in {' or '.join(FORMATS)}")
    with written_whole(path) as partial:
        with closing(VideoWriter(partial, fps)) as writer:
            yield writer


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
    layout: NDArray[np.uint8] | None, poses: NDArray[np.floating], context: int, cell: int = 48
) -> Image.Image:
    """The maze from above with the path walked: context frames blue, generated ones orange, a dot where it ends.

    layout (N, N), 1 = free, indexed [y, x] with y upwards; poses (T, >= 2) with x, y in cells.
    """
    known = poses[np.isfinite(poses).all(axis=1), :2]
    size = layout.shape[0] if layout is not None else int(np.ceil(known.max(initial=1)))
    image = Image.new("RGB", (size * cell, size * cell), (235, 235, 230))
    draw = ImageDraw.Draw(image)
    for y, x in np.argwhere(layout == 0) if layout is not None else ():
        draw.rectangle((x * cell, (size - 1 - y) * cell, (x + 1) * cell - 1, (size - y) * cell - 1), (90, 90, 100))
    points = [(float(x) * cell, (size - float(y)) * cell) for x, y in known]
    for part, colour in ((points[:context], CONTEXT_COLOUR), (points[max(context - 1, 0) :], (240, 130, 30))):
        if len(part) > 1:
            draw.line(part, colour, width=3)
    if points:
        x, y = points[-1]
        draw.ellipse((x - 6, y - 6, x + 6, y + 6), (200, 30, 30))
    return image
