"""Videos of what is played: within a limit of disk, and none of their troubles is the game's."""

import datetime
from contextlib import ExitStack, suppress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lssvwm_core.video import VideoWriter, upscale, video_writer
from lssvwm_datasets.errors import LssvwmError

MAX_VIDEOS = 100
MAX_BYTES = 2 * 2**30  # of all videos together
FRAMES_BETWEEN_CHECKS = 20
UPSCALE = 4
PATIENCE = 60.0  # seconds that the game waits for an ffmpeg that was stopped; on a busy machine one may need half of it


class Recorder:
    """Writes one video at a time into a folder. Its methods return what the players should be told.

    Raises: LssvwmError or OSError; a video that cannot be written is given up, and another one can be begun.
    """

    def __init__(self, folder: Path, fps: float) -> None:
        self.folder, self.fps = folder, fps
        self._video: VideoWriter | None = None
        self._open = ExitStack()
        self._frames = 0

    @property
    def running(self) -> bool:
        return self._video is not None

    def start(self) -> str:
        """Begin a video, named after the time."""
        if self.running:
            return ""
        if len(self._sizes()) >= MAX_VIDEOS or sum(self._sizes()) >= MAX_BYTES:
            raise LssvwmError(f"{self._limit()}; remove some to record more")
        name = datetime.datetime.now().strftime("%Y%m%d-%H%M%S-%f.mp4")
        self._frames = 0
        self._video = self._open.enter_context(video_writer(self.folder / name, self.fps, PATIENCE))
        return ""

    def append(self, frame: NDArray[np.uint8]) -> str:
        """Add a frame, (H, W, 3), to the video that is running, if any."""
        if self._video is None:
            return ""
        try:
            self._video.append(upscale(frame[None], UPSCALE))
            self._frames += 1
            full = self._frames % FRAMES_BETWEEN_CHECKS == 0 and sum(self._sizes()) >= MAX_BYTES
        except Exception as error:
            self._video = None
            self._open.__exit__(type(error), error, error.__traceback__)
            raise
        return f"{self._limit()}; {self.stop()}" if full else ""

    def stop(self) -> str:
        """Finish the video, if one is running."""
        if self._video is None:
            return ""
        self._video = None
        self._open.close()
        return "the video is saved"

    def _limit(self) -> str:
        return f"{self.folder} holds as many videos as are kept, {MAX_VIDEOS} or {MAX_BYTES / 2**30:g} GiB"

    def _sizes(self) -> list[int]:
        """Bytes of every video, the one that is being written included."""
        sizes = []
        for path in self.folder.glob("*.mp4"):
            with suppress(FileNotFoundError):  # removed by somebody this very moment
                sizes.append(path.stat().st_size)
        return sizes
