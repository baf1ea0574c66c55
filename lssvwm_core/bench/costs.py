"""What was measured of costs, as JSON and a plot."""

import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from lssvwm_core.device import fastest_precision, training_precision
from lssvwm_core.plots import Plot, save_plots


@dataclass(frozen=True)
class Point:
    """`seconds` is the median over repeats: of a training step, a generated frame, a scan, or a batch."""

    name: str
    frames: int
    seconds: float
    bytes: int | None = None
    """The size of the state (rollouts), or the peak of memory within a step (training, on CUDA only)."""
    flops: int | None = None
    """Those of the step's matrix products (training)."""
    setting: str = ""
    """What makes it comparable only with points of the same setting (attention)."""

    @property
    def label(self) -> str:
        return f"{self.name}, {self.setting}" if self.setting else self.name


def summary(
    what: str, points: Sequence[Point], options: dict[str, Any], device: torch.device, peak: float | None = None
) -> dict[str, Any]:
    """The content of the JSON file: the points, and of each series the ratio of its last two, its ends, to the first.

    `peak` is what the device reaches in matrix products, in FLOP/s: training is measured by its share of it.
    """
    own = _series(points)
    first = {of[0].setting: of for of in reversed(own.values())}  # of each setting
    return {
        "bench": what,
        **machine(device),
        "matmul_flops_per_second": peak,
        "options": options,
        "points": [asdict(point) for point in points],
        "ratios": {
            label: ratios(of) | beside(of, first[of[0].setting]) | share_of_peak(of, peak) for label, of in own.items()
        },
    }


def machine(device: torch.device) -> dict[str, Any]:
    """What figures were measured on."""
    return {
        "device": torch.cuda.get_device_name() if device.type == "cuda" else platform.processor() or platform.machine(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "precision": {"rollout": fastest_precision(device), "training": training_precision(device)},
    }


def plot(what: str, points: Sequence[Point], path: Path) -> None:
    """Seconds, and bytes where they were measured, against frames."""
    labels = {"train": ("frames of a clip", "a training step (s)"), "rollout": ("frames so far", "a frame (s)")}
    x, y = labels.get(what, ("frames", "seconds"))
    own = _series(points)
    plots = [Plot(x, y, {n: ([p.frames for p in of], [p.seconds for p in of]) for n, of in own.items()}, log=True)]
    sizes = {n: ([p.frames for p in of], [p.bytes / 2**20 for p in of if p.bytes]) for n, of in own.items()}
    if all(len(frames) == len(sizes_) for frames, sizes_ in sizes.values()):
        label = "state (MiB)" if what == "rollout" else "peak memory (MiB)"
        plots.append(Plot(x, label, sizes, log=True))
    save_plots(path, plots)


def _series(points: Sequence[Point]) -> dict[str, list[Point]]:
    """The points of each label, in order."""
    found: dict[str, list[Point]] = {}
    for point in points:
        found.setdefault(point.label, []).append(point)
    return found


def beside(points: Sequence[Point], others: Sequence[Point]) -> dict[str, float]:
    """Seconds over those of the others, at the most frames that both were measured at."""
    seconds = {point.frames: point.seconds for point in others}
    both = [point for point in points if point.frames in seconds and point.name != others[0].name]
    if not both:
        return {}
    last = both[-1]
    return {f"seconds({last.frames}) / {others[0].name}'s": round(last.seconds / seconds[last.frames], 3)}


def share_of_peak(points: Sequence[Point], peak: float | None) -> dict[str, float]:
    """FLOP/s over the device's, and frames a second, at the most frames."""
    last = points[-1]
    if peak is None or last.flops is None:
        return {}
    return {
        f"frames/s({last.frames})": round(last.frames / last.seconds, 1),
        f"FLOP/s({last.frames}) / a large matrix product's": round(last.flops / last.seconds / peak, 3),
    }


def ratios(points: Sequence[Point]) -> dict[str, float | str]:
    """The last point's seconds over those of the one before it (doubling: 2 is linear) and of the first; bytes, too."""
    if len(points) < 2:
        return {}
    first, before, last = points[0], points[-2], points[-1]
    found: dict[str, float | str] = {
        f"seconds({last.frames}) / seconds({before.frames})": round(last.seconds / before.seconds, 3),
        f"seconds({last.frames}) / seconds({first.frames})": round(last.seconds / first.seconds, 3),
    }
    if first.bytes and last.bytes:
        found[f"bytes({last.frames}) / bytes({first.frames})"] = round(last.bytes / first.bytes, 3)
    return found
