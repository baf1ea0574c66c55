"""`lssvwm eval` from end to end: rows, resuming, batches, reports."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from lssvwm_core.evaluation.charts import binned
from lssvwm_core.evaluation.features import latent_features
from lssvwm_core.evaluation.figures import summarise
from lssvwm_core.evaluation.frame_metrics import load_frame_metrics
from lssvwm_core.evaluation.metrics import psnr
from lssvwm_core.evaluation.results import CUT, MODEL, Measures, load_results
from lssvwm_core.evaluation.run import EvalOptions, evaluate
from lssvwm_core.evaluation.tasks import make_task
from lssvwm_core.training.run.folder import Run, trained_frames
from lssvwm_core.world import World, load_world
from lssvwm_datasets.errors import LssvwmError
from lssvwm_datasets.video import read_video
from tests.conftest import lssvwm

SHORT = ("--checkpoint", "test", "--steps", "2", "--context", "40", "--frames", "18")


@pytest.fixture(scope="module")
def world(workspace: Path) -> World:
    world = load_world(Run(workspace / "runs/test").world, torch.device("cpu"))
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in world.model.parameters():  # four steps of training leave the gates all but closed
            parameter += 0.05 * torch.randn_like(parameter)
    return world.sampled_with(steps=2)


def run(world: World, workspace: Path, out: Path, stop_after: int | None = None, **options: object) -> None:
    wanted = replace(EvalOptions(make_task("retrieval", 20, 20), episodes=1, videos=0), **options)  # type: ignore[arg-type]
    measures = Measures(latent_features(world.autoencoder, world.device), *load_frame_metrics(world.device))
    steps: Iterator[object] = evaluate(world, workspace / "data/maze", wanted, measures, {"weights": "w"}, out)
    for count, _ in enumerate(steps):
        if count == stop_after:
            return


def same(one: Path, other: Path) -> None:
    for a, b in zip(load_results(one), load_results(other), strict=True):
        assert a.keys() == b.keys()
        np.testing.assert_allclose(a["psnr"], b["psnr"], atol=0.05)
        np.testing.assert_array_equal(a["distance"], b["distance"])


def test_results_do_not_depend_on_the_batch(world: World, workspace: Path, tmp_path: Path) -> None:
    run(world, workspace, tmp_path / "one", seeds=2, batch=1)
    run(world, workspace, tmp_path / "two", seeds=2, batch=2)
    same(tmp_path / "one", tmp_path / "two")
    first, second = load_results(tmp_path / "one")
    assert not np.allclose(first["psnr"][0], second["psnr"][0])  # seeds differ
    np.testing.assert_array_equal(first["psnr"][2:], second["psnr"][2:])  # reference rows do not


def test_a_stopped_evaluation_goes_on_and_keeps_what_it_had(world: World, workspace: Path, tmp_path: Path) -> None:
    run(world, workspace, tmp_path / "whole", seeds=2, batch=1)
    run(world, workspace, tmp_path / "part", seeds=2, batch=1, stop_after=12)
    (kept,) = (tmp_path / "part/episodes").iterdir()
    written = kept.stat().st_mtime_ns
    run(world, workspace, tmp_path / "part", seeds=2, batch=1)
    assert kept.stat().st_mtime_ns == written
    same(tmp_path / "whole", tmp_path / "part")


def test_a_folder_of_other_settings_is_refused(world: World, workspace: Path, tmp_path: Path) -> None:
    run(world, workspace, tmp_path, stop_after=0)
    with pytest.raises(LssvwmError, match=r"other settings \(task: .*choose another --out"):
        run(world, workspace, tmp_path, task=make_task("retrieval", 20, 15))


def test_a_damaged_result_is_named(world: World, workspace: Path, tmp_path: Path) -> None:
    run(world, workspace, tmp_path)
    (path,) = (tmp_path / "episodes").iterdir()
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(LssvwmError, match=f"{path}: not a readable npz file"):
        load_results(tmp_path)


def test_the_cut_row_knows_nothing_but_the_window(world: World, workspace: Path, tmp_path: Path) -> None:
    """Another past, before the window, changes the model and not the row with its memory cut."""
    import shutil

    import h5py

    changed = tmp_path / "data"
    shutil.copytree(workspace / "data/maze", changed)
    for path in changed.glob("validation*.h5"):
        with h5py.File(path, "r+") as file:
            file["latents"][:10] = -file["latents"][:10]
    options = EvalOptions(make_task("reasoning", 20, 5), episodes=1, videos=0)
    measures = Measures(latent_features(world.autoencoder, world.device), *load_frame_metrics(world.device))
    for name, data in (("a", workspace / "data/maze"), ("b", changed)):
        list(evaluate(world, data, options, measures, {}, tmp_path / name))
    (a,), (b,) = load_results(tmp_path / "a"), load_results(tmp_path / "b")
    assert [str(row) for row in a["rows"][:2]] == [MODEL, CUT]
    assert not np.array_equal(a["psnr"][0], b["psnr"][0])
    np.testing.assert_array_equal(a["psnr"][1], b["psnr"][1])


def test_the_command_writes_report_plots_sheet_and_videos(workspace: Path, tmp_path: Path) -> None:
    done = lssvwm(workspace, "eval", "reasoning", *SHORT, "--out", str(tmp_path / "e"), "--json")
    figures = json.loads(done.stdout)
    assert json.loads((tmp_path / "e/report.json").read_text()) == figures
    assert figures["trained_frames"] == 20
    assert list(figures["rows"]) == ["model", "memory cut", "last context frame", "autoencoder"]
    parts = figures["frames_in_part"]
    assert parts["seen"] + parts["unseen"] == parts["all"] == 18
    report = (tmp_path / "e/report.md").read_text()
    for words in (
        "LPIPS: not available",
        "(not FVD)",
        "every generated frame lies beyond",
        "The memory: ",
        "45 degrees",
    ):
        assert words in report
    assert Image.open(tmp_path / "e/plots.png").width > 500
    assert Image.open(tmp_path / "e/sheet.png").size == (8 * 128, 5 * 148)
    assert sum(len(part) for part in read_video(tmp_path / "e/videos/0000-seed0.mp4")) == 58
    with np.load(tmp_path / "e/episodes/0000-seed0.npz") as kept:
        frames, truth = kept["pictures"][1], kept["pictures"][0]
        np.testing.assert_allclose(kept["psnr"][0][kept["shown"]], psnr(frames, truth))
        assert figures["rows"]["model"]["all"]["psnr"] == pytest.approx(kept["psnr"][0].mean())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("retrieval", "--context", "1500"), "the longest validation episode has 1001"),
        (("retrieval", "--conditions", "action"), "leads the world back by poses"),
        (("reasoning", "--lpips-weights", "nowhere"), "nowhere"),
    ],
)
def test_bad_input_is_one_message(workspace: Path, tmp_path: Path, arguments: tuple[str, ...], message: str) -> None:
    error = lssvwm(workspace, "eval", *arguments, "--checkpoint", "test", "--out", str(tmp_path / "e"), fails=True)
    assert message in error.stderr
    assert not (tmp_path / "e/episodes").exists()


def test_parts_and_the_memory_are_means_over_their_frames() -> None:
    """Two episodes, two rows; the seen frames of both count alike."""
    common = {
        "rows": np.array([MODEL, CUT]),
        "exact": np.array(True),
        "places_known": np.array(True),
        "features": np.zeros((2, 1, 3)),
        "features_truth": np.zeros((1, 3)),
        "ssim": np.zeros((2, 4)),
    }
    a = common | {"id": np.array("a"), "psnr": np.array([[30.0, 20, 20, 20], [10, 20, 20, 20]])}
    b = common | {"id": np.array("b"), "psnr": np.array([[26.0, 26, 0, 0], [16, 16, 0, 0]])}
    a["distance"], b["distance"] = np.array([3, np.nan, np.nan, np.nan]), np.array([3, 4, np.nan, np.nan])
    figures = summarise(make_task("reasoning", 10, 4), [a, b])
    assert figures["rows"][MODEL]["seen"]["psnr"] == pytest.approx((30 + 26 + 26) / 3)
    assert figures["rows"][MODEL]["unseen"]["psnr"] == pytest.approx(12)
    assert figures["memory_db"] == pytest.approx((30 + 26 + 26) / 3 - (10 + 16 + 16) / 3)
    assert "lpips" not in figures["rows"][MODEL]["all"]
    assert figures["frames_in_part"] == {"all": 8, "seen": 3, "unseen": 5}


def test_a_turn_is_judged_by_its_last_frame() -> None:
    result = {
        "id": np.array("a"),
        "rows": np.array([MODEL, CUT]),
        "exact": np.array(True),
        "places_known": np.array(True),
        "distance": 1 + np.arange(20.0),
        "psnr": np.stack([np.arange(20.0), np.arange(20.0) / 2]),
        "ssim": np.zeros((2, 20)),
        "features": np.zeros((2, 1, 3)),
        "features_truth": np.zeros((1, 3)),
    }
    figures = summarise(make_task("turn", 100, 20), [result, result])
    assert figures["rows"][MODEL]["all"]["psnr"] == 19
    assert figures["rows"][MODEL]["rollouts"]["psnr"] == [19, 19]
    assert figures["memory_db"] == 9.5
    assert figures["frames_in_part"] == {"all": 2}
    assert figures["rows"][MODEL]["frechet"] is None


def test_the_turn_command(workspace: Path, tmp_path: Path) -> None:
    options = ("--checkpoint", "test", "--steps", "1", "--context", "20", "--videos", "0", "--out", str(tmp_path))
    figures = json.loads(lssvwm(workspace, "eval", "turn", *options, "--json").stdout)
    with np.load(tmp_path / "episodes/0000-seed0.npz") as kept:
        assert figures["rows"][MODEL]["all"]["psnr"] == kept["psnr"][0][19]
        assert (kept["psnr"][2] > 70).all()  # the first view is the truth
    assert "turned once around" in (tmp_path / "report.md").read_text()


def test_bins_leave_unknown_distances_out() -> None:
    x, y = binned(np.array([1.0, np.nan, 1.0, 9.0]), np.array([2.0, 50.0, 4.0, 7.0]))
    assert (x, y) == ([1, 9], [3, 7])


def test_the_training_length_is_that_of_the_stages_reached(workspace: Path, tmp_path: Path) -> None:
    assert trained_frames(Run(workspace / "runs/test").world) == 20
    world = tmp_path / "world"
    world.mkdir()
    assert trained_frames(world) is None
    stages = "[{frames = 40, steps = 10, batch_size = 1}, {frames = 80, steps = 10, batch_size = 1}]"
    for steps, frames in ((10, 40), (11, 80)):
        (world / "recipe.toml").write_text(f'preset = "tiny"\n[train]\nsteps = {steps}\nstages = {stages}\n')
        assert trained_frames(world) == frames
