"""Line plots for reports, as PNG files, drawn without a display and whatever MPLBACKEND says."""

import contextlib
import logging
import os
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from lssvwm_datasets.files import written_whole

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

logger = logging.getLogger(__name__)
_importing = threading.Lock()
DASHED = {"memory cut", "last context frame", "autoencoder"}  # reference rows


@dataclass(frozen=True)
class Plot:
    """Lines (name -> x and y values) with marked places on the x axis (name -> x)."""

    x_label: str
    y_label: str
    lines: Mapping[str, tuple[Sequence[float], Sequence[float]]]
    marks: Mapping[str, float] = field(default_factory=dict)
    log: bool = False
    title: str = ""
    top: float | None = None
    """The highest value that the y axis shows."""


def save_plots(path: Path, plots: Sequence[Plot]) -> None:
    """Draw plots beside each other into one PNG; lines of one name have one colour throughout.

    A plot that cannot be drawn is a warning, as in `drawing`. Raises: OSError when the file cannot be written.
    """
    with drawing(path):
        figure = _empty_figure(6.0 * len(plots), 4.2)
        names = list(dict.fromkeys(name for plot in plots for name in plot.lines))
        for number, plot in enumerate(plots):
            _draw(plot, names, figure.add_subplot(1, len(plots), number + 1))
        with written_whole(path) as partial:
            figure.savefig(partial, dpi=110)


@contextlib.contextmanager
def drawing(path: Path) -> Iterator[None]:
    """Turn an error of drawing into a warning that names `path`, so that it never costs what was computed for hours.

    Raises: OSError, such as that of a full disk.
    """
    try:
        yield
    except OSError:
        raise
    except Exception as error:  # whatever matplotlib, its settings and its fonts raise
        logger.warning("%s: not drawn (%s: %s)", path, type(error).__name__, error)


def _draw(plot: Plot, names: Sequence[str], axes: "Axes") -> None:
    """Draw one plot; the place of a line in `names` is its colour."""
    for name, (x, y) in plot.lines.items():
        dashed, marker = name in DASHED, "o" if len(x) < 12 else None
        colour = f"C{names.index(name) % 10}"
        axes.plot(x, y, label=name, color=colour, linestyle="--" if dashed else "-", marker=marker, linewidth=1.8)
    for name, place in plot.marks.items():
        axes.axvline(place, color="grey", linestyle=":", label=name)
    if plot.log:
        axes.set_xscale("log")
        axes.set_yscale("log")
    axes.set(xlabel=plot.x_label, ylabel=plot.y_label, title=plot.title)
    if plot.top is not None:
        axes.set_ylim(top=min(plot.top, axes.get_ylim()[1]))
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)


def _empty_figure(width: float, height: float) -> "Figure":
    """A figure that Agg draws, in inches. matplotlib takes half a second to import, so it is imported here."""
    _import_matplotlib()
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _import_matplotlib() -> None:
    """Import matplotlib even if MPLBACKEND names a backend that is not installed, of a notebook say; others are kept.

    matplotlib refuses to be imported then.
    """
    with _importing:
        backend = None if "matplotlib" in sys.modules else os.environ.pop("MPLBACKEND", None)
        try:
            import matplotlib
        finally:
            if backend is not None:
                os.environ["MPLBACKEND"] = backend
        if backend:
            with contextlib.suppress(ValueError):
                matplotlib.rcParams["backend"] = backend
