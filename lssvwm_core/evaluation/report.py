"""From the results of episodes to what people read: report.json, report.md, plots and a contact sheet."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lssvwm_core.evaluation.metrics import frechet_distance
from lssvwm_core.evaluation.results import CUT, MODEL, REPORT_FILE, Result
from lssvwm_core.evaluation.tasks import Task
from lssvwm_core.plots import Plot, save_plots
from lssvwm_core.video import contact_sheet
from lssvwm_datasets.files import write_json, write_text, written_whole

Lines = dict[str, tuple[list[float], list[float]]]
TRAINED = "trained clip length"
BINS = 25  # points of a plotted line, at most
SHEET_EPISODES = 3
METRICS = ("psnr", "ssim", "lpips")
HEADINGS = {"psnr": "PSNR ↑ (dB)", "ssim": "SSIM ↑", "lpips": "LPIPS ↓"}
DIGITS = {"psnr": 2, "ssim": 4, "lpips": 4}
TOPS = {"psnr": 45.0}  # of a plot's axis: identical frames have 78 dB


def write_report(
    out: Path,
    task: Task,
    results: Sequence[Result],
    world: str,
    trained_frames: int | None,
    features: str,
    lpips_missing: str | None,
    facts: dict[str, Any],
) -> dict[str, Any]:
    """Write everything into `out` and return the content of report.json.

    Args:
        results: as kept by `results`, all of the same rows and lengths.
        trained_frames: the longest clips of the world's training, None where unknown.
        features: what the Fréchet distance is called.
        lpips_missing: why there is no LPIPS, None when there is.
    """
    figures = summarise(task, results) | {
        "world": world,
        "trained_frames": trained_frames,
        "frechet": features,
        "lpips_missing": lpips_missing,
        **facts,
    }
    write_json(out / REPORT_FILE, figures)
    save_plots(
        out / "plots.png", [distance_plot(task, results, trained_frames), *time_plots(task, results, trained_frames)]
    )
    save_sheet(out / "sheet.png", results)
    write_text(out / "report.md", markdown(task, figures))
    return figures


def summarise(task: Task, results: Sequence[Result]) -> dict[str, Any]:
    """Means over episodes and frames of every row, with the parts the task is about."""
    judged, distance = task.judged(), np.stack([result["distance"] for result in results])
    parts = {"all": np.broadcast_to(judged, distance.shape)}
    parts |= task.parts(distance, all(result["places_known"] for result in results))
    rows: dict[str, Any] = {}
    for row, name in enumerate(_rows(results)):
        measured = {m: np.stack([r[m][row] for r in results]) for m in METRICS if all(m in r for r in results)}
        rows[name] = {
            part: {metric: float(values[mask].mean()) if mask.any() else None for metric, values in measured.items()}
            for part, mask in parts.items()
        }
        means = {metric: values[:, judged].mean(axis=1) for metric, values in measured.items()}
        rows[name]["rollouts"] = {metric: values.tolist() for metric, values in means.items()}
        rows[name]["psnr_standard_error"] = standard_error(means["psnr"])
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
        "rows": rows,
    }
    if CUT in rows:
        measure = "seen" if "seen" in parts and parts["seen"].any() else "all"
        figures["memory_db"] = rows[MODEL][measure]["psnr"] - rows[CUT][measure]["psnr"]
        figures["memory_measured_on"] = measure
    return figures


def markdown(task: Task, figures: dict[str, Any]) -> str:
    """The report of one world on one task."""
    headings = [*(HEADINGS[metric] for metric in METRICS), f"{figures['frechet']} ↓"]
    measured = []
    for name, row in figures["rows"].items():
        cells = [number(row["all"].get(metric), DIGITS[metric]) for metric in METRICS]
        cells[0] += f" ± {row['psnr_standard_error']:.2f}" if row["psnr_standard_error"] is not None else ""
        measured.append([name, *cells, number(row["frechet"], 3)])
    text = [f"# {task.name}: {figures['world']}"]
    judged = "all generated frames" if task.judged().all() else "the last frames"
    text.append(
        f"{task.context} + {task.frames} frames: {task.about}. {figures['episodes']} held-out episodes, "
        f"{figures['rollouts']} rollouts; means over {judged} (± standard error over rollouts), against "
        + ("exact frames." if figures["exact_truth"] else "decoded latents, as the data keeps no exact frames.")
    )
    text.append(training_note(task, figures["trained_frames"]))
    text.append(table(["", *headings], measured))
    if figures["lpips_missing"] is not None:
        text.append(f"LPIPS: not available: {figures['lpips_missing']}.")
    if "memory_db" in figures:
        part = " on places seen in the context" if figures["memory_measured_on"] == "seen" else ""
        text.append(
            f"**The memory: {figures['memory_db']:+.2f} dB**{part}: the model less the model with its memory cut."
        )
    parts = [part for part in figures["frames_in_part"] if part != "all"]
    if parts:
        counts = figures["frames_in_part"]
        lines = [[name, *(number(row[part].get("psnr"), 2) for part in parts)] for name, row in figures["rows"].items()]
        text.append(table(["PSNR (dB)", *(f"{part} ({counts[part]} frames)" for part in parts)], lines))
        if "seen" in parts:
            text.append(
                "Seen: a frame of the context stood in the same cell of the maze with a heading within 45 degrees."
            )
    elif task.judged().all():
        text.append("Which places were seen is not known: the data has no poses x, y, cos, sin.")
    text.append(
        "![PSNR against distance and time](plots.png)\n\nTruth, then each row, at fixed distances:\n\n"
        "![contact sheet](sheet.png)\n"
    )
    return "\n\n".join(text)


def table(headings: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    rows = [headings, ["---"] * len(headings), *lines]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def training_note(task: Task, trained: int | None) -> str:
    """Where the rollouts leave what the training has shown."""
    whole = task.context + task.frames
    if trained is None:
        return "The length of the clips it was trained on is not known."
    if trained >= whole:
        return f"It was trained on clips of up to {trained} frames: the whole task lies within."
    start = f"It was trained on clips of up to {trained} frames: "
    if trained <= task.context:
        return start + f"every generated frame lies beyond, and no memory older than {trained} frames was ever trained."
    return start + f"from generated frame {trained - task.context} on the task lies beyond."


def distance_plot(task: Task, results: Sequence[Result], trained: int | None) -> Plot:
    """PSNR against how long ago a place was seen (the paper's figure 7 for retrieval)."""
    distance = np.concatenate([result["distance"] for result in results])
    lines = {}
    for row, name in enumerate(_rows(results)):
        lines[name] = binned(distance, np.concatenate([result["psnr"][row] for result in results]))
    return plot_by_distance(task, lines, trained)


def plot_by_distance(task: Task, lines: Lines, trained: int | None) -> Plot:
    furthest = max((max(x, default=0) for x, _ in lines.values()), default=0)
    marks = {} if trained is None or furthest <= trained else {TRAINED: float(trained)}
    return Plot("frames since the place was seen", HEADINGS["psnr"], lines, marks, title=task.name, top=TOPS["psnr"])


def plot_by_time(task: Task, metric: str, lines: Lines, trained: int | None) -> Plot:
    left = None if trained is None else trained - task.context
    marks = {TRAINED: float(left)} if left is not None and 0 < left < task.frames else {}
    return Plot("generated frame", HEADINGS[metric], lines, marks, title=task.name, top=TOPS.get(metric))


def time_plots(task: Task, results: Sequence[Result], trained: int | None) -> list[Plot]:
    """Every metric against generated frames."""
    time = np.concatenate([np.arange(task.frames) for _ in results]).astype(float)
    plots = []
    for metric in (metric for metric in METRICS if all(metric in result for result in results)):
        lines = {
            name: binned(time, np.concatenate([result[metric][row] for result in results]))
            for row, name in enumerate(_rows(results))
        }
        plots.append(plot_by_time(task, metric, lines, trained))
    return plots


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
    names, parts = ["truth", *_rows(results)], []
    for result in results[:SHEET_EPISODES]:
        shown = result["shown"]
        for name, frames, values in zip(names, result["pictures"], [None, *result["psnr"]], strict=True):
            texts = [f"{t}" if values is None else f"{t}: {values[t]:.1f} dB" for t in shown]
            texts[0] = name
            parts.append(contact_sheet(frames, texts, len(shown)))
    sheet = Image.fromarray(np.concatenate([np.asarray(part) for part in parts]))
    with written_whole(path) as partial:
        sheet.save(partial)


def number(value: float | None, digits: int) -> str:
    return "–" if value is None else f"{value:.{digits}f}"


def _rows(results: Sequence[Result]) -> list[str]:
    return [str(name) for name in results[0]["rows"]]


def standard_error(values: NDArray[np.floating]) -> float | None:
    return float(values.std(ddof=1) / len(values) ** 0.5) if len(values) > 1 else None
