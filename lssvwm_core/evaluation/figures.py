"""The figures of an evaluation: means over the episodes and frames of every row, as report.json holds them."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lssvwm_core.evaluation.frame_metrics import FRAME_METRICS, PSNR, FrameMetric
from lssvwm_core.evaluation.metrics import frechet_distance
from lssvwm_core.evaluation.results import CUT, MODEL, Result
from lssvwm_core.evaluation.tasks import Task


def summarise(task: Task, results: Sequence[Result]) -> dict[str, Any]:
    """Means over episodes and frames of every row, with the parts the task is about."""
    judged, distance = task.judged(), np.stack([result["distance"] for result in results])
    parts = {"all": np.broadcast_to(judged, distance.shape)}
    parts |= task.parts(distance, all(result["places_known"] for result in results))
    rows: dict[str, Any] = {}
    for row, name in enumerate(row_names(results)):
        measured = {m.name: np.stack([r[m.name][row] for r in results]) for m in measured_metrics(results)}
        rows[name] = {
            part: {metric: float(values[mask].mean()) if mask.any() else None for metric, values in measured.items()}
            for part, mask in parts.items()
        }
        means = {metric: values[:, judged].mean(axis=1) for metric, values in measured.items()}
        rows[name]["rollouts"] = {metric: values.tolist() for metric, values in means.items()}
        rows[name]["psnr_standard_error"] = standard_error(means[PSNR.name])
        clips = np.concatenate([result["features"][row] for result in results])
        truth = np.concatenate([result["features_truth"] for result in results])
        rows[name]["frechet"] = frechet_distance(clips, truth) if len(clips) > 1 and judged.all() else None
    figures = {
        "task": task.name,
        "context": task.context,
        "frames": task.frames,
        "episodes": len({str(result["id"]) for result in results}),
        "rollouts": len(results),
        "exact_truth": all(bool(result["exact"]) for result in results),
        "frames_in_part": {part: int(mask.sum()) for part, mask in parts.items()},
        "certainty": {part: _mean_known(results, mask) for part, mask in parts.items()},
        "rows": rows,
    }
    if CUT in rows:
        measure = "seen" if "seen" in parts and parts["seen"].any() else "all"
        figures["memory_db"] = rows[MODEL][measure][PSNR.name] - rows[CUT][measure][PSNR.name]
        figures["memory_measured_on"] = measure
    return figures


def _mean_known(results: Sequence[Result], mask: NDArray[np.bool_]) -> float | None:
    """How well the model knew the places of a part; None where nobody can tell."""
    unknown = np.full(mask.shape[1:], np.nan)
    values = np.stack([result.get("certainty", unknown) for result in results])[mask]
    values = values[np.isfinite(values)]
    return float(values.mean()) if len(values) else None


def measured_metrics(results: Sequence[Result]) -> list[FrameMetric]:
    """The metrics that every result has; one that was added later lacks in older results."""
    return [metric for metric in FRAME_METRICS if all(metric.name in result for result in results)]


def row_names(results: Sequence[Result]) -> list[str]:
    return [str(name) for name in results[0]["rows"]]


def standard_error(values: NDArray[np.floating]) -> float | None:
    """The standard error of the mean of independent values; None for a single one."""
    return float(values.std(ddof=1) / len(values) ** 0.5) if len(values) > 1 else None
