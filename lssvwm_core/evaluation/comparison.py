"""The report of a comparison: a table of all variants for each task, plots, and the goals, reached or not."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lssvwm_core.evaluation.charts import binned, plot_by_distance, plot_by_time, save_sheet
from lssvwm_core.evaluation.figures import standard_error
from lssvwm_core.evaluation.frame_metrics import FRAME_METRICS, PSNR
from lssvwm_core.evaluation.report import missing_metrics, number, table, training_note
from lssvwm_core.evaluation.report_file import read_report
from lssvwm_core.evaluation.results import CUT, MODEL, REPORT_FILE, load_results
from lssvwm_core.evaluation.tasks import Task
from lssvwm_core.model.variants import VARIANTS
from lssvwm_core.plots import drawing, save_plots
from lssvwm_datasets.files import write_json, write_text

OURS = "ours"
SUB_QUADRATIC = ("mamba2", "mamba2-local", "causal-window")
MEMORY_GOAL = 3.0  # dB on retrieval
FLAT = 1.0  # dB that may be lost from the first quarter of the way back to the last


def write_comparison(
    out: Path, tasks: Sequence[Task], variants: Sequence[str], plan: dict[str, Any], trained_frames: int
) -> str:
    """Write report.json, report.md and the pictures of each task into `out`; returns the Markdown.

    The evaluations lie in <out>/<task>/<variant>.
    """
    reports = {
        task.name: {name: read_report(out / task.name / name / REPORT_FILE) for name in variants} for task in tasks
    }
    goals = [goal for task in tasks for goal in check_goals(task, reports[task.name])]
    write_json(out / REPORT_FILE, {"plan": plan, "tasks": reports, "goals": goals})
    comparison = plan["comparison"]
    budget = f"{comparison['budget']['amount']:g} {comparison['budget']['kind']}"
    text = [
        "# Comparison\n\nThe same data in the same order for every variant, as many parameters, and a budget of "
        f"{budget} of training each (preset `{comparison['scale']['preset']}`, seed {comparison['seed']}).",
        table(
            ["variant", "what it is", "parameters", "steps"],
            [
                [name, VARIANTS[name], f"{plan['parameters'][name]:,}", " + ".join(map(str, plan["steps"][name]))]
                for name in variants
            ],
        ),
    ]
    text += [_section(task, reports[task.name], trained_frames) for task in tasks]
    if goals:
        lines = [[goal["goal"], goal["found"], "yes" if goal["reached"] else "**no**"] for goal in goals]
        text.append(
            "## Goals\n\nClearly: by more than twice the standard error of the difference, over the same rollouts.\n\n"
            + table(["goal", "found", "reached"], lines)
        )
    written = "\n\n".join(text) + "\n"
    write_text(out / "report.md", written)
    for task in tasks:  # once all that took hours is saved
        _draw(out, task, variants, trained_frames)
    return written


def check_goals(task: Task, reports: dict[str, Any]) -> list[dict[str, Any]]:
    """What the comparison is meant to show of ours, with what was found.

    Clearly ahead: by more than twice the standard error of the difference between rollouts of the same episodes.
    """
    if OURS not in reports:
        return []
    goals = []
    ours = reports[OURS]["rows"][MODEL]
    for name in (name for name in SUB_QUADRATIC if name in reports):
        other = reports[name]["rows"][MODEL]
        for metric in (metric for metric in FRAME_METRICS if metric.higher_is_better is not None):
            if metric.name in ours["rollouts"] and metric.name in other["rollouts"]:
                # the same episodes and seeds in the same order
                differences = np.subtract(ours["rollouts"][metric.name], other["rollouts"][metric.name])
                ahead = differences if metric.higher_is_better else -differences
                error = standard_error(ahead)
                found = f"{ahead.mean():+.{metric.digits}f}" + (
                    "" if error is None else f" ± {error:.{metric.digits}f}"
                )
                clear = ahead.mean() > 2 * (error or 0)
                goals.append(_goal(f"{task.name}: ours clearly ahead of {name} in {metric.label}", found, clear))
    if "quarter 1" in ours:  # a way back
        first, last = ours["quarter 1"][PSNR.name], ours["quarter 4"][PSNR.name]
        found = f"{first:.2f} dB in the first quarter, {last:.2f} dB in the last"
        goals.append(_goal(f"{task.name}: flat over distance (loses at most {FLAT:g} dB)", found, first - last <= FLAT))
        if CUT in reports[OURS]["rows"]:
            memory = reports[OURS]["memory_db"]
            goals.append(
                _goal(f"{task.name}: memory at least {MEMORY_GOAL:g} dB", f"{memory:+.2f} dB", memory >= MEMORY_GOAL)
            )
    return goals


def _goal(goal: str, found: str, reached: bool) -> dict[str, Any]:
    return {"goal": goal, "found": found, "reached": bool(reached)}


def _section(task: Task, reports: dict[str, Any], trained: int) -> str:
    any_report = next(iter(reports.values()))
    parts = [part for part in any_report["frames_in_part"] if part != "all"]
    lines = []
    for name, report in reports.items():
        for row, figures in report["rows"].items():
            if row == MODEL or name == next(iter(reports)):  # reference rows are the same for all; shown once
                label = f"**{name}**" if row == MODEL else f"{row}" + (f" ({name})" if row == CUT else "")
                cells = [number(figures["all"].get(metric.name), metric.digits) for metric in FRAME_METRICS]
                lines.append(
                    [
                        label,
                        *cells,
                        number(figures["frechet"], 3),
                        *(number(figures[p].get(PSNR.name), 2) for p in parts),
                    ]
                )
    headings = [
        "",
        *(metric.heading for metric in FRAME_METRICS),
        f"{any_report['frechet']} ↓",
        *(f"PSNR, {p}" for p in parts),
    ]
    missing = "".join(f"\n\n{sentence}" for sentence in missing_metrics(any_report))
    return (
        f"## {task.name}: {task.context} + {task.frames} frames\n\n{any_report['episodes']} held-out episodes. "
        f"{training_note(task, trained)}\n\n{table(headings, lines)}{missing}\n\n![PSNR]({task.name}.png)\n\n"
        f"Truth, then the variants in the table's order:\n\n![frames]({task.name}-sheet.png)"
    )


def _draw(out: Path, task: Task, variants: Sequence[str], trained: int) -> None:
    """PSNR of all variants against distance and time, and their frames below each other."""
    by_distance, by_time, shown = {}, {}, []
    for name in variants:
        results = load_results(out / task.name / name)
        rows = [str(row) for row in results[0]["rows"]]
        for row in (MODEL, CUT) if CUT in rows else (MODEL,):
            label = name if row == MODEL else CUT
            values = np.concatenate([result[PSNR.name][rows.index(row)] for result in results])
            by_distance[label] = binned(np.concatenate([result["distance"] for result in results]), values)
            by_time[label] = binned(np.tile(np.arange(float(task.frames)), len(results)), values)
        shown.append((name, results[0]))
    plots = [plot_by_distance(task, by_distance, trained), plot_by_time(task, PSNR, by_time, trained)]
    save_plots(out / f"{task.name}.png", plots)
    first = shown[0][1]
    together = {
        "rows": np.array([name for name, _ in shown]),
        "shown": first["shown"],
        "pictures": np.stack([first["pictures"][0], *(result["pictures"][1] for _, result in shown)]),
        PSNR.name: np.stack([result[PSNR.name][0] for _, result in shown]),
    }
    with drawing(out / f"{task.name}-sheet.png"):
        save_sheet(out / f"{task.name}-sheet.png", [together])
