"""What a training run writes down: losses and speeds, one report every few steps."""

import json
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from accelerate import Accelerator

from lssvwm_core.model.config import ModelConfig
from lssvwm_core.training.data.clips import Batch
from lssvwm_core.training.run.config import RunConfig
from lssvwm_core.training.step.cost import flops_a_frame, peak_tflops
from lssvwm_core.training.step.train_step import StepResult
from lssvwm_datasets.files import write_text
from lssvwm_datasets.schema import parse_json, read_text


@dataclass(frozen=True)
class StepReport:
    """One line of metrics.jsonl."""

    step: int
    loss: float  # mean over the steps since the last report
    learning_rate: float
    gradient_norm: float
    frames: int  # of a clip
    chunk: int
    frames_per_second: float  # trained, all processes
    loader_frames_per_second: float  # what data loading alone would reach
    data_wait: float  # share of the time spent waiting for data
    tokens_per_second: float
    tflops: float | None  # matrix products a second, in each process; None where the device's peak is not known
    mfu: float | None  # their share of that peak
    seconds: float  # since this call began


class Meter:
    """Sums up the steps since the last report.

    Args:
        tokens: of a frame.
        flops: of training on a frame.
        peak: of the device, in TFLOP/s; None where it is not known.
    """

    def __init__(self, processes: int, tokens: int, flops: float = 0.0, peak: float | None = None) -> None:
        self.processes, self.tokens, self.flops, self.peak = processes, tokens, flops, peak
        self._restart()

    def _restart(self) -> None:
        self.since = time.monotonic()
        self.losses: list[float] = []
        self.waited, self.frames, self.clip_frames = 0.0, 0, 0

    def timed(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        """The batches, with the time spent waiting for them noted."""
        while True:
            started = time.monotonic()
            batch = next(batches)
            self.waited += time.monotonic() - started
            clips, self.clip_frames = batch["latents"].shape[:2]
            self.frames += clips * self.clip_frames
            yield batch

    def report(self, step: int, result: StepResult, seconds: float) -> StepReport:
        """The report of the steps since the last one; the sums start again."""
        took = time.monotonic() - self.since
        frames = self.processes * self.frames
        tflops = self.flops * self.frames / took / 1e12 if self.peak else None
        report = StepReport(
            step=step,
            loss=sum(self.losses) / len(self.losses),
            learning_rate=result.learning_rate,
            gradient_norm=result.gradient_norm,
            frames=self.clip_frames,
            chunk=result.chunk,
            frames_per_second=frames / took,
            loader_frames_per_second=frames / max(self.waited, 1e-9),
            data_wait=self.waited / took,
            tokens_per_second=self.tokens * frames / took,
            tflops=tflops,
            mfu=tflops / self.peak if tflops is not None and self.peak else None,
            seconds=seconds,
        )
        self._restart()
        return report


def meter_for(model: ModelConfig, config: RunConfig, accelerator: Accelerator) -> Meter:
    """A meter that counts FLOPs on GPUs of which the peak is known, and where no teacher computes beside the model."""
    device = accelerator.device
    counted = device.type == "cuda" and config.distill is None
    peak = peak_tflops(torch.cuda.get_device_name(device)) if counted else None
    tokens = model.grid[0] * model.grid[1]
    return Meter(accelerator.num_processes, tokens, flops_a_frame(model) if peak else 0.0, peak)


@dataclass(frozen=True)
class _Line:
    step: int


def append_report(path: Path, report: StepReport) -> None:
    """Write a report as the next line of a file. Raises: OSError naming the file."""
    try:
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(report)) + "\n")
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error


def drop_reports_after(path: Path, step: int) -> None:
    """Forget the lines of steps that are about to be done again, and a last line that was cut off by a kill.

    Raises: LssvwmError naming the line that is no report.
    """
    if not path.exists():
        return
    lines = read_text(path).splitlines()
    if lines and not lines[-1].endswith("}"):
        lines.pop()
    steps = [
        parse_json(f"{path}: line {number}", line, _Line, "remove this line to go on").step
        for number, line in enumerate(lines, start=1)
    ]
    kept = [line for line, of in zip(lines, steps, strict=True) if of <= step]
    write_text(path, "".join(f"{line}\n" for line in kept))
