"""What a saved state may hold, and that states saved by version 0.1 come back as they were."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from lssvwm_core.conditions import Conditions
from lssvwm_core.model.state import MAX_FRAMES_SEEN, METADATA_KEY, ModelState
from lssvwm_core.model.world_model import WorldModel
from lssvwm_core.training.run.folder import Run
from lssvwm_core.world import load_model
from lssvwm_datasets.errors import LssvwmError

GOLDEN = Path(__file__).parents[2] / "golden"
SAVED = GOLDEN / "state.safetensors"


@pytest.fixture(scope="module")
def model() -> WorldModel:
    return load_model(Run(GOLDEN / "runs/test").world)[0]


@pytest.fixture
def state(model: WorldModel) -> ModelState:
    return model.initial_state(1)


def saved_otherwise(path: Path, changes: dict[str, Tensor], frames_seen: object = 40) -> Path:
    """The saved state with other tensors, or another count of frames."""
    save_file(load_file(SAVED) | changes, path, {METADATA_KEY: json.dumps({"frames_seen": frames_seen})})
    return path


@pytest.mark.parametrize(("file", "frames"), [("state.safetensors", 40), ("slots/moment.safetensors", 46)])
def test_a_state_of_version_0_1_comes_back_bit_by_bit(
    state: ModelState, tmp_path: Path, file: str, frames: int
) -> None:
    extra = state.restore(GOLDEN / file)
    found = state.tensors | {f"extra.{name}": tensor for name, tensor in extra.items()}
    if state.recent.frames:
        found |= {f"extra.recent.{name}": rows for name, rows in state.recent.conditions.items()}
        found["extra.latents"] = state.recent.latents
    expected = load_file(GOLDEN / file)
    assert state.frames_seen == frames
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name].view(torch.uint8), tensor.view(torch.uint8)), name
    state.save(tmp_path / "again.safetensors", extra)
    assert load_file(tmp_path / "again.safetensors").keys() == expected.keys()


def test_what_was_restored_does_not_need_its_file_any_more(state: ModelState, tmp_path: Path) -> None:
    path = saved_otherwise(tmp_path / "state.safetensors", {})
    extra = state.restore(path)
    kept = {name: tensor.clone() for name, tensor in (state.tensors | extra).items()}
    path.write_bytes(b"\xff" * path.stat().st_size)  # in place: the same inode
    for name, tensor in (state.tensors | extra).items():
        assert torch.equal(tensor, kept[name])


@pytest.mark.parametrize("number", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("name", ["mixers.0.scan", "mixers.3.values", "mixers.4.pose", "extra.pose"])
def test_numbers_that_are_not_finite_are_refused_but_nan_where_it_stands_for_unknown(
    state: ModelState, tmp_path: Path, name: str, number: float
) -> None:
    changed = load_file(SAVED)[name]
    changed.view(-1)[-1] = number
    path = saved_otherwise(tmp_path / "state.safetensors", {name: changed})
    before = state.copy()
    if number != number and name.endswith("pose"):  # dead reckoning may have lost its way
        extra = {f"extra.{key}": tensor for key, tensor in state.restore(path).items()}
        assert (state.tensors | extra)[name].view(-1)[-1].isnan()
        return
    with pytest.raises(LssvwmError, match=f"{path}: damaged: {name} has numbers that are not finite"):
        state.restore(path)
    torch.testing.assert_close(state.tensors, before.tensors, rtol=0, atol=0)
    assert state.frames_seen == 0


@pytest.mark.parametrize("frames_seen", [-1, 2**53, 2**70, 1.5, True, "40", None, [40]])
def test_a_count_of_frames_that_cannot_be_is_refused(state: ModelState, tmp_path: Path, frames_seen: object) -> None:
    path = saved_otherwise(tmp_path / "state.safetensors", {}, frames_seen)
    with pytest.raises(LssvwmError, match=rf"{path}: .*frames_seen"):
        state.restore(path)


@pytest.mark.parametrize("left", [0, 1, 3, 2**52])
def test_a_state_that_can_be_loaded_can_be_saved_and_loaded_again(
    model: WorldModel, state: ModelState, tmp_path: Path, left: int
) -> None:
    """Whatever count of frames its file claims."""
    state.restore(saved_otherwise(tmp_path / "state.safetensors", {}, MAX_FRAMES_SEEN - left))
    chunk = model.config.chunk_sizes[0]
    latents = torch.zeros(1, chunk, *model.config.latent_shape)
    conditions = Conditions({name: torch.zeros(1, chunk, width) for name, width in model.config.streams.items()})
    with torch.inference_mode():
        for _ in range(2):
            _, state = model(latents, torch.zeros(1, chunk), conditions, state, chunk, latents, 0.0)
    state.save(tmp_path / "later.safetensors")
    again = model.initial_state(1)
    again.restore(tmp_path / "later.safetensors")
    assert again.frames_seen == MAX_FRAMES_SEEN - max(0, left - 2 * chunk)
    torch.testing.assert_close(again.tensors, state.tensors, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("metadata", ["", "null", "[]", "{" * 100_000, '{"frames_seen": Infinity}', "40"])
def test_a_head_that_is_none_is_refused(state: ModelState, tmp_path: Path, metadata: str) -> None:
    path = tmp_path / "state.safetensors"
    save_file(load_file(SAVED), path, {METADATA_KEY: metadata})
    with pytest.raises(LssvwmError, match=f"{path}: {METADATA_KEY}: "):
        state.restore(path)


def test_precisions_are_converted_and_other_types_refused(state: ModelState, tmp_path: Path) -> None:
    tensor = load_file(SAVED)["mixers.0.scan"]
    state.restore(saved_otherwise(tmp_path / "half.safetensors", {"mixers.0.scan": tensor.half()}))
    assert torch.equal(state.mixers[0]["scan"], tensor.half().float())
    for other in (tensor.int(), tensor > 0):
        path = saved_otherwise(tmp_path / "other.safetensors", {"mixers.0.scan": other})
        with pytest.raises(LssvwmError, match=rf"\(mixers.0.scan is {other.dtype}, expected torch.float32\)"):
            state.restore(path)
