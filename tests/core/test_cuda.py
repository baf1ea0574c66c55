"""On a GPU: the same as on a CPU, and as without CUDA graphs. Skipped where there is none."""

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from accelerate.state import AcceleratorState
from torch import Tensor, nn

from lssvwm_core import scan
from lssvwm_core.conditions import Conditions
from lssvwm_core.cuda_graph import Graphs, Replay, record_graph
from lssvwm_core.diffusion import flow_loss
from lssvwm_core.model.attention import windowed_attention
from lssvwm_core.model.config import ModelConfig
from lssvwm_core.model.recall import NEAREST
from lssvwm_core.model.world_model import WorldModel
from lssvwm_core.rollout import Rollout
from lssvwm_core.scan import mamba_ssm_backend
from lssvwm_core.training.run.folder import Run
from lssvwm_core.world import World, load_world
from tests.core.model.test_recall import direct, recall, walk
from tests.core.scan.test_scan import assert_near, make_inputs, oracle, run
from tests.core.training.test_train import run_training

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")

CUDA = torch.device("cuda")
GOLDEN = Path(__file__).parents[1] / "golden"
TOLERANCE = {"torch": 1e-4, "mamba_ssm": 2e-2}  # the kernels multiply in TF32
LENGTHS = (1, 5, 128, 300)  # in tokens: the kernels' chunks have 128, torch's up to 64
SIZES = (4, 2, 32, 16)  # heads, groups, p, n: p and n those of the models below, as kernels are tuned for each anew


@pytest.fixture(params=list(TOLERANCE))
def backend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The scan's backend, which `auto` chooses as well."""
    name: str = request.param
    missing = mamba_ssm_backend.why_unavailable() if name == "mamba_ssm" else None
    if missing:
        pytest.skip(missing)
    monkeypatch.setattr(scan, "_auto", lambda device_type: name if device_type == "cuda" else "torch")
    return name


def randomised(model: nn.Module) -> nn.Module:
    """Every parameter moved away from its initial value: gates that start at zero would hide what is behind them."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    return model.eval()


@pytest.mark.parametrize("length", LENGTHS)
def test_the_scan_is_the_recurrence(backend: str, length: int) -> None:
    inputs = make_inputs(length, *SIZES, dtype=torch.float32)
    y, state = run({name: tensor.to(CUDA) for name, tensor in inputs.items()}, backend)
    expected_y, expected_state = oracle(inputs)
    assert_near(y.cpu(), expected_y, TOLERANCE[backend])
    assert_near(state.cpu(), expected_state, TOLERANCE[backend])


@pytest.mark.parametrize("length", [5, 300])
def test_the_gradients_of_the_scan_are_those_of_the_recurrence(backend: str, length: int) -> None:
    def gradients(inputs: dict[str, Tensor], backend: str) -> tuple[Tensor, ...]:
        leaves = {name: tensor.detach().requires_grad_() for name, tensor in inputs.items()}
        y, state = run(leaves, backend)
        found: tuple[Tensor, ...] = torch.autograd.grad(y.sin().sum() + state.sin().sum(), list(leaves.values()))
        return found

    inputs = make_inputs(length, *SIZES, dtype=torch.float32)
    found = gradients({name: tensor.to(CUDA) for name, tensor in inputs.items()}, backend)
    expected = gradients({name: tensor.double() for name, tensor in inputs.items()}, "reference")
    for name, one, other in zip(inputs, found, expected, strict=True):
        assert one.isfinite().all(), name
        assert_near(one.cpu(), other, 5 * TOLERANCE[backend])


@pytest.mark.parametrize(("chunk", "window", "unknown"), [(5, 10, 5), (1, 10, 9), (1, 10, 0), (2, 8, 3)])
def test_windowed_attention_is_that_of_a_cpu(chunk: int, window: int, unknown: int) -> None:
    generator = torch.Generator().manual_seed(0)
    query = torch.randn(2, 20, 4, 2, 32, generator=generator)
    keys, values = torch.randn(2, 2, window - chunk + 20, 4, 2, 32, generator=generator).unbind(0)
    expected = windowed_attention(query, keys, values, chunk, window, unknown)
    found = windowed_attention(query.to(CUDA), keys.to(CUDA), values.to(CUDA), chunk, window, unknown)
    torch.testing.assert_close(found.cpu(), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("chunk", [1, 5])
def test_recall_is_a_direct_solve(chunk: int) -> None:
    memory, (poses, latents) = recall(), walk(NEAREST)
    _, state = memory(memory.initial_state(2, CUDA), poses.to(CUDA), latents.to(CUDA), chunk)
    asked = poses + 0.05
    found = memory.read(state, asked.to(CUDA), NEAREST)
    expected, novelty = direct(memory, poses[0], latents[0], torch.ones(NEAREST), asked[0])
    torch.testing.assert_close(found.latents[0].cpu(), expected, atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(found.novelty[0].cpu(), novelty, atol=1e-6, rtol=1e-6)


@pytest.fixture(scope="module")
def config() -> ModelConfig:
    """All there is: both mixers, addresses by poses, an odometer, a memory by least squares."""
    config = load_world(GOLDEN / "runs/test", "cpu").model.config
    return replace(config, width=64, headdim=32, d_state=16, recall=32, recall_ridge=0.1)


@pytest.fixture(scope="module")
def model(config: ModelConfig) -> WorldModel:
    torch.manual_seed(0)
    made = randomised(WorldModel(config))
    assert isinstance(made, WorldModel)
    return made


@pytest.fixture(scope="module")
def world(config: ModelConfig, model: WorldModel) -> World:
    """On the GPU, with nothing recorded."""
    on_gpu = WorldModel(config)
    on_gpu.load_state_dict(model.state_dict())
    return replace(load_world(GOLDEN / "runs/test", CUDA), model=on_gpu.to(CUDA).eval()).sampled_with(steps=2)


def rows(config: ModelConfig, frames: int, batch: int = 1) -> Conditions:
    """Poses of walks, the second half of which are to be reckoned, and random actions."""
    generator = torch.Generator().manual_seed(1)
    poses = walk(frames, batch=batch)[0]
    poses[:, frames // 2 :] = torch.nan
    actions = torch.randn(batch, frames, len(config.action_names), generator=generator).sign().relu()
    return Conditions({"action": actions, "pose": poses})


def test_the_model_and_its_gradients_are_those_of_a_cpu(backend: str, model: WorldModel, config: ModelConfig) -> None:
    generator = torch.Generator().manual_seed(2)
    latents, noise = torch.randn(2, 2, 20, *config.latent_shape, generator=generator).unbind(0)
    levels = torch.rand(2, 20, generator=generator).repeat_interleave(5, dim=1)[:, :20]
    found = []
    for device in (torch.device("cpu"), CUDA):
        own = WorldModel(config)
        own.load_state_dict(model.state_dict())
        inputs = (tensor.to(device) for tensor in (latents, noise, levels))
        loss = flow_loss(own.to(device).train(), *inputs, rows(config, 20, 2).to(device), 5)
        loss.backward()
        found.append((loss.item(), {n: p.grad.cpu() for n, p in own.named_parameters() if p.grad is not None}))
    (expected, gradients), (loss, others) = found
    assert loss == pytest.approx(expected, rel=TOLERANCE[backend])
    assert gradients.keys() == others.keys()
    largest = max(gradient.abs().max() for gradient in gradients.values())
    for name, gradient in gradients.items():
        assert (others[name] - gradient).abs().max() <= 10 * TOLERANCE[backend] * (
            gradient.abs().max() + 1e-2 * largest
        ), name


@torch.inference_mode()
def test_a_stream_in_pieces_is_the_whole(backend: str, world: World) -> None:
    """In float32."""
    latents = torch.randn(1, 40, *world.model.config.latent_shape, generator=torch.Generator().manual_seed(3)).to(CUDA)
    led, levels = rows(world.model.config, 40).to(CUDA), torch.full((1, 40), 0.5, device=CUDA)
    whole, end = world.model(latents, levels, led, chunk=5, remember=latents)
    state, parts = world.model.initial_state(1), []
    for start, stop in ((0, 5), (5, 25), (25, 40)):
        piece = slice(start, stop)
        velocity, state = world.model(latents[:, piece], levels[:, piece], led[piece], state, 5, latents[:, piece])
        parts.append(velocity)
    assert_near(torch.cat(parts, dim=1), whole, TOLERANCE[backend])
    for name, tensor in end.tensors.items():
        torch.testing.assert_close(
            state.tensors[name], tensor, atol=TOLERANCE[backend] * float(tensor.abs().max()), rtol=1e-3, equal_nan=True
        )


class Recorder:
    """Counts what is recorded."""

    def __init__(self) -> None:
        self.recorded = 0

    def __call__(self, function: Callable[[], Tensor]) -> tuple[Replay, Tensor]:
        self.recorded += 1
        return record_graph(function)


def dream(world: World, seeds: tuple[int, ...] = (3,), memory_cut: bool = False, chunks: int = 8) -> Tensor:
    """(B, T, C, h, w) of a rollout, and behind it of a branch, to well past the attention window."""
    rollout, led = Rollout(world, seeds, memory_cut), rows(world.model.config, (chunks + 3) * world.chunk, len(seeds))
    frames = chunks * world.chunk
    found = [chunk.latents for chunk in rollout.run(led[:frames])]
    branch = rollout.branch(world, *(seed + 1 for seed in seeds))
    found += [chunk.latents for one in (branch, rollout) for chunk in one.run(led[frames:])]
    return torch.cat(found, dim=1)


@pytest.mark.parametrize("seeds", [(3,), (3, 4, 5)])
@pytest.mark.parametrize("chunk", [5, 1])
@pytest.mark.parametrize(("memory_cut", "guidance"), [(False, 0.0), (False, 0.7), (True, 0.0)])
def test_a_recorded_rollout_is_that_without_graphs(
    backend: str,
    world: World,
    chunk: int,
    seeds: tuple[int, ...],
    memory_cut: bool,
    guidance: float,
    caplog: pytest.LogCaptureFixture,
) -> None:
    world, recorder, chunks = replace(world, chunk=chunk), Recorder(), 8 if chunk > 1 else 16
    world = world.sampled_with(guidance=guidance)
    expected = dream(replace(world, graphs=None), seeds, memory_cut, chunks)
    found = dream(replace(world, graphs=Graphs(recorder)), seeds, memory_cut, chunks)
    assert "no CUDA graphs" not in caplog.text
    assert recorder.recorded == (0 if memory_cut else 1)  # a cut memory never fills its window
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_the_same_seed_gives_the_same_frames(world: World) -> None:
    world = replace(world, graphs=Graphs())
    first = dream(world)
    assert first.isfinite().all()
    assert torch.equal(dream(world), first)
    assert not torch.equal(dream(world, seeds=(9,)), first)


def test_a_graph_reads_the_weights_as_they_are(world: World, config: ModelConfig) -> None:
    own = WorldModel(config).to(CUDA).eval()
    own.load_state_dict(world.model.state_dict())
    recorder = Recorder()
    changed = replace(world, model=own, graphs=Graphs(recorder))
    before = dream(changed)
    with torch.no_grad():
        for parameter in own.parameters():
            parameter *= 0.9
    after = dream(changed)
    assert recorder.recorded == 1
    assert not torch.equal(before, after)
    torch.testing.assert_close(after, dream(replace(changed, graphs=None)), atol=1e-5, rtol=1e-5)


def test_frames_are_decoded_and_encoded(world: World) -> None:
    state = world.reset()
    frames = world.generate_frames(state, {}, torch.Generator().manual_seed(0))
    assert frames.shape == (1, 5, 64, 64, 3)
    assert world.encode(frames).device.type == "cuda"


@pytest.fixture
def fresh_accelerator() -> Iterator[None]:
    """Accelerate keeps the device of a process's first training, which may have been a CPU."""
    AcceleratorState._reset_state(reset_partial_state=True)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.mark.usefixtures("fresh_accelerator")
def test_interrupted_and_resumed_training_is_uninterrupted_training(golden_copy: Path, tmp_path: Path) -> None:
    """To rounding: gradients are summed in any order."""
    small = ("train.workers=0", "train.log_every=1")
    run_training(golden_copy, tmp_path / "whole", 4, *small, device=CUDA)
    run_training(golden_copy, tmp_path / "parts", 4, *small, stop_after=2, device=CUDA)
    resumed = run_training(golden_copy, tmp_path / "parts", 4, *small, device=CUDA)
    assert (resumed.step, resumed.stopped_by) == (4, "done")
    losses = [
        [json.loads(line)["loss"] for line in Run(tmp_path / name).metrics_file.open()] for name in ("whole", "parts")
    ]
    assert len(losses[0]) == 4
    assert losses[1] == pytest.approx(losses[0], rel=1e-2)
