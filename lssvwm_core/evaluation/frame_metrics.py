"""The metrics that evaluations report for every frame, each as a record.

Results, reports, plots, comparisons and model cards go through `FRAME_METRICS`. To add a metric, write its record, here
or in a module of its own, and name it there.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from lssvwm_core.evaluation.lpips import Lpips, load_lpips
from lssvwm_core.evaluation.metrics import LOST_BELOW, detail, lost, psnr, sharpness, ssim
from lssvwm_core.video import Frames

Score = Callable[[Frames, Frames], NDArray[np.float64]]
"""(T, H, W, 3) uint8 frames and their truth -> (T,) figures."""


@dataclass(frozen=True)
class FrameMetric:
    """A metric that compares each generated frame with the true one. It has a `score`, or `load` to get one.

    Attributes:
        name: its key in results and in report.json.
        label: what people call it.
        digits: how many are shown after the point.
        higher_is_better: whether frames nearer to the truth have higher figures; None: figures nearer to 1.
        of_level: a level of the frames beside that of the data, any frames of which will do, not frame by frame.
        score: the function itself, when it needs no file.
        load: takes the path of its weights (None: where they are usually kept) and a device; returns the function, or
            in words why it is not available.
        unit: shown after the label.
        top: where the axis of a plot ends at the latest.
    """

    name: str
    label: str
    digits: int
    higher_is_better: bool | None
    score: Score | None = None
    load: Callable[[Path | None, torch.device], Score | str] | None = None
    unit: str = ""
    top: float | None = None
    of_level: bool = False

    @property
    def heading(self) -> str:
        """For tables and plots: the label with an arrow towards better figures."""
        arrow = {True: "↑", False: "↓", None: "→ 1"}[self.higher_is_better]
        return f"{self.label} {arrow}" + (f" ({self.unit})" if self.unit else "")


def _load_lpips(weights: Path | None, device: torch.device) -> Score | str:
    network = load_lpips(weights, device)
    return network.score if isinstance(network, Lpips) else network


PSNR = FrameMetric("psnr", "PSNR", 2, True, psnr, unit="dB", top=45.0)  # identical frames have 78 dB
SSIM = FrameMetric("ssim", "SSIM", 4, True, ssim)
LPIPS = FrameMetric("lpips", "LPIPS", 4, False, load=_load_lpips)
SHARPNESS = FrameMetric("sharpness", "sharpness", 2, None, sharpness, of_level=True)
DETAIL = FrameMetric("detail", "detail", 2, None, detail, of_level=True)
LOST = FrameMetric("lost", f"share below {LOST_BELOW:g} dB", 3, False, lost)
FRAME_METRICS = (PSNR, SSIM, LPIPS, SHARPNESS, DETAIL, LOST)


def load_frame_metrics(
    device: torch.device, weights: Mapping[str, Path | None] | None = None
) -> tuple[dict[str, Score], dict[str, str]]:
    """The functions of all metrics that are available, by name, and the reasons why the others are not.

    Args:
        device: where networks compare frames.
        weights: the file of a metric's weights, by the metric's name, for files that are not where they usually are.

    Raises: LssvwmError when a file that was named cannot be used.
    """
    scores: dict[str, Score] = {}
    missing: dict[str, str] = {}
    for metric in FRAME_METRICS:
        loaded = metric.load((weights or {}).get(metric.name), device) if metric.load else metric.score
        if isinstance(loaded, str):
            missing[metric.name] = loaded
        elif loaded is not None:
            scores[metric.name] = loaded
    return scores, missing
