"""Line plots for reports, as PNG files."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from lssvwm_datasets.files import written_whole

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
    """Where the y axis ends at the latest."""


def save_plots(path: Path, plots: Sequence[Plot]) -> None:
    """Draw plots beside each other into one PNG; lines of one name have one colour throughout."""
    from matplotlib.figure import Figure  # half a second to import

    figure = Figure(figsize=(6.0 * len(plots), 4.2), layout="constrained")
    names = list(dict.fromkeys(name for plot in plots for name in plot.lines))
    for number, plot in enumerate(plots):
        axes = figure.add_subplot(1, len(plots), number + 1)
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
    with written_whole(path) as partial:
        figure.savefig(partial, dpi=110)
