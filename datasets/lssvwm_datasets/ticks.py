"""Which tick of its recording each picture of a video shows: the time stamps say it, a count of frames alone does not.

Recorders drop pictures, and then every later one would be paired with the action of another tick. So an episode is cut
where the time stamps do not go on by one tick: each picture keeps the row of its own tick, no picture is made up, and
no step of two ticks is passed off as one. What was cut, and at what time, is a note of the episode.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lssvwm_datasets.errors import DamagedRecording

NEIGHBOURS = 16  # frames on either side that show where ticks lie: single stamps jitter, and clocks drift
EARLY = 0.25  # of a tick: by how much a picture may lie before its tick
OTHER_RATE = 1.2  # times the format's period: from here on a video may be one that lacks every second picture, or third
MOST_CUTS = 8  # of any video, and one in so many frames of a long one


@dataclass(frozen=True)
class Stretch:
    """Consecutive pictures of a video, one a tick: an episode.

    Attributes:
        id: the recording's, with `#k` for the k-th of several stretches.
        start, stop: its frames in the video.
        tick: what its first frame shows, so the row of actions and poses that belongs to it.
        notes: what was cut before it.
    """

    id: str
    start: int
    stop: int
    tick: int
    notes: tuple[str, ...]

    @property
    def length(self) -> int:
        return self.stop - self.start

    @property
    def rows(self) -> slice:
        """The rows of the recording's actions and poses, one a tick."""
        return slice(self.tick, self.tick + self.length)


def stretches(
    path: Path, id: str, times: tuple[float, ...], rows: int, fps: float, from_end: bool = False
) -> list[Stretch]:
    """The stretches of a video whose recording has `rows` rows of actions; frames without a row are left out.

    Args:
        times: the time stamp of each frame in seconds, increasing; tick 0 is at 0.
        fps: ticks a second by the format; a video of another rate is read by its own.
        from_end: the last frame belongs to the last row, and frames before the first row are no concern.

    Raises: DamagedRecording when the stamps have no steady rate, or when no frame has a row.
    """
    ticks = _ticks(np.array(times), rows, fps)
    notes: list[str] = []
    if from_end:
        if (shown := int(ticks[-1] - ticks[0]) + 1) < rows:
            raise DamagedRecording(f"{path}: {shown} frames for {rows} states, expected at least as many")
        ticks += rows - 1 - ticks[-1]
    elif ticks[0] > 0:
        if ticks[-1] - ticks[0] <= rows < ticks[-1]:  # an offset that some programs leave: actions reach no further
            notes.append(f"its time stamps begin at {times[0]:.2f} s, with no actions for that much: taken for tick 0")
            ticks -= ticks[0]
        else:
            notes.append(f"{_frames(ticks[0])} missing at the start: it begins at {times[0]:.2f} s")
    extent = int(ticks[-1]) + 1
    if abs(extent - rows) > 1:
        notes.append(f"{extent} frames, {rows} actions; the first {min(extent, rows)} are read")
    breaks = np.flatnonzero(np.diff(ticks) != 1) + 1
    if len(breaks) > max(MOST_CUTS, len(ticks) // MOST_CUTS):
        raise DamagedRecording(
            f"{path}: its time stamps have no steady rate: {len(breaks)} of {len(ticks)} frames do not follow the one "
            f"before by a tick; written anew at a steady rate it can be read: ffmpeg -i IN -vf fps={fps:g} OUT"
        )
    parts: list[tuple[int, int]] = []
    noted: list[list[str]] = []
    next_tick = 0
    for start, stop in zip([0, *breaks.tolist()], [*breaks.tolist(), len(ticks)], strict=True):
        if start > 0 and 0 < ticks[start] < rows:
            notes.append(_what_was_cut(int(ticks[start] - ticks[start - 1]), times[start]))
        first, last = start + max(0, next_tick - int(ticks[start])), min(stop, start + rows - int(ticks[start]))
        if first < last:
            parts.append((first, last))
            noted.append(notes)
            notes = []
            next_tick = int(ticks[last - 1]) + 1
    if not parts:
        raise DamagedRecording(f"{path}: none of its {len(ticks)} frames has an action")
    noted[-1] += notes
    return [
        Stretch(f"{id}#{number}" if len(parts) > 1 else id, first, last, int(ticks[first]), tuple(noted[number]))
        for number, (first, last) in enumerate(parts)
    ]


def tick_numbers(times: NDArray[np.float64], period: float) -> NDArray[np.int64]:
    """(T,) the tick that each time stamp means, where ticks are `period` seconds apart and the first one is at 0.

    Stamps may jitter by almost half a period, and the clock may run a little faster or slower: where the ticks lie is
    found, at each frame, from the mean phase of its neighbours. A gap of any number of periods leaves it as it is.
    """
    turns = np.exp(2j * np.pi * times / period)
    around = np.convolve(turns, np.ones(2 * NEIGHBOURS + 1))[NEIGHBOURS : NEIGHBOURS + len(times)]
    phase = np.unwrap(np.angle(around)) / (2 * np.pi)
    ticks = np.rint(times / period - phase).astype(np.int64)
    return ticks - ticks[0] + int(np.floor(ticks[0] + phase[0] + EARLY))


def _ticks(times: NDArray[np.float64], rows: int, fps: float) -> NDArray[np.int64]:
    period = _usual_step(times)
    ticks = tick_numbers(times, period)
    if ticks[-1] + 1 < rows - 1 and period * fps > OTHER_RATE:  # too few pictures, too far apart
        by_format = tick_numbers(times, 1 / fps)
        if abs(by_format[-1] + 1 - rows) < abs(ticks[-1] + 1 - rows):
            return by_format
    return ticks


def _usual_step(times: NDArray[np.float64]) -> float:
    """Seconds between frames, gaps left out."""
    steps = np.diff(times)
    steps = steps[steps > 0]
    if len(steps) == 0:
        return 1.0
    usual = np.quantile(steps, 0.5, method="lower")
    return float(steps[np.abs(steps / usual - 1) < 0.6].mean())


def _what_was_cut(step: int, time: float) -> str:
    if step > 1:
        return f"{_frames(step - 1)} missing before {time:.2f} s: cut there"
    return f"two frames of one time at {time:.2f} s: the second is left out, and the episode cut there"


def _frames(count: int) -> str:
    return f"{count} frame{'s are' if count > 1 else ' is'}"
