"""`lssvwm bench`: every kind writes its figures; bytes and ratios are what they are said to be."""

import json
import shutil
from pathlib import Path

import pytest
import torch
import typer

from lssvwm_cli.app import app
from lssvwm_core.bench import timing
from lssvwm_core.bench.attention import ways
from lssvwm_core.bench.costs import Point, plot, ratios
from lssvwm_core.bench.quality import Quality, summarise, table
from lssvwm_core.bench.rollout import bench_rollout
from lssvwm_core.bench.subject import COMPARED, Subject
from lssvwm_core.bench.timing import Timing
from lssvwm_core.device import training_precision
from lssvwm_core.model.variants import VARIANTS
from lssvwm_core.presets import preset
from lssvwm_core.training.run.folder import Run
from lssvwm_core.training.step.cost import step_cost
from tests.conftest import lssvwm


@pytest.mark.parametrize("what", ["train", "scan", "attention", "data"])
def test_every_bench_writes_json_and_a_plot(workspace: Path, tmp_path: Path, what: str) -> None:
    few = ("--frames", "10,20", "--repeats", "1", "--out", str(tmp_path), "--json")
    one = ("--variants", "ours", "--set", "model.depth=1") if what == "train" else ()
    figures = json.loads(lssvwm(workspace, "bench", what, *few, *one).stdout)
    assert json.loads((tmp_path / f"{what}.json").read_text()) == figures
    assert {point["frames"] for point in figures["points"]} == {10, 20}
    assert all(point["seconds"] > 0 for point in figures["points"])
    assert all("seconds(20) / seconds(10)" in found for found in figures["ratios"].values())
    assert (tmp_path / f"{what}.png").stat().st_size > 5000


def test_training_is_set_beside_ours_and_beside_a_matrix_product(workspace: Path, tmp_path: Path) -> None:
    few = ("--frames", "10,20", "--repeats", "1", "--variants", "ours,causal-full", "--out", str(tmp_path), "--json")
    figures = json.loads(
        lssvwm(workspace, "bench", "train", *few, "--set", "model.patch=1", "--set", "model.depth=1").stdout
    )
    seconds = {(point["name"], point["frames"]): point["seconds"] for point in figures["points"]}
    ours, full = figures["ratios"]["ours"], figures["ratios"]["causal-full"]
    assert full["seconds(20) / ours's"] == pytest.approx(seconds["causal-full", 20] / seconds["ours", 20], abs=1e-3)
    assert "seconds(20) / ours's" not in ours
    assert ours["frames/s(20)"] == pytest.approx(20 / seconds["ours", 20], abs=0.1)
    assert 0 < ours["FLOP/s(20) / a large matrix product's"] < 1
    config = preset("tiny", (32, 4, 4), pose_names=("x", "y", "cos", "sin"), patch=1, depth=1)
    flops = step_cost(config, 1, 20, 5, training_precision(torch.device("cpu"))).flops
    assert [point["flops"] for point in figures["points"] if point["name"] == "ours"][1] == flops


def test_only_full_attention_grows_in_bytes(tmp_path: Path) -> None:
    names = ("ours", "mamba2", "causal-window", "causal-full")
    points = list(bench_rollout(Subject(), names, (10, 40), Timing(1), torch.device("cpu"), steps=1))
    grown = {}
    for name in names:
        first, last = (point for point in points if point.name == name)
        assert (first.frames, last.frames) == (10, 40)
        assert first.bytes
        assert last.bytes
        grown[name] = last.bytes / first.bytes
    assert grown == {"ours": 1, "mamba2": 1, "causal-window": 1, "causal-full": 4}
    plot("rollout", points, tmp_path / "rollout.png")
    assert (tmp_path / "rollout.png").exists()


def test_ratios_are_of_the_last_two_and_of_the_ends() -> None:
    points = [Point("ours", 100, 1.0, 8), Point("ours", 200, 3.0, 8), Point("ours", 400, 6.0, 8)]
    assert ratios(points) == {
        "seconds(400) / seconds(200)": 2.0,
        "seconds(400) / seconds(100)": 6.0,
        "bytes(400) / bytes(100)": 1.0,
    }
    assert ratios(points[:1]) == {}


def test_sizes_beyond_the_limit_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing, "timed", lambda measure, device: measure())
    measures = {10: lambda: 1.0, 20: lambda: 5.0, 40: lambda: 1.0}
    found = dict(Timing(limit=2.0).medians(measures, torch.device("cpu")))  # type: ignore[arg-type]
    assert found == {10: 1.0}


def test_quality_is_measured_against_steps_for_worlds_beside_each_other(workspace: Path, tmp_path: Path) -> None:
    world = str(workspace / "runs/test")
    few = ("--steps", "1,2", "--shifts", "1,3", "--context", "10", "--frames", "7", "--episodes", "1")
    more = ("--checkpoint", world, "--out", str(tmp_path), "--json")
    figures = json.loads(lssvwm(workspace, "bench", "quality", *few, *more).stdout)
    assert json.loads((tmp_path / "quality.json").read_text()) == figures
    rows = {(row["world"], row["steps"], row["shift"]): row for row in figures["rows"]}
    assert list(rows) == [("test", 1, 1), ("test", 2, 1), ("test", 2, 3), ("autoencoder", 0, 1)]
    assert all(row["frames_per_second"] > 0 for (name, *_), row in rows.items() if name == "test")
    assert figures["defaults"] == {"test": 4}
    assert (tmp_path / "quality.png").stat().st_size > 5000


@pytest.mark.parametrize("guidance", [0.0, 1.0])
def test_quality_is_what_the_evaluation_measures(workspace: Path, tmp_path: Path, guidance: float) -> None:
    """The same episode, seed, steps and the guidance of the world give the PSNR that `lssvwm eval` finds."""
    shutil.copytree(workspace / "runs/test", tmp_path / "test")
    file = Run(tmp_path / "test").world / "config.json"
    config = json.loads(file.read_text())
    config["sampler"]["guidance"] = guidance
    file.write_text(json.dumps(config))
    short = ("--checkpoint", str(tmp_path / "test"), "--context", "10", "--frames", "10", "--episodes", "1")
    more = ("--steps", "3", "--out", str(tmp_path), "--json")
    bench_ = json.loads(lssvwm(workspace, "bench", "quality", *short, *more).stdout)
    report = json.loads(lssvwm(workspace, "eval", "retrieval", "--videos", "0", *short, *more).stdout)
    mine = {row["world"]: row["psnr"] for row in bench_["rows"]}
    theirs = report["rows"]
    assert report["guidance"] == guidance
    assert mine["test"] == pytest.approx(theirs["model"]["all"]["psnr"], abs=0.01)
    assert mine["autoencoder"] == pytest.approx(theirs["autoencoder"]["all"]["psnr"], abs=0.01)


def test_summary_is_the_mean_of_quality_and_the_median_of_speed() -> None:
    rollouts = [Quality("a", 2, 1.0, psnr, 0.5, 0.75, speed) for psnr, speed in ((20, 5), (21, 100), (25, 6))]
    assert summarise(rollouts) == [Quality("a", 2, 1.0, 22, 0.5, 0.75, 6)]
    assert "| a | 2 | 1 | 22.00 | 0.500 | 0.75 | 6.0 |" in table(summarise(rollouts))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(("--context", "5000", "--frames", "10"), "needs 5000 frames"), (("--chunk", "3"), "trained for 5, 1")],
)
def test_quality_that_cannot_be_measured_is_told(
    workspace: Path, tmp_path: Path, arguments: tuple[str, ...], message: str
) -> None:
    assert message in lssvwm(workspace, "bench", "quality", "--out", str(tmp_path), *arguments, fails=True).stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("option", "text"), [("--steps", "1,x"), ("--steps", "0"), ("--shifts", "0"), ("--shifts", "nan")]
)
def test_bad_numbers_are_told(option: str, text: str, tmp_path: Path) -> None:
    wrong = lssvwm(tmp_path, "bench", "quality", option, text, fails=True)
    assert f"{option} {text}: expected numbers above 0" in wrong.stderr


OPTIONS = {
    "train": {"frames", "preset", "variants", "set", "compile", "repeats", "limit", "out", "device", "json"},
    "rollout": {"frames", "preset", "variants", "steps", "set", "compile", "repeats", "limit", "out", "device", "json"},
    "scan": {"frames", "preset", "set", "repeats", "limit", "out", "device", "json"},
    "attention": {"frames", "preset", "set", "repeats", "limit", "out", "device", "json"},
    "data": {"frames", "data", "repeats", "limit", "out", "json"},
    "env": {"checkpoint", "data", "batch", "chunk", "repeats", "out", "device", "json"},
    "quality": {
        *("checkpoint", "data", "steps", "shifts", "context", "frames", "episodes", "chunk", "seed"),
        *("out", "device", "json"),
    },
}


def test_each_benchmark_has_the_options_that_apply_to_it_and_no_others() -> None:
    commands = typer.main.get_command(app).commands["bench"].commands  # type: ignore[attr-defined]
    found = {
        name: {option.opts[0].removeprefix("--") for option in command.params if option.opts[0] != "--help"}
        for name, command in commands.items()
    }
    assert found == OPTIONS


def test_the_models_that_are_measured_fit_the_shipped_world() -> None:
    expected = preset("tiny", (32, 4, 4), pose_names=("x", "y", "cos", "sin"), depth=2)
    assert Subject(model={"depth": 2}).config() == expected
    assert set(COMPARED) <= set(VARIANTS)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--frames", "7"), "expected"),
        (("--frames", "x"), "expected"),
        (("--variants", "mamba3"), "expected"),
        (("--preset", "x"), "expected"),
        (("--set", "train.steps=3"), "bench sets fields of the model alone"),
        (("--set", "model.widht=3"), "[model] has no field 'widht'"),
        (("--set", "model.width=3"), "width 3 must be a multiple of headdim"),
    ],
)
def test_bad_options_are_told(tmp_path: Path, arguments: tuple[str, ...], message: str) -> None:
    assert message in lssvwm(tmp_path, "bench", "train", *arguments, fails=True).stderr


@pytest.mark.parametrize("chunk", [5, 1])
def test_every_way_of_attention_gives_the_same(chunk: int) -> None:
    config = preset("tiny", (4, 4, 4), chunk_sizes=(5, 1), frame_window=10)
    rng = torch.Generator().manual_seed(0)
    query, key, value = torch.randn(3, 2, 20, 4, 2, 16, generator=rng).unbind(0)
    found = {name: way(query, key, value) for name, way in ways(config, chunk, 20, torch.device("cpu")).items()}
    assert {"windows", "dense mask"} <= set(found)
    for mixed in found.values():
        torch.testing.assert_close(mixed, found["dense mask"])
