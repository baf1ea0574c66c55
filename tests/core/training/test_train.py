"""Training: interrupted equals uninterrupted, several processes, refusals."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import h5py
import pytest
import torch
from safetensors.torch import load_file

from lssvwm_core.presets import Stage
from lssvwm_core.training.data.odometry import odometry_fields
from lssvwm_core.training.data.recall_lengths import fit_recall_lengths
from lssvwm_core.training.loop import Finished, train
from lssvwm_core.training.run.config import TrainConfig, load_run_config, make_config
from lssvwm_core.training.run.folder import Run, run_facts
from lssvwm_core.training.run.setup import model_config, open_run
from lssvwm_core.training.step.train_step import schedule
from lssvwm_core.world import load_model
from lssvwm_datasets.errors import LssvwmError
from lssvwm_datasets.shards import open_shards

CPU = torch.device("cpu")
SMALL = ["model.width=64", "model.depth=2", "model.headdim=32", "model.d_state=16", "train.log_every=2"]
CLIPS = "train.stages=[{frames=10, steps=4, batch_size=2}, {frames=20, steps=20, batch_size=1}]"


def run_training(
    workspace: Path,
    folder: Path,
    steps: int,
    *overrides: str,
    stop_after: int | None = None,
    device: torch.device = CPU,
    init_from: Path | None = None,
) -> Finished:
    torch.set_num_threads(1)
    data = workspace / "data/maze"
    settings = [*SMALL, CLIPS, f"train.steps={steps}", *overrides]
    run, config = open_run(folder, make_config("tiny", data, None, settings), resume=True)
    reached = 0

    def stop() -> str | None:
        return "SIGTERM" if stop_after is not None and reached >= stop_after else None

    for event in train(run, config, device, init_from=init_from, stop=stop):
        reached = event.step
    assert isinstance(event, Finished)
    return event


def test_interrupted_and_resumed_is_bit_identical_to_uninterrupted(workspace: Path, tmp_path: Path) -> None:
    run_training(workspace, tmp_path / "whole", 8)
    stopped = run_training(workspace, tmp_path / "parts", 8, stop_after=4)
    assert (stopped.step, stopped.stopped_by) == (4, "SIGTERM")
    resumed = run_training(workspace, tmp_path / "parts", 8)
    assert (resumed.step, resumed.stopped_by) == (8, "done")
    whole, parts = Run(tmp_path / "whole"), Run(tmp_path / "parts")
    assert whole.last is not None
    assert parts.last is not None
    for file in ("model/model.safetensors", "training_state/raw.safetensors"):
        assert (whole.last / file).read_bytes() == (parts.last / file).read_bytes()
    losses = [[json.loads(line)["loss"] for line in run.metrics_file.open()] for run in (whole, parts)]
    assert losses[0] == losses[1]
    assert len(losses[0]) == 4


def test_kill_loses_only_what_came_after_the_checkpoint(workspace: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    run_training(workspace, folder, 4)
    run = Run(folder)
    with run.metrics_file.open("a") as file:  # as a run killed at step 6 leaves it, its last line cut off
        file.write('{"step": 6, "loss": 9}\n{"step": 7, "lo')
    (run.checkpoints / ".000006.partial" / "model").mkdir(parents=True)
    run_training(workspace, folder, 8)
    assert [json.loads(line)["step"] for line in run.metrics_file.open()] == [2, 4, 6, 8]


def test_checkpoint_holds_an_average_that_is_a_world(workspace: Path, tmp_path: Path) -> None:
    run_training(workspace, tmp_path / "run", 4, "train.ema_decay=0.9")
    last = Run(tmp_path / "run").last
    assert last is not None
    raw, average = load_file(last / "training_state/raw.safetensors"), load_file(last / "model/model.safetensors")
    assert raw.keys() == average.keys()
    assert any(not torch.equal(raw[name], average[name]) for name in raw)


@pytest.mark.parametrize("recall", [0, 64])
def test_few_weights_learn_where_few_are_to_and_go_on_after_a_stop(
    workspace: Path, tmp_path: Path, recall: int
) -> None:
    shape, start = f"model.recall={recall}", Run(tmp_path / "start")
    run_training(workspace, start.folder, 4, shape)
    settings = (shape, "train.few=true", "train.warmup_steps=0", "train.ema_decay=0.5")
    run_training(workspace, tmp_path / "whole", 4, *settings, init_from=start.world)
    assert run_training(workspace, tmp_path / "parts", 4, *settings, init_from=start.world, stop_after=2).step == 2
    assert run_training(workspace, tmp_path / "parts", 4, *settings).step == 4
    runs = [Run(tmp_path / name).world / "model.safetensors" for name in ("start", "whole", "parts")]
    before, whole, parts = (load_file(file) for file in runs)
    torch.testing.assert_close(whole, parts, rtol=0, atol=0)
    changed = {name for name, tensor in whole.items() if not torch.equal(tensor, before[name])}
    readers = {"embed_recollection.weight", "gate.weight"} if recall else set()
    vectors = {name for name, tensor in whole.items() if tensor.ndim == 1}
    assert readers <= changed <= vectors | readers
    assert len(changed) > len(vectors) / 2


def test_a_memory_may_keep_more_frames_than_that_of_the_world_it_begins_with(workspace: Path, tmp_path: Path) -> None:
    start = Run(tmp_path / "start")
    run_training(workspace, start.folder, 2, "model.recall=32")
    run_training(workspace, tmp_path / "more", 2, "model.recall=64", init_from=start.world)
    assert load_model(Run(tmp_path / "more").world)[0].config.recall == 64
    with pytest.raises(LssvwmError, match="its model differs from this run's"):
        run_training(workspace, tmp_path / "none", 2, "model.recall=0", init_from=start.world)


def test_few_weights_need_a_world_to_begin_with(workspace: Path, tmp_path: Path) -> None:
    with pytest.raises(LssvwmError, match=r"run: train.few adapts a world, and there is none yet; .* --init-from"):
        run_training(workspace, tmp_path / "run", 2, "train.few=true")
    assert not Run(tmp_path / "run").checkpoints.exists()


def test_learning_falls_below_the_start(workspace: Path, tmp_path: Path) -> None:
    run_training(workspace, tmp_path / "run", 24, "train.warmup_steps=5", "train.learning_rate=0.003")
    losses = [json.loads(line)["loss"] for line in Run(tmp_path / "run").metrics_file.open()]
    assert losses[-1] < 0.95 * losses[0]


def test_loss_not_finite_stops_and_keeps_the_last_checkpoint(workspace: Path, tmp_path: Path) -> None:
    wild = ("train.learning_rate=1e30", "train.checkpoint_every=1", "train.warmup_steps=0", "train.weight_decay=0")
    with pytest.raises(LssvwmError, match=r"not finite; stopped\. The last good checkpoint is .*00000\d"):
        run_training(workspace, tmp_path / "run", 8, *wild)
    assert Run(tmp_path / "run").last is not None


def test_accumulation_averages_the_batches_of_a_step(workspace: Path, tmp_path: Path) -> None:
    losses = {}
    for batches in (1, 2):
        folder = tmp_path / str(batches)
        assert run_training(workspace, folder, 4, f"train.accumulate={batches}").step == 4
        losses[batches] = [json.loads(line)["loss"] for line in Run(folder).metrics_file.open()]
    assert losses[1] != losses[2]
    assert losses[2][0] == pytest.approx(2, abs=0.3), "a mean of two batches, not their sum"


def test_a_sample_that_fails_does_not_end_the_training(workspace: Path, tmp_path: Path) -> None:
    def fail(*_: object) -> None:
        raise LssvwmError("no validation split")

    data = workspace / "data/maze"
    settings = [*SMALL, CLIPS, "train.steps=3", "train.sample_every=1"]
    run, config = open_run(tmp_path / "run", make_config("tiny", data, None, settings))
    *_, end = train(run, config, CPU, make_sample=fail)
    assert end == Finished(3, "done")


def test_data_of_another_kind_is_refused(workspace: Path, tmp_path: Path) -> None:
    run_training(workspace, tmp_path / "run", 2)
    data = tmp_path / "other"
    shutil.copytree(workspace / "data/maze", data)
    for shard in data.glob("*.h5"):
        with h5py.File(shard, "a") as file:
            file.attrs["action_names"] = json.dumps(["a", "b", "c", "d", "e", "f"])
    index = json.loads((data / "dataset.json").read_text())
    (data / "dataset.json").write_text(json.dumps(index | {"action_names": ["a", "b", "c", "d", "e", "f"]}))
    run, config = open_run(tmp_path / "run", load_run_config(tmp_path / "run/config.toml"), resume=True)
    with pytest.raises(LssvwmError, match="actions"):
        list(train(run, replace(config, data=str(data)), CPU))


def test_a_run_keeps_its_settings(workspace: Path, tmp_path: Path) -> None:
    run_training(workspace, tmp_path / "run", 2)
    with pytest.raises(LssvwmError, match=r"\(train.learning_rate: 0.001, now 0.5\)"):
        run_training(workspace, tmp_path / "run", 4, "train.learning_rate=0.5")
    other = make_config("tiny", workspace / "data/maze", None, ["train.steps=9"])
    _, adopted = open_run(tmp_path / "run", other, adopt=True)
    assert adopted.model["width"] == 64
    assert adopted.train.steps == 9
    with pytest.raises(LssvwmError, match="there is a run already"):
        open_run(tmp_path / "run", load_run_config(tmp_path / "run/config.toml"), resume=False)


def test_saved_config_rebuilds_the_identical_model(workspace: Path, tmp_path: Path) -> None:
    run_training(workspace, tmp_path / "run", 2)
    shards = open_shards(workspace / "data/maze", "train")
    config = load_run_config(tmp_path / "run/config.toml")
    last = Run(tmp_path / "run").last
    assert last is not None
    lengths = fit_recall_lengths(shards, model_config(config, shards.header))
    measured = {**odometry_fields(shards), "recall_lengths": lengths}
    assert model_config(config, shards.header, measured) == load_model(last / "model")[0].config
    assert config.train.stages == (Stage(10, 4, 2), Stage(20, 20, 1))


def test_a_world_of_no_run_has_its_folders_name() -> None:
    facts = run_facts(Path("/world"))
    assert (facts.title, facts.step) == ("world", None)


def test_schedule_warms_up_and_falls_to_zero() -> None:
    config = TrainConfig(stages=(Stage(10, 100, 1),), warmup_steps=10, decay_share=0.5)
    rates = [schedule(step, config) for step in range(100)]
    assert rates[0] == pytest.approx(0.1)
    assert max(rates) == 1.0
    assert rates[-1] == pytest.approx(0.02)
    assert rates[10:50] == [1.0] * 40
