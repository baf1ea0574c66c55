"""What things cost (the paper's figure 8): a training step, a generated frame, a scan, a batch, against frames.

Every point is the median of several measurements. The sizes take turns, so that whatever else the machine does falls on
all of them alike, and the ratios are of one run.
"""

import itertools
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lssvwm_core.bench import attention
from lssvwm_core.bench.costs import Point
from lssvwm_core.conditions import Conditions
from lssvwm_core.device import autocast, fastest_precision, training_precision
from lssvwm_core.diffusion import flow_loss, sample_noise_levels
from lssvwm_core.model.config import ModelConfig
from lssvwm_core.model.state import ModelState, state_name
from lssvwm_core.model.variants import variant
from lssvwm_core.model.world_model import WorldModel
from lssvwm_core.presets import Stage, preset
from lssvwm_core.sampling import Euler, denoise
from lssvwm_core.scan import ssd_scan
from lssvwm_core.training.data.clips import ClipDataset, ClipSampling
from lssvwm_core.training.step.cost import step_cost
from lssvwm_core.world import compile_where_possible
from lssvwm_datasets.shards import open_shards
from lssvwm_datasets.sources import TRAIN
from lssvwm_datasets.streams import STREAMS, columns_of

LATENT_SHAPE = (32, 4, 4)  # of the shipped autoencoder
POSE_NAMES = ("x", "y", "cos", "sin")  # a place on the ground and a heading, as most environments have
COMPARED = ("ours", "mamba2", "mamba2-local", "causal-window", "causal-full")
OBSERVED_AT_ONCE = 100  # frames
MATMUL_SIDE = (1024, 8192)  # of matrices, on CPUs and GPUs
Measure = Callable[[], object]


@dataclass(frozen=True)
class BenchOptions:
    frames: tuple[int, ...]
    """Where to measure, ascending: frames of a clip, or generated so far."""
    preset: str = "tiny"
    variants: tuple[str, ...] = COMPARED
    repeats: int = 3
    limit: float = 60.0
    """Seconds; sizes of which one measurement takes longer, or more memory than there is, are left out."""
    steps: int = 8
    """Denoising steps a chunk."""
    clip_frames: int = 800
    """Length of the training clips, which sets the window of causal-window."""
    model: dict[str, Any] = field(default_factory=dict)
    """Fields of the model that differ from the preset's."""
    compile: bool = False
    """Compile the layers before training steps and frames are measured (torch.compile)."""

    def config(self) -> ModelConfig:
        """The model that is measured, on latents of the shipped autoencoder. Raises: ValueError."""
        return preset(self.preset, LATENT_SHAPE, **{"pose_names": POSE_NAMES, **self.model})


def bench_train(options: BenchOptions, device: torch.device) -> Iterator[Point]:
    """A whole training step on one clip: forward, backward, optimiser."""
    for name in options.variants:
        model = _model(name, options, device).train()
        optimizer = torch.optim.AdamW(model.parameters(), fused=True)
        measures = {frames: _training_step(model, optimizer, frames, device) for frames in options.frames}
        for frames, seconds in _interleaved(measures, options, device):
            peak = _peak(measures[frames], device) if _cuda(device) else None
            flops = step_cost(model.config, 1, frames, model.config.chunk_sizes[0], training_precision(device)).flops
            yield Point(name, frames, seconds, peak, flops)


def matmul_speed(device: torch.device, repeats: int = 10) -> float:
    """FLOP/s of the fastest of several large products of two square matrices, in the precision of training."""
    side = MATMUL_SIDE[device.type == "cuda"]
    dtype = torch.bfloat16 if training_precision(device) == "bf16" else torch.float32
    a, b = torch.randn(2, side, side, device=device, dtype=dtype).unbind(0)
    a @ b  # warms up
    return 2 * side**3 / min(_timed(partial(torch.mm, a, b), device) for _ in range(repeats))


def bench_rollout(options: BenchOptions, device: torch.device) -> Iterator[Point]:
    """One generated frame, a share of its chunk (decoding left out), and the state's bytes, after so many frames.

    The past is random latents, observed; a cache that grows is filled with random keys instead, which cost the same.
    """
    for name in options.variants:
        model = _model(name, options, device).eval()
        chunk = model.config.chunk_sizes[0]
        states = dict(_pasts(model, options.frames, device))
        measures = {frames: _chunk(model, state, chunk, options.steps, device) for frames, state in states.items()}
        for frames, seconds in _interleaved(measures, options, device):
            yield Point(name, frames, seconds / chunk, states[frames].nbytes)


def bench_scan(options: BenchOptions, device: torch.device) -> Iterator[Point]:
    """The scan alone, on one sequence of `frames` frames of the preset's tokens, beside the recurrence as a loop."""
    config = options.config()
    tokens = config.grid[0] * config.grid[1]
    for name, backend, backward in (
        ("forward", "auto", False),
        ("forward and backward", "auto", True),
        ("loop, forward", "reference", False),
    ):
        measures = {frames: _scan(config, frames * tokens, backend, backward, device) for frames in options.frames}
        for frames, seconds in _interleaved(measures, options, device):
            yield Point(name, frames, seconds)


def bench_attention(options: BenchOptions, device: torch.device) -> Iterator[Point]:
    """Frame-local attention of one layer of the preset by each of the ways to compute it, in training's precision."""
    config = options.config()
    shape = (config.grid[0] * config.grid[1], config.width // config.headdim, config.headdim)
    dtype = torch.bfloat16 if training_precision(device) == "bf16" else torch.float32
    measures: dict[tuple[str, str], dict[int, Measure]] = {}
    for chunk, frames in itertools.product(config.chunk_sizes, options.frames):
        inputs = torch.randn(3, 1, frames, *shape, device=device, dtype=dtype).unbind(0)
        for name, way in attention.ways(config, chunk, frames, device).items():
            for backward in (False, True):
                if backward and name == "flex" and not _cuda(device):
                    continue  # it has none on CPUs
                setting = f"chunk {chunk}, {'forward and backward' if backward else 'forward'}"
                measures.setdefault((name, setting), {})[frames] = partial(_attend, way, inputs, backward)
    for (name, setting), of_frames in sorted(measures.items(), key=lambda item: item[0][1]):
        for frames, seconds in _interleaved(of_frames, options, device):
            yield Point(name, frames, seconds, setting=setting)


def bench_data(options: BenchOptions, folder: Path) -> Iterator[Point]:
    """Reading one random clip from shards. Raises: LssvwmError."""
    shards = open_shards(folder, TRAIN)
    streams = tuple(name for name, names in _streams(shards.header).items() if names)
    longest = max(episode.length for episode in shards.episodes)
    measures = {}
    for frames in options.frames:
        if frames <= longest:
            dataset = ClipDataset(shards, streams, ClipSampling(), [(10_000, 1, frames)], seed=0)
            measures[frames] = _reading(dataset)
    for frames, seconds in _interleaved(measures, options, torch.device("cpu")):
        yield Point("clip", frames, seconds)


def training_step(
    model: WorldModel, optimizer: torch.optim.Optimizer, batch: int, frames: int, chunk: int, device: torch.device
) -> None:
    """One step on random clips, as training makes it."""
    rng = torch.Generator().manual_seed(0)
    latents = torch.randn(batch, frames, *model.config.latent_shape, generator=rng).to(device)
    levels = sample_noise_levels(batch, frames, chunk, 0.5, rng).to(device)
    conditions = {
        name: torch.rand(batch, frames, columns, generator=rng).to(device)
        for name, columns in model.config.streams.items()
    }
    with autocast(device, training_precision(device)):
        loss = flow_loss(model, latents, torch.randn_like(latents), levels, conditions, chunk)
    loss.backward()
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)


def step_seconds(config: ModelConfig, stage: Stage, chunk: int, device: torch.device, repeats: int = 3) -> float:
    """The median time of a training step on `stage.batch_size` clips, on this machine."""
    model = WorldModel(config).to(device).train()
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    measure = partial(training_step, model, optimizer, stage.batch_size, stage.frames, chunk, device)
    measure()  # warms up
    return statistics.median(_timed(measure, device) for _ in range(repeats))


def _model(name: str, options: BenchOptions, device: torch.device) -> WorldModel:
    ours = options.config()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = WorldModel(replace(ours, **variant(name, ours, options.clip_frames))).to(device)
    if options.compile:
        compile_where_possible(model, device)
    return model


def _training_step(model: WorldModel, optimizer: torch.optim.Optimizer, frames: int, device: torch.device) -> Measure:
    return lambda: training_step(model, optimizer, 1, frames, model.config.chunk_sizes[0], device)


@torch.inference_mode()
def _pasts(model: WorldModel, counts: Sequence[int], device: torch.device) -> Iterator[tuple[int, ModelState]]:
    """States after so many frames, ascending."""
    state = model.initial_state(1)
    for frames in counts:
        while state.frames_seen < frames:
            now = min(OBSERVED_AT_ONCE, frames - state.frames_seen)
            if state.growth:
                state = _filled(state, frames)
                continue
            latents = torch.randn(1, now, *model.config.latent_shape, device=device)
            with autocast(device, fastest_precision(device)):
                state = model(latents, torch.zeros(1, now, device=device), {}, state)[1]
        yield frames, state.copy()


def _filled(state: ModelState, frames: int) -> ModelState:
    """A state as large as after so many frames: what grows is filled with random numbers."""

    def sized(name: str, tensor: Tensor) -> Tensor:
        growth = state.growth.get(name)
        return tensor if growth is None else torch.randn(growth.shape(tensor.shape, frames), device=tensor.device)

    mixers = [
        {name: sized(state_name(number, name), tensor) for name, tensor in part.items()}
        for number, part in enumerate(state.mixers)
    ]
    return replace(state, mixers=mixers, frames_seen=frames)


def _chunk(model: WorldModel, state: ModelState, chunk: int, steps: int, device: torch.device) -> Measure:
    @torch.inference_mode()
    def measure() -> None:
        noise = torch.randn(1, chunk, *model.config.latent_shape, device=device)
        with autocast(device, fastest_precision(device)):
            latents = denoise(model, Euler(steps), noise, Conditions(), state)
            model(latents, torch.zeros(1, chunk, device=device), {}, state, chunk)

    return measure


def _attend(way: attention.Way, inputs: Sequence[Tensor], backward: bool) -> None:
    leaves = [tensor.detach().requires_grad_(backward) for tensor in inputs]
    mixed = way(*leaves)
    if backward:
        mixed.backward(torch.ones_like(mixed))


def _scan(config: ModelConfig, tokens: int, backend: str, backward: bool, device: torch.device) -> Measure:
    heads = config.expand * config.width // config.headdim

    def measure() -> None:
        x = torch.randn(1, tokens, heads, config.headdim, device=device, requires_grad=backward)
        B, C = torch.randn(2, 1, tokens, 1, config.d_state, device=device).unbind(0)
        dt, A = torch.rand(1, tokens, heads, device=device), -torch.ones(heads, device=device)
        y = ssd_scan(x, dt, A, B, C, backend=backend)
        if backward:
            y.sum().backward()

    return measure


def _reading(dataset: ClipDataset) -> Measure:
    items = iter(range(len(dataset)))
    return lambda: dataset[next(items)] and None


def _streams(header: Any) -> Mapping[str, tuple[str, ...]]:
    return {name: columns_of(header, name) for name in STREAMS}


def _interleaved(
    measures: Mapping[int, Measure], options: BenchOptions, device: torch.device
) -> Iterator[tuple[int, float]]:
    """Warm every size up, then measure them in turn; yields (frames, median seconds)."""
    kept: dict[int, list[float]] = {}
    for frames, measure in measures.items():
        try:
            measure()  # kernels compile, memory is fetched
        except torch.OutOfMemoryError:
            break
        if _timed(measure, device) > options.limit:
            break
        kept[frames] = []
    for _ in range(options.repeats):
        for frames, times in kept.items():
            times.append(_timed(measures[frames], device))
    for frames, times in kept.items():
        yield frames, statistics.median(times)


def _timed(measure: Measure, device: torch.device) -> float:
    if _cuda(device):
        torch.cuda.synchronize(device)
    started = time.perf_counter()
    measure()
    if _cuda(device):
        torch.cuda.synchronize(device)
    return time.perf_counter() - started


def _peak(measure: Measure, device: torch.device) -> int:
    torch.cuda.reset_peak_memory_stats(device)
    measure()
    return torch.cuda.max_memory_allocated(device)


def _cuda(device: torch.device) -> bool:
    return device.type == "cuda"
