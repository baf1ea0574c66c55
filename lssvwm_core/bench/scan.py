"""What the scan costs against its length, beside the recurrence as a loop."""

from collections.abc import Iterator, Sequence

import torch

from lssvwm_core.bench.costs import Point
from lssvwm_core.bench.subject import Subject, check_frames
from lssvwm_core.bench.timing import Measure, Timing
from lssvwm_core.model.config import ModelConfig
from lssvwm_core.scan import ssd_scan


def bench_scan(subject: Subject, frames: Sequence[int], timing: Timing, device: torch.device) -> Iterator[Point]:
    """The scan alone, on one sequence of so many frames of the preset's tokens. Raises: LssvwmError."""
    config = subject.config()
    check_frames(frames, config)
    tokens = config.grid[0] * config.grid[1]
    for name, backend, backward in (
        ("forward", "auto", False),
        ("forward and backward", "auto", True),
        ("loop, forward", "reference", False),
    ):
        measures = {count: _scan(config, count * tokens, backend, backward, device) for count in frames}
        for count, seconds in timing.medians(measures, device):
            yield Point(name, count, seconds)


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
