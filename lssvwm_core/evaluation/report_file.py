"""Reads a report.json that `report.write_report` wrote, of this version or an earlier one, and checks what it holds."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lssvwm_core.evaluation.results import MODEL
from lssvwm_datasets.schema import convert, read_json

Means = dict[str, float | None]  # by metric; None where there are no frames


@dataclass(frozen=True)
class _Row:
    all: Means
    rollouts: dict[str, list[float]]
    frechet: float | None
    psnr_standard_error: float | None


@dataclass(frozen=True)
class _Report:
    task: str
    context: int
    frames: int
    episodes: int
    frechet: str
    frames_in_part: dict[str, int]
    rows: dict[str, _Row]
    lpips_missing: str | None = None
    memory_db: float | None = None


def read_report(path: Path, advice: str = "evaluate again") -> dict[str, Any]:
    """The content of a report.json, with everything in it that reports of comparisons and model cards use.

    Raises: FileNotFoundError; LssvwmError naming the file and the place in it of what is missing or of another type.
    """
    content = read_json(path, dict[str, Any], advice)
    report = convert(str(path), content, _Report, advice)
    for name in (MODEL, *report.rows):
        for part in report.frames_in_part:
            row = content["rows"].get(name, {})
            convert(f"{path}, rows, {name}, {part}", row.get(part), Means, advice)
    return content
