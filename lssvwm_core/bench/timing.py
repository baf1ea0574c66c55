"""Times things: every size is warmed up, then the sizes take turns, and the median of each counts.

So whatever else the machine does falls on all sizes alike, and ratios are of one run.
"""

import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial

import torch

from lssvwm_core.device import training_precision

MATMUL_SIDE = {"cpu": 1024, "cuda": 8192}  # of the matrices whose product is the measure of a device
Measure = Callable[[], object]


@dataclass(frozen=True)
class Timing:
    """How often each size is measured, and which sizes are left out.

    Attributes:
        repeats: measurements of each size.
        limit: seconds; sizes are left out from the first on that takes longer, or more memory than there is.
    """

    repeats: int = 3
    limit: float = 60.0

    def medians(self, measures: Mapping[int, Measure], device: torch.device) -> Iterator[tuple[int, float]]:
        """Measure each size of `measures`, which are ascending; yields (size, median seconds)."""
        kept: dict[int, list[float]] = {}
        for size, measure in measures.items():
            try:
                measure()  # kernels compile, memory is fetched
            except torch.OutOfMemoryError:
                break
            if timed(measure, device) > self.limit:
                break
            kept[size] = []
        for _ in range(self.repeats):
            for size, times in kept.items():
                times.append(timed(measures[size], device))
        for size, times in kept.items():
            yield size, statistics.median(times)


def timed(measure: Measure, device: torch.device) -> float:
    """Seconds that one call takes, until the device has done all of it."""
    wait = partial(torch.cuda.synchronize, device) if device.type == "cuda" else lambda: None
    wait()
    started = time.perf_counter()
    measure()
    wait()
    return time.perf_counter() - started


def peak_bytes(measure: Measure, device: torch.device) -> int | None:
    """The most memory of the device that a call takes at once; None on CPUs, where nobody counts it."""
    if device.type != "cuda":
        return None
    torch.cuda.reset_peak_memory_stats(device)
    measure()
    return torch.cuda.max_memory_allocated(device)


def matmul_speed(device: torch.device, repeats: int = 10) -> float:
    """FLOP/s of the fastest of several large products of two square matrices, in the precision of training."""
    side = MATMUL_SIDE[device.type]
    dtype = torch.bfloat16 if training_precision(device) == "bf16" else torch.float32
    a, b = torch.randn(2, side, side, device=device, dtype=dtype).unbind(0)
    a @ b  # warms up
    return 2 * side**3 / min(timed(partial(torch.mm, a, b), device) for _ in range(repeats))
