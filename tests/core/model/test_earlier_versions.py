"""What the code of version 0.1 wrote: worlds, runs and `--set` with the former names of fields (see tests/golden)."""

import json
from pathlib import Path

import pytest

from lssvwm_core.model.config import RENAMED_FIELDS, ModelConfig, with_current_names
from lssvwm_core.model.storage import FORMER_TENSORS, WEIGHTS_FILE
from lssvwm_core.model.tensors import read_header
from lssvwm_core.presets import preset
from lssvwm_core.resolve import shipped_models
from lssvwm_core.training.run.config import load_run_config, make_config
from lssvwm_core.training.run.folder import Run
from lssvwm_core.world import load_model

GOLDEN = Path(__file__).parents[2] / "golden"
RUN = Run(GOLDEN / "runs/test")


@pytest.mark.parametrize("folder", [shipped_models()["maze-world-scan"], RUN.world], ids=["shipped", "of a run"])
def test_a_world_whose_config_has_the_former_names_loads(folder: Path) -> None:
    saved = json.loads((folder / "config.json").read_text())["model"]
    assert set(RENAMED_FIELDS) <= set(saved), "this artefact proves nothing"
    config = load_model(folder)[0].config
    assert (config.d_state, config.headdim) == (saved["state_width"], saved["head_width"])


def test_a_run_whose_config_has_the_former_names_loads() -> None:
    model = load_run_config(RUN.config_file).model
    assert (model["d_state"], model["headdim"]) == (8, 16)
    assert not set(RENAMED_FIELDS) & set(model)


def test_a_world_whose_memory_had_features_loads() -> None:
    """They stood beside the weights, and nobody asks for them any more."""
    folder = shipped_models()["maze-world-4-steps"]
    assert set(FORMER_TENSORS) <= set(read_header(folder / WEIGHTS_FILE).tensors), "this artefact proves nothing"
    model, _, _ = load_model(folder)
    assert model.recall is not None
    assert not set(FORMER_TENSORS) & set(model.state_dict())


def test_both_names_set_the_same_field_and_the_last_word_counts(tmp_path: Path) -> None:
    former, current = (make_config("tiny", tmp_path, None, [f"model.{name}=8"]) for name in ("state_width", "d_state"))
    assert former == current
    file = tmp_path / "old.toml"
    file.write_text("[model]\nstate_width = 8\n")
    assert make_config("tiny", tmp_path, file, ["model.d_state=16"]).model == {"d_state": 16}
    file.write_text("[model]\nd_state = 8\n")
    assert make_config("tiny", tmp_path, file, ["model.state_width=16"]).model == {"d_state": 16}
    assert preset("tiny", (4, 4, 4), state_width=16) == preset("tiny", (4, 4, 4), d_state=16)


def test_every_current_name_is_a_field() -> None:
    assert set(RENAMED_FIELDS.values()) <= set(ModelConfig.__dataclass_fields__)
    assert with_current_names({"width": 8}) == {"width": 8}
