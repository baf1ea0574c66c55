"""From the results of episodes to what people read: report.json, report.md, plots and a contact sheet."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lssvwm_core.evaluation.charts import distance_plot, nearness_plots, save_sheet, time_plots
from lssvwm_core.evaluation.figures import summarise
from lssvwm_core.evaluation.frame_metrics import FRAME_METRICS, PSNR
from lssvwm_core.evaluation.results import REPORT_FILE, Measures, Result
from lssvwm_core.evaluation.tasks import Task
from lssvwm_core.plots import drawing, save_plots
from lssvwm_datasets.files import write_json, write_text


def write_report(
    out: Path,
    task: Task,
    results: Sequence[Result],
    world: str,
    trained_frames: int | None,
    measures: Measures,
    facts: dict[str, Any],
) -> dict[str, Any]:
    """Write everything into `out` and return the content of report.json.

    The figures and the text are saved before anything is drawn.

    Args:
        out: the folder of the evaluation.
        results: as kept by `results`, all of the same rows and lengths.
        world: what the world is called.
        trained_frames: the longest clips of the world's training, None where unknown.
        measures: what the results were measured with.
        facts: what else report.json should hold.
    """
    figures = summarise(task, results) | {
        "world": world,
        "trained_frames": trained_frames,
        "frechet": measures.features.name,
        **{f"{metric.name}_missing": measures.missing.get(metric.name) for metric in FRAME_METRICS if metric.load},
        **facts,
    }
    write_json(out / REPORT_FILE, figures)
    write_text(out / "report.md", markdown(task, figures))
    plots = [distance_plot(task, results, trained_frames), *time_plots(task, results, trained_frames)]
    plots += nearness_plots(results)
    save_plots(out / "plots.png", plots)
    with drawing(out / "sheet.png"):
        save_sheet(out / "sheet.png", results)
    return figures


def markdown(task: Task, figures: dict[str, Any]) -> str:
    """The report of one world on one task."""
    headings = [*(metric.heading for metric in FRAME_METRICS), f"{figures['frechet']} ↓"]
    measured = []
    for name, row in figures["rows"].items():
        cells = [number(row["all"].get(metric.name), metric.digits) for metric in FRAME_METRICS]
        cells[0] += f" ± {row['psnr_standard_error']:.2f}" if row["psnr_standard_error"] is not None else ""
        measured.append([name, *cells, number(row["frechet"], 3)])
    text = [f"# {task.name}: {figures['world']}"]
    judged = "all generated frames" if task.judged().all() else "the last frames"
    text.append(
        f"{task.context} + {task.frames} frames: {task.about}. {figures['episodes']} held-out episodes, "
        f"{figures['rollouts']} rollouts; means over {judged} (± standard error over rollouts), against "
        + _truth_of(task, figures)
    )
    text.append(training_note(task, figures["trained_frames"]))
    text.append(table(["", *headings], measured))
    text += missing_metrics(figures)
    if "memory_db" in figures:
        part = " on places seen in the context" if figures["memory_measured_on"] == "seen" else ""
        text.append(
            f"**The memory: {figures['memory_db']:+.2f} dB**{part}: the model less the model with its memory cut."
        )
    parts = [part for part in figures["frames_in_part"] if part != "all"]
    if parts:
        counts = figures["frames_in_part"]
        lines = [
            [name, *(number(row[part].get(PSNR.name), PSNR.digits) for part in parts)]
            for name, row in figures["rows"].items()
        ]
        certainty = [figures["certainty"][part] for part in parts]
        if any(value is not None for value in certainty):
            lines.append(["certainty of the memory, 0 to 1", *(number(value, 2) for value in certainty)])
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


def _truth_of(task: Task, figures: dict[str, Any]) -> str:
    if not task.has_truth:
        return "what each row showed on the way out."
    return "exact frames." if figures["exact_truth"] else "decoded latents, as the data keeps no exact frames."


def missing_metrics(figures: dict[str, Any]) -> list[str]:
    """A sentence for each metric that was not available, by the content of a report.json."""
    reasons = {metric.label: figures.get(f"{metric.name}_missing") for metric in FRAME_METRICS}
    return [f"{label}: not available: {reason}." for label, reason in reasons.items() if reason is not None]


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


def number(value: float | None, digits: int) -> str:
    return "–" if value is None else f"{value:.{digits}f}"
