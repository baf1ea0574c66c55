"""What the pictures say of recorded turns: do they agree in sign, and with the frame that they are recorded for?

The sideways shift between consecutive frames is estimated from the pictures alone. Turning right moves the picture
left. Where turns are recorded as the toolkit stores them, right positive, shift and turn agree best at lag 0.
"""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

COLUMNS = 64  # width at which frames are compared
BORDER = 16  # one part in so many of the width, on either side, is left out: games draw over it
LAGS = (-1, 0, 1)
FEWEST_TURNS = 20  # frames, below which nothing is said
WEAK = 0.2  # correlation, below which nothing is said
MARGIN = 0.05  # by which another lag must be better than lag 0
TURN_WORDS = {"left": -1.0, "right": 1.0}
YAW_NAMES = ("yaw", "camera_yaw", "camera_x")


@dataclass(frozen=True)
class Agreement:
    """How recorded turns go with the motion seen; correlation by lag, and the verdict in words."""

    turns: int  # frames with a turn
    correlation: dict[int, float]  # of the motion at frame t with the turn recorded for frame t - lag
    conclusion: str
    warning: bool

    def figures(self) -> dict[str, Any]:
        return asdict(self)


def turns_of(actions: NDArray[np.float32], names: tuple[str, ...]) -> NDArray[np.float64] | None:
    """(T,) turn of each frame, right positive, from columns known by name: yaw in degrees, else left and right.

    None where no column is a turn.
    """
    yaw = [number for number, name in enumerate(names) if name.lower() in YAW_NAMES]
    if yaw:
        return actions[:, yaw[0]].astype(np.float64)
    signs = [sum(TURN_WORDS.get(word, 0.0) for word in name.lower().replace(".", "_").split("_")) for name in names]
    return actions.astype(np.float64) @ np.array(signs) if any(signs) else None


def sideways_motion(frames: NDArray[np.uint8]) -> NDArray[np.float64]:
    """(T,) by how much each frame turned right of the one before, in parts of the width; NaN at 0 and where unclear.

    frames (T, H, W, 3). The shift with the highest normalised correlation of the overlap, refined by a parabola.
    """
    pictures = _small_grey(frames)
    width = pictures.shape[2]
    reach = width // 2
    shifts = np.arange(-reach, reach + 1)
    scores = np.stack([_correlation(pictures, int(shift)) for shift in shifts])  # (S, T - 1)
    best = scores.argmax(axis=0).clip(1, len(shifts) - 2)
    before, peak, after = (np.take_along_axis(scores, (best + step)[None], axis=0)[0] for step in (-1, 0, 1))
    bend = before - 2 * peak + after
    refined = shifts[best] + np.where(bend < 0, 0.5 * (before - after) / np.where(bend < 0, bend, 1), 0).clip(-1, 1)
    motion = np.where(peak > WEAK, refined / width, np.nan)
    return np.concatenate([[np.nan], motion])


def agreement(motion: NDArray[np.float64], turns: NDArray[np.float64]) -> Agreement:
    """Compare motion (T,) of `sideways_motion` with turns (T,), right positive; NaN of either is left out."""
    count = int((np.nan_to_num(turns) != 0).sum())
    correlation = {lag: _pearson(motion, _lagged(turns, lag)) for lag in LAGS}
    lag = max(correlation, key=lambda lag: abs(correlation[lag]))
    best = correlation[lag]
    if count < FEWEST_TURNS or abs(best) < WEAK:
        return Agreement(count, correlation, "too few turns or too little motion to tell sign and alignment", False)
    problems = []
    if lag != 0 and abs(best) > abs(correlation[0]) + MARGIN:
        problems.append(f"turns look recorded one frame {'early' if lag > 0 else 'late'}")
    if best < 0:
        problems.append("left and right look swapped: the picture moves against the recorded turns")
    return Agreement(
        count, correlation, "; ".join(problems) or "sign and alignment agree with the pictures", bool(problems)
    )


def _small_grey(frames: NDArray[np.uint8]) -> NDArray[np.float64]:
    """(T, rows, columns) without border, the middle half of the height, averaged to at most `COLUMNS` columns."""
    _, height, width, _ = frames.shape
    frames = frames[:, height // 4 : height - height // 4, width // BORDER : width - width // BORDER]
    step = max(1, frames.shape[2] // COLUMNS)
    rows, columns = frames.shape[1] // step, frames.shape[2] // step
    grey = frames[:, : rows * step, : columns * step].mean(axis=3)
    return grey.reshape(len(frames), rows, step, columns, step).mean(axis=(2, 4))


def _correlation(pictures: NDArray[np.float64], shift: int) -> NDArray[np.float64]:
    """(T - 1,) of each picture with the one before, moved to the left by `shift` columns."""
    width = pictures.shape[2]
    now = pictures[1:, :, max(0, -shift) : width - max(0, shift)]
    before = pictures[:-1, :, max(0, shift) : width - max(0, -shift)]
    now, before = (part - part.mean(axis=(1, 2), keepdims=True) for part in (now, before))
    norm = np.sqrt((now**2).sum(axis=(1, 2)) * (before**2).sum(axis=(1, 2)))
    return (now * before).sum(axis=(1, 2)) / np.maximum(norm, 1e-6)


def _lagged(turns: NDArray[np.float64], lag: int) -> NDArray[np.float64]:
    """turns[t - lag] at t, NaN where there is none."""
    moved = np.full_like(turns, np.nan)
    rows = np.arange(len(turns))
    known = (rows - lag >= 0) & (rows - lag < len(turns))
    moved[known] = turns[rows[known] - lag]
    return moved


def _pearson(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    known = np.isfinite(one) & np.isfinite(other)
    if known.sum() < 2 or one[known].std() < 1e-9 or other[known].std() < 1e-9:
        return 0.0
    return float(np.corrcoef(one[known], other[known])[0, 1])
