"""What a generated frame costs, and what is carried along, against the frames before it (the paper's figure 8)."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from lssvwm_core.bench.costs import Point
from lssvwm_core.bench.subject import Subject, check_frames, check_variants
from lssvwm_core.bench.timing import Measure, Timing
from lssvwm_core.conditions import Conditions
from lssvwm_core.cuda_graph import Graphs
from lssvwm_core.device import autocast, fastest_precision
from lssvwm_core.model.state import ModelState, state_name
from lssvwm_core.model.world_model import WorldModel
from lssvwm_core.sampling import Euler, denoise_fast

OBSERVED_AT_ONCE = 100  # frames
UNGRAPHED = "without CUDA graphs"


def bench_rollout(
    subject: Subject,
    variants: Sequence[str],
    frames: Sequence[int],
    timing: Timing,
    device: torch.device,
    steps: int = 8,
    compiled: bool = False,
) -> Iterator[Point]:
    """One generated frame, a share of its chunk (decoding left out), and the state's bytes, after so many frames.

    The past is random latents, observed; a cache that grows is filled with random keys instead, which cost the same.
    On a GPU, rollouts without CUDA graphs are set beside those as they are.

    Args:
        frames: ascending.
        steps: denoising steps for each chunk.

    Raises: LssvwmError.
    """
    check_variants(variants)
    check_frames(frames, subject.config())
    for name in variants:
        model = subject.variant(name, device, compiled).eval()
        chunk = model.config.chunk_sizes[0]
        states = dict(_pasts(model, frames, device))
        ways: dict[str, Graphs | None] = {"": Graphs()} | ({UNGRAPHED: None} if device.type == "cuda" else {})
        for setting, graphs in ways.items():
            measures = {count: _chunk(model, state, chunk, steps, device, graphs) for count, state in states.items()}
            for count, seconds in timing.medians(measures, device):
                yield Point(name, count, seconds / chunk, states[count].nbytes, setting=setting)


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


def _chunk(
    model: WorldModel, state: ModelState, chunk: int, steps: int, device: torch.device, graphs: Graphs | None
) -> Measure:
    @torch.inference_mode()
    def measure() -> None:
        noise = torch.randn(1, chunk, *model.config.latent_shape, device=device)
        latents = denoise_fast(model, Euler(steps), noise, Conditions(), state, graphs=graphs)
        with autocast(device, fastest_precision(device)):
            model(latents, torch.zeros(1, chunk, device=device), {}, state, chunk)

    return measure
