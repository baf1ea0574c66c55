"""What a report shows beside its tables: metrics against distance and time, and a sheet of frames."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lssvwm_core.evaluation.figures import measured_metrics, row_names
from lssvwm_core.evaluation.frame_metrics import PSNR, FrameMetric
from lssvwm_core.evaluation.results import Result
from lssvwm_core.evaluation.tasks import Task
from lssvwm_core.plots import Plot
from lssvwm_core.video import contact_sheet
from lssvwm_datasets.files import written_whole

Lines = dict[str, tuple[list[float], list[float]]]
TRAINED = "trained clip length"
BINS = 25  # points of a plotted line, at most
SHEET_EPISODES = 3


def distance_plot(task: Task, results: Sequence[Result], trained: int | None) -> Plot:
    """PSNR against how long ago a place was seen (the paper's figure 7 for retrieval)."""
    distance = np.concatenate([result["distance"] for result in results])
    lines = {}
    for row, name in enumerate(row_names(results)):
        lines[name] = binned(distance, np.concatenate([result[PSNR.name][row] for result in results]))
    return plot_by_distance(task, lines, trained)


def plot_by_distance(task: Task, lines: Lines, trained: int | None) -> Plot:
    """PSNR of several lines against how long ago a place was seen, with the length of the trained clips marked."""
    furthest = max((max(x, default=0) for x, _ in lines.values()), default=0)
    marks = {} if trained is None or furthest <= trained else {TRAINED: float(trained)}
    return Plot("frames since the place was seen", PSNR.heading, lines, marks, title=task.name, top=PSNR.top)


def plot_by_time(task: Task, metric: FrameMetric, lines: Lines, trained: int | None) -> Plot:
    """A metric of several lines against generated frames, with the length of the trained clips marked."""
    left = None if trained is None else trained - task.context
    marks = {TRAINED: float(left)} if left is not None and 0 < left < task.frames else {}
    return Plot("generated frame", metric.heading, lines, marks, title=task.name, top=metric.top)


def time_plots(task: Task, results: Sequence[Result], trained: int | None) -> list[Plot]:
    """Every metric against generated frames."""
    time = np.concatenate([np.arange(task.frames) for _ in results]).astype(float)
    plots = []
    for metric in measured_metrics(results):
        lines = {
            name: binned(time, np.concatenate([result[metric.name][row] for result in results]))
            for row, name in enumerate(row_names(results))
        }
        plots.append(plot_by_time(task, metric, lines, trained))
    return plots


def nearness_plots(results: Sequence[Result]) -> list[Plot]:
    """PSNR against how far the nearest pose of the context is, where the results tell; none where all are the same."""
    if any("nearest" not in result for result in results):
        return []
    nearest = np.concatenate([result["nearest"] for result in results])
    if np.unique(nearest[np.isfinite(nearest)]).size < 2:
        return []
    rows = enumerate(row_names(results))
    lines = {
        name: binned(nearest, np.concatenate([result[PSNR.name][row] for result in results])) for row, name in rows
    }
    return [Plot("distance to the nearest pose seen", PSNR.heading, lines, title="by what was near", top=PSNR.top)]


def binned(x: NDArray[np.floating], y: NDArray[np.floating]) -> tuple[list[float], list[float]]:
    """Means of y over at most `BINS` equal spans of x; NaNs of x are left out."""
    known = np.isfinite(x)
    if not known.any():
        return [], []
    x, y = x[known], y[known]
    edges = np.linspace(x.min(), x.max() + 1e-6, min(BINS, len(np.unique(x))) + 1)
    which = np.digitize(x, edges[1:-1])
    full = [k for k in range(len(edges) - 1) if (which == k).any()]
    return [float(x[which == k].mean()) for k in full], [float(y[which == k].mean()) for k in full]


def save_sheet(path: Path, results: Sequence[Result]) -> None:
    """Truth and each row below each other, at fixed generated frames, of the first episodes."""
    names, parts = ["truth", *row_names(results)], []
    for result in results[:SHEET_EPISODES]:
        shown = result["shown"]
        for name, frames, values in zip(names, result["pictures"], [None, *result[PSNR.name]], strict=True):
            texts = [f"{t}" if values is None else f"{t}: {values[t]:.1f} dB" for t in shown]
            texts[0] = name
            parts.append(contact_sheet(frames, texts, len(shown)))
    sheet = Image.fromarray(np.concatenate([np.asarray(part) for part in parts]))
    with written_whole(path) as partial:
        sheet.save(partial)
