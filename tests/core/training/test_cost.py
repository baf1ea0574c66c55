"""What is counted without computing is what computing takes."""

import contextlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.flop_counter import FlopCounterMode

from lssvwm_core.compat import flops_of_attention
from lssvwm_core.diffusion import flow_loss
from lssvwm_core.model.config import ModelConfig
from lssvwm_core.model.variants import parameters
from lssvwm_core.model.world_model import WorldModel
from lssvwm_core.presets import preset
from lssvwm_core.training.run.config import make_config
from lssvwm_core.training.step.cost import find_gpus, flops_a_frame, peak_tflops, step_cost
from lssvwm_core.training.step.metrics import Meter
from lssvwm_core.training.step.train_step import StepResult
from tests.conftest import lssvwm


@pytest.fixture
def config() -> ModelConfig:
    return preset("tiny", (4, 4, 4), width=64, depth=2, action_names=("a", "b"), pose_names=("x", "y"))


def loss_of(model: WorldModel, frames: int) -> torch.Tensor:
    shape = (2, frames)
    latents, levels = torch.randn(*shape, *model.config.latent_shape), torch.rand(*shape)
    conditions = {name: torch.rand(*shape, columns) for name, columns in model.config.streams.items()}
    return flow_loss(model, latents, torch.randn_like(latents), levels, conditions, 5)


def test_a_step_costs_what_it_is_said_to(config: ModelConfig) -> None:
    model, kept, alive = WorldModel(config), {}, []
    own = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        alive.append(tensor)
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    flops = {}
    for checkpointing in (False, True):
        model.activation_checkpointing = checkpointing
        with FlopCounterMode(display=False, custom_mapping=flops_of_attention()) as counter:
            with contextlib.nullcontext() if checkpointing else saved_tensors_hooks(keep, lambda tensor: tensor):
                loss = loss_of(model, 20)
            loss.backward()
        flops[checkpointing] = counter.get_total_flops()
    cost = step_cost(config, 2, 20, 5, "fp32")
    assert cost.flops == flops[False]
    assert cost.flops + cost.recomputed_flops == flops[True]
    assert cost.activation_bytes == sum(size for address, size in kept.items() if address not in own)


def test_attention_and_mlp_are_counted_as_by_hand(config: ModelConfig) -> None:
    """Every token has a window of keys, to score and to mix; a product of (m, k) and (k, n) takes 2mkn.

    Five frames share their keys, whatever the chunk.
    """
    frames, width, in_a_frame = 40, config.width, config.grid[0] * config.grid[1]
    tokens = config.depth * frames * in_a_frame
    for chunk in config.chunk_sizes:
        keys = (config.frame_window - chunk + 5) * in_a_frame
        found = step_cost(config, 1, frames, chunk).forward_flops
        assert found["attention"] == 2 * tokens * width * (3 * width + 2 * keys + width)
        assert found["mlp"] == 2 * tokens * width * 2 * round(config.mlp_ratio * width)


@pytest.mark.parametrize("deep_within", ["layers.0.mlp_in", "layers.1.mixers.0", "layers.1"])
@pytest.mark.parametrize("other", ["counts", "trains"])
def test_what_another_thread_calls_meanwhile_is_not_counted(
    config: ModelConfig, deep_within: str, other: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other thread's modules have the same names, and it is done with all of them while one is being counted."""
    alone, larger = step_cost(config, 1, 20, 5), replace(config, width=128)
    others = {
        "counts": lambda: step_cost(larger, 1, 20, 5),
        "trains": lambda: loss_of(WorldModel(larger), 20).backward(),
    }
    calls: list[str] = []

    def interrupted(model: WorldModel, *arguments: Any) -> torch.Tensor:
        def interrupt(*_: object) -> None:
            if not calls:  # and not in the other thread either
                calls.append(deep_within)
                with ThreadPoolExecutor(1) as pool:
                    pool.submit(others[other]).result()

        model.get_submodule(deep_within).register_forward_pre_hook(interrupt)
        return flow_loss(model, *arguments)

    monkeypatch.setattr("lssvwm_core.training.step.cost.flow_loss", interrupted)
    assert step_cost(config, 1, 20, 5) == alone
    assert calls == [deep_within]


def test_checkpointing_trades_memory_for_flops(config: ModelConfig) -> None:
    shallow, deep = (step_cost(replace(config, depth=depth), 1, 40, 5) for depth in (4, 8))
    assert deep.checkpointed_bytes < deep.activation_bytes / 3
    assert 0.2 * deep.flops < deep.recomputed_flops < 0.4 * deep.flops
    inputs = 4 * 40 * config.grid[0] * config.grid[1] * config.width  # of a layer
    assert deep.checkpointed_bytes - shallow.checkpointed_bytes == 4 * inputs


def test_flops_of_a_frame_are_those_of_long_clips(config: ModelConfig) -> None:
    config = replace(config, recall=0)  # which is left out
    clip = sum(step_cost(config, 1, 400, chunk).flops for chunk in config.chunk_sizes) / len(config.chunk_sizes)
    assert flops_a_frame(config) == pytest.approx(clip / 400, rel=0.05)


@pytest.mark.parametrize("chunks", [(5, 3), (3, 4, 7), (9, 10)])
def test_chunk_sizes_that_divide_no_common_clip_are_counted(config: ModelConfig, chunks: tuple[int, ...]) -> None:
    each = [flops_a_frame(replace(config, chunk_sizes=(chunk,))) for chunk in chunks]
    assert flops_a_frame(replace(config, chunk_sizes=chunks)) == pytest.approx(sum(each) / len(each))


def test_gpus_are_known_by_their_names() -> None:
    assert peak_tflops("NVIDIA H100 80GB HBM3") == 989
    assert peak_tflops("NVIDIA GeForce RTX 4090") == 165
    assert peak_tflops("NVIDIA H100 PCIe") == 756
    assert peak_tflops("NVIDIA A100-SXM4-80GB") == 312
    assert peak_tflops("NVIDIA L40") is None
    assert peak_tflops("Tesla K80") is None
    assert list(find_gpus("4090")) == list(find_gpus("rtx 4090")) == ["RTX 4090"]
    assert list(find_gpus("h100")) == ["H100"]


def test_the_meter_tells_the_share_of_the_peak() -> None:
    meter = Meter(processes=2, tokens=4, flops=1e9, peak=100.0)
    meter.losses, meter.frames = [1.0], 50
    report = meter.report(1, StepResult(1.0, 1.0, 0.1, 5), 1.0)
    assert report.tokens_per_second == pytest.approx(4 * report.frames_per_second)
    assert report.tflops == pytest.approx(report.frames_per_second / 2 * 1e9 / 1e12)
    assert report.mfu == pytest.approx(report.tflops / 100)
    unknown = Meter(processes=1, tokens=4)
    unknown.losses, unknown.frames = [1.0], 50
    assert unknown.report(1, StepResult(1.0, 1.0, 0.1, 5), 1.0).mfu is None


def test_an_estimate_starts_nothing(workspace: Path, tmp_path: Path) -> None:
    data = str(workspace / "data/maze")
    small = ("train", "--data", data, "--estimate", "--clip-frames", "20", "--set", "model.depth=1")
    done = lssvwm(tmp_path, *small, "--gpu", "A100")
    for words in ("parameters", "TFLOP a step", "activations", "scan ", "attention ", "  A100 ", "this CPU"):
        assert words in done.stdout
    assert "H100" not in done.stdout
    assert "H100, H100 PCIe" in lssvwm(tmp_path, *small, "--gpu", "K80", fails=True).stderr
    assert list(tmp_path.iterdir()) == []


def test_base_is_the_papers(workspace: Path, tmp_path: Path) -> None:
    """200M parameters, clips of 400 frames, then of 800."""
    config = make_config("base", workspace / "data/maze", None, [])
    assert [stage.frames for stage in config.train.stages] == [400, 800]
    model = preset("base", (32, 4, 4), pose_names=("x", "y", "cos", "sin"))
    assert parameters(model) == pytest.approx(200e6, rel=0.05)
