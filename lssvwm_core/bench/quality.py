"""How good a world's frames are, and how fast they come, at each number of denoising steps: the default is the knee.

Every rollout is retrieval on one held-out episode, as a user runs it: one world, one chunk after another. The settings
take turns on each episode, so that whatever else the machine does falls on all of them alike.
"""

import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lssvwm_core.bench.costs import machine
from lssvwm_core.evaluation.metrics import psnr, sharpness, ssim
from lssvwm_core.evaluation.results import CEILING
from lssvwm_core.evaluation.run import long_enough
from lssvwm_core.evaluation.tasks import make_task
from lssvwm_core.evaluation.tasks.task import Trial, make_trial
from lssvwm_core.plots import Plot, save_plots
from lssvwm_core.rollout import Rollout, episode_generator
from lssvwm_core.sampling import Euler
from lssvwm_core.video import Frames
from lssvwm_core.world import World


@dataclass(frozen=True)
class QualityOptions:
    steps: tuple[int, ...] = (1, 2, 4, 8, 16)
    """Denoising steps a chunk."""
    shifts: tuple[float, ...] = (1.0,)
    """Schedules of the noise levels of the steps; 1 is evenly spaced."""
    context: int = 100
    """Frames seen first."""
    frames: int = 100
    """Frames to generate, back along the context's poses."""
    episodes: int = 4
    seed: int = 0


@dataclass(frozen=True)
class Quality:
    """How good one rollout is, or the mean over some. The autoencoder alone, the ceiling of its worlds, has 0 steps."""

    world: str
    steps: int
    shift: float
    psnr: float
    ssim: float
    sharpness: float
    """Mean gradient magnitude over the truth's."""
    frames_per_second: float
    """Frames generated and decoded in a second, by the median chunk; 0 for the autoencoder."""


def bench_quality(worlds: Mapping[str, World], source: Path, options: QualityOptions) -> Iterator[Quality]:
    """Yield the quality of each rollout; `source` is a folder of shards or of recordings.

    Raises: LssvwmError for a world or a source that retrieval does not fit.
    """
    task = make_task("retrieval", options.context, options.frames)
    for world in worlds.values():
        task.check(world, tuple(world.model.config.streams))
    episodes = zip(*(long_enough(source, world, task) for world in worlds.values()), strict=True)
    for loaded in islice(episodes, options.episodes):
        for (name, world), (number, episode) in zip(worlds.items(), loaded, strict=True):
            trial = make_trial(task, number, episode, world, tuple(world.model.config.streams))
            yield _judge(CEILING, 0, 1.0, trial, world.decode(trial.truth_latents), 0.0)
            seen = world.rollout()
            seen.observe(trial.context, trial.conditions[: task.context])
            for steps, shift in settings(options):
                sampler = Euler(steps, shift, world.sampler.guidance, world.sampler.temperature)
                rollout = seen.branch(replace(world, sampler=sampler), episode_generator(options.seed, number))
                frames, speed = _roll_out(rollout, trial)
                yield _judge(name, steps, shift, trial, frames, speed)


def settings(options: QualityOptions) -> list[tuple[int, float]]:
    """(steps, shift) of each rollout; one step has no levels to shift."""
    return [(steps, shift) for steps in options.steps for shift in (options.shifts if steps > 1 else (1.0,))]


def summarise(rollouts: Sequence[Quality]) -> list[Quality]:
    """The mean over the episodes of each setting; of speeds the median."""
    rows = []
    for world, steps, shift in dict.fromkeys((each.world, each.steps, each.shift) for each in rollouts):
        of = [each for each in rollouts if (each.world, each.steps, each.shift) == (world, steps, shift)]
        psnr_, ssim_, sharpness_ = np.mean([(each.psnr, each.ssim, each.sharpness) for each in of], axis=0).tolist()
        speed = statistics.median(each.frames_per_second for each in of)
        rows.append(Quality(world, steps, shift, psnr_, ssim_, sharpness_, speed))
    return sorted(rows, key=lambda row: (row.world == CEILING, row.world, row.shift, row.steps))


def figures(
    worlds: Mapping[str, World], rollouts: Sequence[Quality], options: QualityOptions, device: torch.device
) -> dict[str, Any]:
    """The content of the JSON file."""
    return {
        "bench": "quality",
        **machine(device),
        "options": asdict(options),
        "defaults": {name: world.steps for name, world in worlds.items()},
        "rows": [asdict(row) for row in summarise(rollouts)],
        "rollouts": [asdict(rollout) for rollout in rollouts],
    }


def table(rows: Sequence[Quality]) -> str:
    """The rows of `summarise`, as Markdown."""
    lines = ["| world | steps | shift | PSNR | SSIM | sharpness | frames/s |", "|---|---|---|---|---|---|---|"]
    for row in rows:
        setting = f"{row.steps} | {row.shift:g}" if row.steps else " | "
        speed = f"{row.frames_per_second:.1f}" if row.steps else ""
        lines.append(f"| {row.world} | {setting} | {row.psnr:.2f} | {row.ssim:.3f} | {row.sharpness:.2f} | {speed} |")
    return "\n".join(lines)


def plot(rows: Sequence[Quality], path: Path) -> None:
    """PSNR, SSIM, sharpness and speed against the steps, a line for each world and shift."""
    labels = {
        "psnr": "PSNR (dB)",
        "ssim": "SSIM",
        "sharpness": "sharpness (truth: 1)",
        "frames_per_second": "frames/s",
    }
    shifted = len({row.shift for row in rows}) > 1
    measured = [row for row in rows if row.steps]
    ends = [min(row.steps for row in measured), max(row.steps for row in measured)]
    plots = []
    for field, label in labels.items():
        lines: dict[str, tuple[list[float], list[float]]] = {}
        for row in measured:
            x, y = lines.setdefault(f"{row.world}, shift {row.shift:g}" if shifted else row.world, ([], []))
            x.append(row.steps)
            y.append(asdict(row)[field])
        if field != "frames_per_second":
            for row in rows:
                if not row.steps:
                    lines[row.world] = ([*ends], [asdict(row)[field]] * 2)
        plots.append(Plot("denoising steps a chunk", label, lines))
    save_plots(path, plots)


def _roll_out(rollout: Rollout, trial: Trial) -> tuple[Frames, float]:
    """Generate the trial's frames, decoded, and the frames a second: the median chunk's."""
    parts, times = [], [time.perf_counter()]
    for chunk in rollout.run(trial.conditions[len(trial.context) :]):
        parts.append(chunk.frames)
        times.append(time.perf_counter())
    speed = rollout.world.chunk / statistics.median(after - before for before, after in pairwise(times))
    return np.concatenate(parts)[: len(trial.truth)], speed


def _judge(world: str, steps: int, shift: float, trial: Trial, frames: Frames, speed: float) -> Quality:
    near = float(psnr(frames, trial.truth).mean()), float(ssim(frames, trial.truth).mean())
    return Quality(world, steps, shift, *near, float(sharpness(frames, trial.truth).mean()), speed)
