"""A world model with a memory by least squares: pieces, causality, states, and what it starts as."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from lssvwm_core.model.config import ModelConfig
from lssvwm_core.model.world_model import WorldModel

ODOMETRY = ((0.1, 0.0, 0.2), (0.1, 0.0, -0.2), (0.3, 0.0, 0.0))


@pytest.fixture(scope="module")
def config(config: ModelConfig) -> ModelConfig:
    return replace(config, pose_names=("x", "y", "cos", "sin"), odometry=ODOMETRY, recall=16, recall_ridge=0.1)


@pytest.fixture(scope="module")
def model(config: ModelConfig, randomised: Callable[..., WorldModel]) -> WorldModel:
    torch.manual_seed(0)
    return randomised(WorldModel(config))


@pytest.fixture
def clip(normal: Callable[..., Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
    """20 frames of two worlds; the second half of the poses is to be reckoned."""
    poses = normal(2, 20, 4, seed=1)
    poses[:, 10:] = torch.nan
    return normal(2, 20, 3, 4, 4).half().float(), {"pose": poses, "action": normal(2, 20, 3, seed=2).sign().relu()}


@torch.no_grad()
@pytest.mark.parametrize("pieces", [[5, 15], [10, 5, 5]])
def test_pieces_are_the_whole(model: WorldModel, clip: tuple[Tensor, dict[str, Tensor]], pieces: list[int]) -> None:
    latents, conditions = clip
    levels = torch.full((2, 20), 0.5)
    whole, end = model(latents, levels, conditions, chunk=5, remember=latents)
    state, start, parts = model.initial_state(2), 0, []
    for count in pieces:
        rows = slice(start, start + count)
        now = {name: stream[:, rows] for name, stream in conditions.items()}
        velocity, state = model(latents[:, rows], levels[:, rows], now, state, 5, latents[:, rows])
        parts.append(velocity)
        start += count
    torch.testing.assert_close(torch.cat(parts, dim=1), whole, atol=1e-4, rtol=1e-4)
    for name, tensor in end.tensors.items():
        torch.testing.assert_close(state.tensors[name], tensor, atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_training_computes_what_a_rollout_does(model: WorldModel, clip: tuple[Tensor, dict[str, Tensor]]) -> None:
    latents, conditions = clip
    levels = torch.full((2, 20), 0.5)
    expected, _ = model(latents, levels, conditions, chunk=5, remember=latents)
    model.train()
    found, _ = model(latents, levels, conditions, chunk=5, remember=latents)
    model.eval()
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_a_recollection_is_looked_up_once(model: WorldModel, clip: tuple[Tensor, dict[str, Tensor]]) -> None:
    latents, conditions = clip
    first, last = ({name: rows[:, part] for name, rows in conditions.items()} for part in (slice(15), slice(15, 20)))
    _, state = model(latents[:, :15], torch.zeros(2, 15), first, chunk=5, remember=latents[:, :15])
    levels = torch.full((2, 5), 0.5)
    expected, _ = model(latents[:, 15:], levels, last, state, 5)
    recollection = model.recollect(state, last, 5)
    found, _ = model(latents[:, 15:], levels, last, state, 5, recollection=recollection)
    assert torch.equal(found, expected)


@torch.no_grad()
def test_what_is_remembered_later_changes_nothing_before(
    model: WorldModel, clip: tuple[Tensor, dict[str, Tensor]], normal: Callable[..., Tensor]
) -> None:
    latents, conditions = clip
    levels, other = torch.full((2, 20), 0.5), latents.clone()
    other[:, 10:15] = normal(2, 5, 3, 4, 4, seed=9)
    one, two = (model(latents, levels, conditions, chunk=5, remember=seen)[0] for seen in (latents, other))
    assert torch.equal(one[:, :15], two[:, :15])
    assert not torch.allclose(one[:, 15:], two[:, 15:])


@torch.no_grad()
def test_without_anything_to_remember_the_state_is_only_read(
    model: WorldModel, clip: tuple[Tensor, dict[str, Tensor]]
) -> None:
    latents, conditions = clip
    clean = torch.zeros(2, 15)
    first = {name: rows[:, :15] for name, rows in conditions.items()}
    _, state = model(latents[:, :15], clean, first, chunk=5, remember=latents[:, :15])
    last = {name: rows[:, 15:] for name, rows in conditions.items()}
    levels = torch.full((2, 5), 0.5)
    read, after = model(latents[:, 15:], levels, last, state, 5)
    written, _ = model(latents[:, 15:], levels, last, state, 5, latents[:, 15:])
    torch.testing.assert_close(read, written, atol=1e-5, rtol=1e-5)
    for name, tensor in state.mixers[-1].items():
        assert torch.equal(after.mixers[-1][name], tensor)


@torch.no_grad()
def test_it_starts_as_the_model_without(config: ModelConfig, clip: tuple[Tensor, dict[str, Tensor]]) -> None:
    """A trained world can be given a memory, and goes on as it was until it has learnt to use it."""
    latents, conditions = clip
    torch.manual_seed(0)
    without = WorldModel(replace(config, recall=0)).eval()
    given = WorldModel(config).eval()
    missing, unexpected = given.load_state_dict(without.state_dict(), strict=False)
    assert all(name.startswith(("recall.", "embed_recollection.", "gate.")) for name in missing)
    assert not unexpected
    levels = torch.full((2, 20), 0.5)
    expected, _ = without(latents, levels, conditions, chunk=5)
    assert torch.equal(given(latents, levels, conditions, chunk=5, remember=latents)[0], expected)


@torch.no_grad()
def test_the_memory_is_saved_and_of_one_size(
    model: WorldModel, clip: tuple[Tensor, dict[str, Tensor]], tmp_path: Path
) -> None:
    latents, conditions = clip
    _, state = model(latents, torch.zeros(2, 20), conditions, chunk=5, remember=latents)
    assert state.nbytes == model.initial_state(2).nbytes
    state.save(tmp_path / "state.safetensors")
    loaded = model.initial_state(2)
    loaded.restore(tmp_path / "state.safetensors")
    for name, tensor in state.tensors.items():
        assert torch.equal(loaded.tensors[name].nan_to_num(7.0), tensor.nan_to_num(7.0))


@pytest.mark.parametrize(
    "wrong",
    [
        {"recall": 4},  # a chunk has 5
        {"recall": 2**21},
        {"recall": -2},
        {"recall_lengths": (1.0, 0.1)},
        {"recall_ridge": 0.0},
        {"pose_names": (), "odometry": ()},
    ],
)
def test_settings_that_do_not_fit_are_refused(config: ModelConfig, wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="recall"):
        replace(config, **wrong)
