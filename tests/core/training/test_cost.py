"""What is counted without computing is what computing takes."""

from pathlib import Path

import pytest
import torch
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.flop_counter import FlopCounterMode

from lssvwm_core.diffusion import flow_loss
from lssvwm_core.model.config import ModelConfig, preset
from lssvwm_core.model.world_model import WorldModel
from lssvwm_core.training.cost import flops_a_frame, peak_tflops, step_cost
from lssvwm_core.training.metrics import Meter
from tests.conftest import lssvwm


@pytest.fixture
def config() -> ModelConfig:
    return preset("tiny", (4, 4, 4), width=64, depth=2, action_names=("a", "b"), pose_names=("x", "y"))


@pytest.mark.parametrize("checkpointing", [False, True])
def test_a_step_costs_what_it_is_said_to(config: ModelConfig, checkpointing: bool) -> None:
    model, sizes, kept = WorldModel(config), (2, 20), {}
    model.activation_checkpointing = checkpointing
    own = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    alive = []

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        alive.append(tensor)
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    latents, levels = torch.randn(*sizes, *config.latent_shape), torch.rand(*sizes)
    conditions = {name: torch.rand(*sizes, columns) for name, columns in config.streams.items()}
    with FlopCounterMode(display=False) as counter:
        with saved_tensors_hooks(keep, lambda tensor: tensor):
            loss = flow_loss(model, latents, torch.randn_like(latents), levels, conditions, 5)
        loss.backward()
    cost = step_cost(config, *sizes, 5, "fp32", checkpointing)
    assert cost.flops == counter.get_total_flops()
    assert cost.activation_bytes == sum(size for address, size in kept.items() if address not in own)


def test_checkpointing_trades_memory_for_flops(config: ModelConfig) -> None:
    plain, spared = (step_cost(config, 1, 40, 5, "bf16", checkpointing) for checkpointing in (False, True))
    assert spared.activation_bytes < plain.activation_bytes / 4
    assert plain.flops < spared.flops < 1.5 * plain.flops


def test_flops_of_a_frame_are_those_of_long_clips(config: ModelConfig) -> None:
    clip = sum(step_cost(config, 1, 400, chunk).flops for chunk in config.chunk_sizes) / len(config.chunk_sizes)
    assert flops_a_frame(config) == pytest.approx(clip / 400, rel=0.05)


def test_gpus_are_known_by_their_names() -> None:
    assert peak_tflops("NVIDIA H100 80GB HBM3") == 989
    assert peak_tflops("NVIDIA GeForce RTX 4090") == 165
    assert peak_tflops("Tesla K80") is None


def test_the_meter_tells_the_share_of_the_peak() -> None:
    meter = Meter(processes=2, tokens=4, flops=1e9, peak=100.0)
    meter.losses, meter.frames = [1.0], 50
    report = meter.report(1, 0.1, 1.0, 5, 1.0)
    assert report.tokens_per_second == pytest.approx(4 * report.frames_per_second)
    assert report.tflops == pytest.approx(report.frames_per_second / 2 * 1e9 / 1e12)
    assert report.mfu == pytest.approx(report.tflops / 100)
    unknown = Meter(processes=1, tokens=4)
    unknown.losses, unknown.frames = [1.0], 50
    assert unknown.report(1, 0.1, 1.0, 5, 1.0).mfu is None


def test_an_estimate_starts_nothing(workspace: Path, tmp_path: Path) -> None:
    data = str(workspace / "data/maze")
    done = lssvwm(tmp_path, "train", "--data", data, "--estimate", "--clip-frames", "20", "--set", "model.depth=1")
    for words in ("parameters", "TFLOP a step", "activations", "H100", "this CPU"):
        assert words in done.stdout
    assert list(tmp_path.iterdir()) == []
