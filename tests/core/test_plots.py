"""Plots are drawn on any machine, and one that fails costs nothing else."""

import logging
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from lssvwm_core.evaluation import report
from lssvwm_core.evaluation.features import ClipFeatures
from lssvwm_core.evaluation.report import write_report
from lssvwm_core.evaluation.results import CUT, MODEL, Measures
from lssvwm_core.evaluation.tasks import TASKS
from lssvwm_core.plots import Plot, save_plots
from tests.core.evaluation.conftest import make_result

PLOT = Plot("x", "y", {"a": ([1, 2, 3], [1, 4, 9])}, marks={"here": 2.0})
DRAW = """
import os, sys
from pathlib import Path
from lssvwm_core.plots import Plot, save_plots
save_plots(Path(sys.argv[1]), [Plot("x", "y", {"a": ([1, 2], [1, 2])})])
assert os.environ.get("MPLBACKEND") == (sys.argv[2] or None)
assert "matplotlib.pyplot" not in sys.modules
"""


@pytest.mark.parametrize(
    "backend", ["", "module://matplotlib_inline.backend_inline", "module://nowhere.at_all", "tkagg", "no backend"]
)
def test_a_plot_needs_no_display_and_no_notebook(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, backend: str) -> None:
    monkeypatch.setenv("MPLBACKEND", backend) if backend else monkeypatch.delenv("MPLBACKEND", raising=False)
    monkeypatch.delenv("DISPLAY", raising=False)
    path = tmp_path / "plot.png"
    done = subprocess.run([sys.executable, "-c", DRAW, path, backend], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert Image.open(path).width > 500


def test_a_plot_that_fails_is_a_warning_that_names_it_and_leaves_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "plot.png"
    save_plots(path, [PLOT])
    before = path.read_bytes()

    def no_font(*_: object, **__: object) -> None:
        raise RuntimeError("no font")

    monkeypatch.setattr(Figure, "savefig", no_font)
    with caplog.at_level(logging.WARNING):
        save_plots(path, [PLOT])
    assert caplog.messages == [f"{path}: not drawn (RuntimeError: no font)"]
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_plot_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        save_plots(tmp_path / "file" / "plot.png", [PLOT])


def test_the_report_is_saved_before_anything_is_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[str, set[str]]] = []

    def watch(path: Path, *_: object) -> None:
        seen.append((path.name, {file.name for file in tmp_path.iterdir()}))

    monkeypatch.setattr(report, "save_plots", watch)
    monkeypatch.setattr(report, "save_sheet", watch)
    measures = Measures(ClipFeatures("none", lambda frames: np.zeros((0, 3))), {})
    results = [make_result(rows=(MODEL, CUT), frames=TASKS["long"].frames)]
    write_report(tmp_path, TASKS["long"], results, "w", None, measures, {})
    assert seen == [("plots.png", {"report.json", "report.md"}), ("sheet.png", {"report.json", "report.md"})]
