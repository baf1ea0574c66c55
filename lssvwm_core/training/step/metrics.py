"""What a training run writes down: losses and speeds, one report every few steps."""

import time
from collections.abc import Iterator
from dataclasses import dataclass

from lssvwm_core.training.data.clips import Batch


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

    def report(self, step: int, learning_rate: float, norm: float, chunk: int, seconds: float) -> StepReport:
        """The report of the steps since the last one; the sums start again."""
        took = time.monotonic() - self.since
        frames = self.processes * self.frames
        tflops = self.flops * self.frames / took / 1e12 if self.peak else None
        report = StepReport(
            step=step,
            loss=sum(self.losses) / len(self.losses),
            learning_rate=learning_rate,
            gradient_norm=norm,
            frames=self.clip_frames,
            chunk=chunk,
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
