"""Files of evaluations: those of earlier versions are read, and whatever is damaged or hostile is one line."""

import errno
import json
import os
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.lib import format as npy

from lssvwm_core.evaluation import comparison, figures, frame_metrics, report, results
from lssvwm_core.evaluation.features import ClipFeatures
from lssvwm_core.evaluation.frame_metrics import FRAME_METRICS, FrameMetric
from lssvwm_core.evaluation.report import write_report
from lssvwm_core.evaluation.report_file import read_report
from lssvwm_core.evaluation.results import CUT, MODEL, Measures, load_results, save_result
from lssvwm_core.evaluation.tasks import TASKS
from lssvwm_core.hub import cards
from lssvwm_datasets.errors import LssvwmError
from tests.core.evaluation.conftest import make_result

ROWS = (MODEL, CUT)
FEATURES = ClipFeatures("latents", lambda frames: np.zeros((0, 3)))
TASK = TASKS["long"]
CPU = torch.device("cpu")


def test_results_of_before_load(tmp_path: Path) -> None:
    """An npz file as version 0.1 wrote it, with LPIPS and without."""
    kept = make_result(ROWS, 6)
    (tmp_path / "episodes").mkdir()
    np.savez_compressed(tmp_path / "episodes/0000-seed0.npz", **kept)  # type: ignore[arg-type]
    np.savez_compressed(tmp_path / "episodes/0001-seed0.npz", **kept, lpips=np.ones((2, 6)))  # type: ignore[arg-type]
    first, second = load_results(tmp_path)
    assert first.keys() == kept.keys()
    assert second.keys() == kept.keys() | {"lpips"}
    assert [metric.name for metric in figures.measured_metrics([first, second])] == ["psnr", "ssim"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"psnr": None}, "no psnr"),
        ({"psnr": np.full((2, 6), np.nan)}, r"psnr\[0, 0\] is nan, expected finite numbers"),
        ({"features": np.full((2, 2, 3), np.inf)}, r"features\[0, 0, 0\] is inf"),
        ({"psnr": np.zeros((2, 5))}, r"psnr has shape \(2, 5\) and type float64, expected \(2, 6\)"),
        ({"ssim": np.array([["a"] * 6] * 2)}, "ssim has shape"),
        ({"lpips": np.zeros((2, 6), complex)}, "lpips has shape"),
        ({"rows": np.array(7)}, r"rows has shape \(\)"),
        ({"exact": np.array("yes")}, "exact has shape"),
        ({"shown": np.array([0, 99])}, r"shown has frames outside 0\.\.5"),
        ({"pictures": np.zeros((3, 2, 8, 8), np.uint8)}, "pictures has shape"),
    ],
)
def test_a_damaged_result_is_one_line(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    kept = {name: array for name, array in (make_result(ROWS, 6) | change).items() if array is not None}
    save_result(tmp_path / "episodes/0000-seed0.npz", kept)
    with pytest.raises(
        LssvwmError, match=rf"0000-seed0\.npz: damaged result \({message}.*delete it and evaluate again"
    ):
        load_results(tmp_path)


def of_objects(path: Path) -> None:
    save_result(path, make_result(ROWS, 6, id=np.array([object()])))


def of_zeros(path: Path) -> None:
    """200 KB that would be 200 MB."""
    save_result(path, make_result(ROWS, 6, pictures=np.zeros((3, 2, 1000, 10_000, 3), np.uint8)))


def declaring(name: str, shape: tuple[int, ...]) -> Callable[[Path], None]:
    """A file with the header of a large array, and nothing after it."""

    def make(path: Path) -> None:
        save_result(path, make_result(ROWS, 6))
        with zipfile.ZipFile(path, "a") as archive, archive.open(f"{name}.npy", "w") as member:
            npy.write_array_header_1_0(member, {"descr": "<f8", "fortran_order": False, "shape": shape})

    return make


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (of_objects, "not a readable npz file .Object arrays cannot be loaded"),
        (of_zeros, r"need 0\.2 GB of memory, and a process may take 0\.1 GB; no results need as much"),
        (declaring("features", (2, 10**6, 10**6)), "need 16000.0 GB of memory"),
        (declaring("psnr", (2, 10**9)), "need 16.0 GB of memory"),
        (declaring("psnr", (2, 10**6)), "not a readable npz file"),
        (os.mkfifo, "not a regular file"),
        (lambda path: path.symlink_to("/nowhere"), "a link to /nowhere, which does not exist"),
        (lambda path: path.write_bytes(b"PK"), "not a readable npz file .File is not a zip file"),
    ],
)
def test_what_is_no_result_takes_no_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: Callable[[Path], object], message: str
) -> None:
    monkeypatch.setattr(results, "MOST_MEMORY", 10**8)
    path = tmp_path / "episodes/0000-seed0.npz"
    path.parent.mkdir()
    make(path)
    tracemalloc.start()
    try:
        with pytest.raises(LssvwmError, match=rf"0000-seed0\.npz: .*{message}.*delete it and evaluate again"):
            load_results(tmp_path)
        assert tracemalloc.get_traced_memory()[1] < 10**8
    finally:
        tracemalloc.stop()


def test_results_together_take_no_more_than_is_allowed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(results, "MOST_MEMORY", 20_000)
    for number in range(2):
        save_result(tmp_path / f"episodes/000{number}-seed0.npz", make_result(ROWS, 6))
        assert len(load_results(tmp_path)) == number + 1
    save_result(tmp_path / "episodes/0002-seed0.npz", make_result(ROWS, 6, pictures=np.zeros((3, 2, 60, 60, 3), "u1")))
    with pytest.raises(LssvwmError, match=r"0002-seed0\.npz: .* no results need as much"):
        load_results(tmp_path)


def test_arrays_that_nobody_knows_are_not_read(tmp_path: Path) -> None:
    save_result(tmp_path / "episodes/0000-seed0.npz", make_result(ROWS, 6, later=np.array([object()])))
    (found,) = load_results(tmp_path)
    assert "later" not in found


def test_results_of_other_rows_or_frames_do_not_mix(tmp_path: Path) -> None:
    save_result(tmp_path / "episodes/0000-seed0.npz", make_result(ROWS, 6))
    for other in (make_result((MODEL,), 6), make_result(ROWS, 7)):
        save_result(tmp_path / "episodes/0001-seed0.npz", other)
        with pytest.raises(LssvwmError, match=r"0001-seed0\.npz: its rows or frames"):
            load_results(tmp_path)


@pytest.mark.parametrize("number", [errno.EIO, errno.EACCES, errno.EMFILE, errno.ESTALE])
def test_trouble_of_the_machine_is_no_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    save_result(tmp_path / "episodes/0000-seed0.npz", make_result(ROWS, 6))

    def fail(*_: object) -> None:
        raise OSError(number, "trouble")

    monkeypatch.setattr(os, "open", fail)
    with pytest.raises(OSError, match="trouble"):
        load_results(tmp_path)


@pytest.fixture
def written(tmp_path: Path) -> Path:
    write_report(tmp_path, TASK, [make_result(ROWS, TASK.frames)], "world", None, Measures(FEATURES, {}), {"seed": 0})
    return tmp_path / "report.json"


def test_a_report_is_read_as_it_was_written(written: Path) -> None:
    found = read_report(written)
    assert found == json.loads(written.read_text())
    assert {"task", "rows", "frames_in_part", "frechet", "lpips_missing", "memory_db", "seed"} <= found.keys()
    assert found["rows"][MODEL].keys() >= {"all", "rollouts", "psnr_standard_error", "frechet"}


def drop(*keys: str) -> Callable[[dict[str, Any]], None]:
    def change(content: dict[str, Any]) -> None:
        for key in keys[:-1]:
            content = content[key]
        del content[keys[-1]]

    return change


def put(value: Any, *keys: str) -> Callable[[dict[str, Any]], None]:
    def change(content: dict[str, Any]) -> None:
        for key in keys[:-1]:
            content = content[key]
        content[keys[-1]] = value

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (drop("rows"), "rows"),
        (drop("rows", MODEL), "rows, model"),
        (drop("rows", CUT, "seen"), "rows, memory cut, seen"),
        (put(3, "task"), "task"),
        (put("many", "episodes"), "episodes"),
        (put({"psnr": "high"}, "rows", MODEL, "seen"), "rows, model, seen"),
        (put([1, None], "rows", MODEL, "rollouts", "psnr"), "rollouts"),
        (put(float("nan"), "rows", MODEL, "all", "psnr"), "NaN"),
    ],
)
def test_a_damaged_report_is_one_line(written: Path, change: Callable[[Any], None], message: str) -> None:
    content = json.loads(written.read_text())
    change(content)
    written.write_text(json.dumps(content))
    with pytest.raises(LssvwmError, match=rf"report\.json.*{message}") as raised:
        read_report(written)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("text", ["[" * 200_000, "", "[]", "\xff", '{"rows": '])
def test_no_report_at_all_is_one_line(written: Path, text: str) -> None:
    written.write_bytes(text.encode("latin-1"))
    with pytest.raises(LssvwmError, match=r"report\.json.*evaluate again"):
        read_report(written)


def test_a_metric_is_one_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Results, reports, plots, goals and cards have a metric that this test adds, and nobody else names."""

    def darkness(frames: np.ndarray, truth: np.ndarray) -> np.ndarray:
        return np.abs(frames.astype(float) - truth).mean(axis=(1, 2, 3))

    extended = (*FRAME_METRICS, FrameMetric("error", "Mean error", 1, False, darkness))
    for module in (frame_metrics, results, figures, report, comparison, cards):
        monkeypatch.setattr(module, "FRAME_METRICS", extended)
    scores, _ = frame_metrics.load_frame_metrics(CPU)
    frames = np.full((TASK.frames, 8, 8, 3), 200, np.uint8)
    kept = [make_result(ROWS, TASK.frames, error=np.stack([scores["error"](frames, frames - k)] * 2)) for k in (10, 12)]
    for number, result in enumerate(kept):
        save_result(tmp_path / f"episodes/{number:04d}-seed0.npz", result)
    found = write_report(tmp_path, TASK, load_results(tmp_path), "w", None, Measures(FEATURES, scores), {})
    assert found["rows"][MODEL]["all"]["error"] == 11
    assert "Mean error ↓" in (tmp_path / "report.md").read_text()
    other = json.loads(json.dumps(found))
    other["rows"][MODEL]["rollouts"]["error"] = [20, 22]
    goals = {goal["goal"]: goal for goal in comparison.check_goals(TASK, {"ours": found, "mamba2": other})}
    goal = goals["long: ours clearly ahead of mamba2 in Mean error"]
    assert (goal["found"], goal["reached"]) == ("+10.0 ± 0.0", True)
