"""A run's config: every value checked by its declared type, in a message that names where it was found."""

from pathlib import Path

import pytest

from lssvwm_core.presets import PRESETS, Stage
from lssvwm_core.training.run.config import (
    TrainConfig,
    load_run_config,
    make_config,
    parse_override,
    save_run_config,
)
from lssvwm_datasets.errors import LssvwmError

GOLDEN = Path(__file__).parents[2] / "golden/runs/test/config.toml"


@pytest.mark.parametrize(
    ("text", "parsed"),
    [
        ("model.block_sizes=[[2, 2]]", ("model", "block_sizes", ((2, 2),))),
        ("model.mixers=scan", ("model", "mixers", ("scan",))),
        ("model.mlp_ratio=4", ("model", "mlp_ratio", 4.0)),
        ("train.precision=bf16", ("train", "precision", "bf16")),
        ("train.track=wandb", ("train", "track", ("wandb",))),
        ('train.track=["trackio", "wandb"]', ("train", "track", ("trackio", "wandb"))),
        ("train.track=[]", ("train", "track", ())),
        ("train.learning_rate=1e-4", ("train", "learning_rate", 1e-4)),
        (
            "train.stages=[{frames=10, steps=4, batch_size=2}]",
            ("train", "stages", (Stage(10, 4, 2),)),
        ),
    ],
)
def test_overrides_are_values_of_their_fields_type(text: str, parsed: tuple[str, str, object]) -> None:
    assert parse_override(text) == parsed


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("model.depth=2.5", "Expected int, got float"),
        ("model.depth=deep", "Expected int, got str"),
        ("model.pose_address=1", "Expected bool, got int"),
        ("model.block_sizes=[2, 2]", "Expected array, got int"),
        ("model.width=[64]", "Expected int, got array"),
        ("train.learning_rate=nan", "Expected float > 0"),
        ("train.learning_rate=inf", "expected finite numbers, found inf"),
        ("train.learning_rate=-0.1", "Expected float > 0"),
        ("train.steps=1180591620717411303424", "Expected int <= 1000000000"),
        ("train.steps=-1", "Expected int >= 0"),
        ("train.seed=true", "Expected int, got bool"),
        ("train.ema_decay=1.5", "Expected float <= 1"),
        ("train.track=3", "Expected array, got int"),
        ("train.track=[1, 2]", "Expected str, got int"),
        ("train.stages=[]", "length >= 1"),
        ("train.stages=3", "Expected array, got int"),
        ("train.stages=[{frames=10, steps=0, batch_size=2}]", r"Expected int >= 1 - at \$\[0\].steps"),
        ("train.stages=[{frames=10, steps=1}]", "missing required field batch_size"),
        ("train.stages=[{frames=10, steps=1, batch_size=2, size=3}]", "stage 1 has no field 'size'"),
        ("sampling.fold=2", "Expected float <= 1"),
    ],
)
def test_a_wrong_value_is_named_with_its_override(text: str, expected: str) -> None:
    with pytest.raises(LssvwmError, match=expected) as raised:
        parse_override(text)
    assert str(raised.value).startswith(f"--set {text}: ")


@pytest.mark.parametrize("text", ["width=3", "model.width", "other.width=3"])
def test_an_override_names_section_and_field(text: str) -> None:
    with pytest.raises(LssvwmError, match="expected model"):
        parse_override(text)


@pytest.mark.parametrize(
    ("toml", "message"),
    [
        ("[train]\nstep = 3", r"\[train\] has no field 'step'"),
        ("[train]\nseed = 'x'", r"\[train\] seed = 'x': Expected int, got str"),
        ("[train]\nsteps = 1180591620717411303424", "Expected int <= 1000000000"),
        ("[model]\nwidth = -inf", r"\[model\] width = -inf: Expected int"),
        ("[trian]\nseed = 1", r"unknown section \[trian\]"),
        ("train = 3", r"\[train\] is 3, expected a table"),
        ("[train\nseed = 1", "line 1"),
        ("preset = 'huge'", "unknown preset 'huge'"),
        ("preset = 3", "preset: Expected str, got int"),
        ("[train]\nprecision = 'bf8'", r"precision is 'bf8'; expected auto, bf16 or fp32"),
        ("[[train.stages]]\nframes = 0\nsteps = 1\nbatch_size = 1", r"Expected int >= 1 - at \$\[0\].frames"),
    ],
)
def test_a_wrong_file_is_named_with_its_place(tmp_path: Path, toml: str, message: str) -> None:
    file = tmp_path / "config.toml"
    file.write_text(toml)
    with pytest.raises(LssvwmError, match=message):
        make_config("tiny", Path("data"), file)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("seed = 0", "seed = 1180591620717411303424", r"\[train\] seed"),
        ("[train]", "[train]\nsteps_more = 3", "no field 'steps_more'"),
        ("ema_decay = ", "ema_decay = nan  #", r"\[train\] ema_decay = nan"),
        ('preset = "tiny"', "preset = [1]", "preset: Expected str, got array"),
        ("[sampling]", "[sampling]\ndrop_pose = -1\n[old]", r"\[sampling\] drop_pose = -1"),
    ],
)
def test_a_damaged_config_of_a_run_is_named_with_its_place(tmp_path: Path, old: str, new: str, message: str) -> None:
    file, text = tmp_path / "config.toml", GOLDEN.read_text()
    assert old in text
    file.write_text(text.replace(old, new, 1))
    with pytest.raises(LssvwmError, match=message) as raised:
        load_run_config(file)
    assert str(raised.value).startswith(f"{file}: ")


def test_the_config_of_version_0_1_loads_and_is_saved_again_as_it_is(tmp_path: Path) -> None:
    config = load_run_config(GOLDEN)
    save_run_config(tmp_path / "config.toml", config)
    assert load_run_config(tmp_path / "config.toml") == config


def test_a_file_goes_before_the_preset_and_an_override_before_the_file(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_text("preset = 'small'\n[train]\nseed = 1\nwarmup_steps = 7\n")
    config = make_config("tiny", Path("data"), file, ["train.seed=2"], defaults={"warmup_steps": 5, "clip_norm": 2.0})
    assert (config.preset, config.train.seed, config.train.warmup_steps, config.train.clip_norm) == ("small", 2, 7, 2.0)
    assert config.train.learning_rate == PRESETS["small"].learning_rate


def test_stages_end_where_the_training_ends() -> None:
    stages = (Stage(10, 5, 1), Stage(20, 5, 1))
    assert TrainConfig(stages=stages, steps=3).stage_ends() == [(3, stages[0])]
    assert TrainConfig(stages=stages, steps=20).stage_ends() == [(5, stages[0]), (20, stages[1])]
