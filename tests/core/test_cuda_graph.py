"""CUDA graphs, by a recorder that runs the function instead: what is copied where, and when something is recorded.

`test_cuda.py` records real ones, where there is a GPU.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from lssvwm_core import sampling
from lssvwm_core.conditions import Conditions
from lssvwm_core.cuda_graph import MOST_GRAPHS, Graphs, Replay
from lssvwm_core.model.world_model import WorldModel
from lssvwm_core.world import World, load_world

GOLDEN = Path(__file__).parents[1] / "golden"


class Recorder:
    """Fills the same output on every replay, as a graph does, from whatever its inputs hold by then."""

    def __init__(self) -> None:
        self.recorded = self.replayed = 0

    def __call__(self, function: Callable[[], Tensor]) -> tuple[Replay, Tensor]:
        self.recorded += 1
        output = function()

        def replay() -> None:
            self.replayed += 1
            output.copy_(function())

        output.zero_()  # recording computes nothing
        return replay, output


@torch.inference_mode()
def test_what_is_replayed_is_what_the_function_gives() -> None:
    recorder = Recorder()
    graphs, found = Graphs(recorder), []
    for value in range(4):
        inputs = {"a": torch.full((2, 3), float(value)), "b": torch.ones(3)}
        found.append(graphs("key", lambda given: given["a"] + given["b"], inputs))
    assert [tensor[0, 0].item() for tensor in found] == [1, 2, 3, 4], "and earlier results stay as they were"
    assert (recorder.recorded, recorder.replayed) == (1, 3)


@torch.inference_mode()
def test_other_keys_shapes_and_types_are_recorded_apart_and_the_latest_kept() -> None:
    recorder = Recorder()
    graphs = Graphs(recorder)

    def twice(key: str, tensor: Tensor) -> None:
        for _ in range(2):
            assert torch.equal(graphs(key, lambda given: given["a"] * 2, {"a": tensor}), tensor * 2)

    calls = [("x", torch.ones(2)), ("y", torch.ones(2)), ("x", torch.ones(3)), ("x", torch.ones(2).double())]
    for key, tensor in calls * 2:
        twice(key, tensor)
    assert recorder.recorded == len(calls)
    for number in range(MOST_GRAPHS):
        twice(f"further {number}", torch.ones(2))
    assert recorder.recorded == len(calls) + MOST_GRAPHS
    twice(*calls[0])
    assert recorder.recorded == len(calls) + MOST_GRAPHS + 1


@torch.inference_mode()
def test_where_recording_fails_all_goes_on_without(caplog: pytest.LogCaptureFixture) -> None:
    def fail(function: Callable[[], Tensor]) -> tuple[Replay, Tensor]:
        raise RuntimeError("operation not permitted when stream is capturing\nand more")

    graphs = Graphs(fail)
    for key in "aabb":
        assert torch.equal(graphs(key, lambda given: given["a"] + 1, {"a": torch.ones(2)}), torch.full((2,), 2.0))
    assert [record.getMessage() for record in caplog.records] == [
        "no CUDA graphs here, going on without: operation not permitted when stream is capturing"
    ]


@torch.inference_mode()
def test_what_is_wrong_with_a_function_is_raised() -> None:
    graphs = Graphs(Recorder())
    for _ in range(2):
        with pytest.raises(ValueError, match="no such shape"):
            graphs("key", lambda _: (_ for _ in ()).throw(ValueError("no such shape")), {})
        graphs("another", lambda given: given["a"], {"a": torch.ones(1)})


@pytest.fixture(scope="module")
def world() -> World:
    return load_world(GOLDEN / "runs/test", "cpu").sampled_with(steps=2)


def rows(world: World, frames: int) -> Conditions:
    generator = torch.Generator().manual_seed(1)
    return Conditions(
        {name: torch.randn(1, frames, n, generator=generator) for name, n in world.model.config.streams.items()}
    )


def dream(world: World) -> Tensor:
    """Chunks until well past the attention window."""
    rollout, window = world.rollout(seed=3), world.model.config.frame_window
    return torch.cat([chunk.latents for chunk in rollout.run(rows(world, window + 5 * world.chunk))], dim=1)


def test_on_a_cpu_nothing_is_recorded(world: World) -> None:
    recorder = Recorder()
    dream(replace(world, graphs=Graphs(recorder)))
    assert recorder.recorded == 0


@pytest.mark.parametrize("recall", [0, 32])
@pytest.mark.parametrize("guidance", [0.0, 0.7])
def test_a_recorded_rollout_gives_what_any_gives(
    world: World, monkeypatch: pytest.MonkeyPatch, guidance: float, recall: int
) -> None:
    """All that changes from chunk to chunk is among what is copied."""
    model = WorldModel(replace(world.model.config, recall=recall)).eval()
    model.load_state_dict(model.state_dict() | world.model.state_dict())
    world = replace(world, model=model).sampled_with(guidance=guidance)
    expected, recorder = dream(replace(world, graphs=None)), Recorder()
    monkeypatch.setattr(sampling, "GRAPHS_ON", "cpu")
    monkeypatch.setattr(torch.cuda, "device", lambda _: torch.inference_mode())
    assert torch.equal(dream(replace(world, graphs=Graphs(recorder))), expected)
    assert (recorder.recorded, recorder.replayed) == (1, 4)
