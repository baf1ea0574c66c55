"""`lssvwm compare`: the same training for every variant, one report, budgets, going on."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from lssvwm_core import compare
from lssvwm_core.compare import Budget, parse_stages, parse_tasks, planned_steps, stage_cost
from lssvwm_core.evaluation.comparison import check_goals
from lssvwm_core.evaluation.tasks import make_task
from lssvwm_core.presets import Stage
from lssvwm_core.training.run.config import load_run_config, make_config
from lssvwm_core.training.run.folder import Run
from lssvwm_datasets.errors import LssvwmError
from lssvwm_datasets.shards import open_shards
from tests.conftest import SMALL_MODEL, lssvwm

SETS = [part for override in (*SMALL_MODEL, "train.precision=fp32") for part in ("--set", override)]
SMALL = ("compare", "--stages", "20x2*3,40x1", "--tasks", "retrieval=20+10,reasoning=20+10", "--episodes", "1", *SETS)


def test_compare_trains_evaluates_and_reports(workspace: Path) -> None:
    command = (*SMALL, "--variants", "ours,causal-full", "--budget", "steps=4", "--out", "comparison")
    lssvwm(workspace, *command)
    out = workspace / "comparison"
    report = (out / "report.md").read_text()
    for words in (
        "## retrieval: 20 + 10",
        "**ours**",
        "**causal-full**",
        "memory cut (ours)",
        "3 + 1",
        "memory at least 3",
    ):
        assert words in report
    for name in ("retrieval.png", "retrieval-sheet.png", "reasoning.png", "reasoning/ours/report.md"):
        assert (out / name).stat().st_size > 1000
    goals = json.loads((out / "report.json").read_text())["goals"]
    assert {goal["goal"].split(":")[0] for goal in goals} == {"retrieval"}

    configs = {name: load_run_config(out / "runs" / name / "config.toml") for name in ("ours", "causal-full")}
    assert configs["causal-full"].model["mixers"] == ("causal",)
    assert replace(configs["causal-full"], model={}) == replace(configs["ours"], model={})

    weights = (Run(out / "runs/ours").world / "model.safetensors").stat().st_mtime_ns
    lssvwm(workspace, *command[:-4], "--budget", "steps=4", "--out", "comparison")  # nothing is done again
    assert (Run(out / "runs/ours").world / "model.safetensors").stat().st_mtime_ns == weights
    assert "another budget" in lssvwm(workspace, *command, "--budget", "steps=8", fails=True).stderr


def test_a_budget_is_spent_in_the_proportions_of_the_stages(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    header = open_shards(workspace / "data/maze", "train").header
    config = make_config("tiny", workspace / "data/maze", None, SMALL_MODEL)
    config = replace(config, train=replace(config.train, stages=(Stage(20, 2, 2), Stage(40, 1, 2))))
    cpu = torch.device("cpu")
    assert planned_steps(config, header, Budget("steps", 30), cpu) == [20, 10]
    monkeypatch.setattr(compare, "stage_cost", lambda config, header, stage, kind, device: stage.frames / 10)
    assert planned_steps(config, header, Budget("minutes", 80), cpu) == [20, 10]  # 20 · 2 + 10 · 4


def test_flops_and_minutes_grow_with_the_clip(workspace: Path) -> None:
    header = open_shards(workspace / "data/maze", "train").header
    config = make_config("tiny", workspace / "data/maze", None, SMALL_MODEL)
    cpu = torch.device("cpu")
    flops = [stage_cost(config, header, Stage(frames, 1, 1), "flops", cpu) for frames in (40, 80, 160)]
    assert flops[2] / flops[1] == pytest.approx(2, rel=0.1)
    per_frame = 6 * 80_000  # of the weights that every token meets, forward and back, at least
    assert flops[1] > 80 * per_frame
    assert 0 < stage_cost(config, header, Stage(20, 1, 1), "minutes", cpu) < 1


def test_goals_say_what_was_found() -> None:
    def report(psnr: float, first: float, last: float) -> dict[str, object]:
        rollouts = {"psnr": [psnr - 3, psnr + 3.2], "ssim": [0.5, 0.6 + psnr / 1000]}
        row = {"rollouts": rollouts, "quarter 1": {"psnr": first}, "quarter 4": {"psnr": last}}
        return {"rows": {"model": row, "memory cut": row}, "memory_db": 2.5}

    reports = {"ours": report(20, 22, 20.5), "mamba2": report(19, 0, 0), "causal-full": report(30, 0, 0)}
    goals = {goal["goal"]: goal for goal in check_goals(make_task("retrieval", 20, 20), reports)}
    ahead = goals["retrieval: ours clearly ahead of mamba2 in PSNR"]
    assert (ahead["found"], ahead["reached"]) == ("+1.00 ± 0.00", True)
    assert not goals["retrieval: ours clearly ahead of mamba2 in SSIM"]["reached"]  # ahead, but within the noise
    assert not goals["retrieval: flat over distance (loses at most 1 dB)"]["reached"]
    assert goals["retrieval: memory at least 3 dB"] == {
        "goal": "retrieval: memory at least 3 dB",
        "found": "+2.50 dB",
        "reached": False,
    }
    assert not any("causal-full" in goal for goal in goals)


def test_options_are_parsed_or_refused() -> None:
    assert Budget.parse("flops=1e16") == Budget("flops", 1e16)
    assert parse_stages("40x6*2, 100x3") == (Stage(40, 2, 6), Stage(100, 1, 3))
    assert parse_tasks("retrieval=100+50") == (make_task("retrieval", 100, 50),)
    for wrong in ("20", "hours=2", "minutes=x", "steps=0", "steps=-1", "steps=inf"):
        with pytest.raises(LssvwmError, match="--budget"):
            Budget.parse(wrong)
    for parse, wrong in ((parse_stages, "40"), (parse_stages, "40x6,"), (parse_tasks, "seeing=1+1")):
        with pytest.raises(LssvwmError, match="expected"):
            parse(wrong)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--variants", "mamba3"), "expected some of ours, mamba2"),
        (("--scale", "huge"), "expected one of cpu, small, paper"),
        (("--data", "nowhere"), "nowhere: no such folder; expected shards (from lssvwm prepare)"),
    ],
)
def test_bad_input_is_one_message(workspace: Path, tmp_path: Path, arguments: tuple[str, ...], message: str) -> None:
    assert message in lssvwm(workspace, *SMALL, *arguments, "--out", str(tmp_path / "c"), fails=True).stderr
    assert not (tmp_path / "c").exists()
