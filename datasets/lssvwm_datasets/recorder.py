"""Recording new episodes: what is asked for, what an environment's recorder offers, and the work over processes.

    <out>/{train,eval}/<seed>-<steps><suffix>

An episode is a function of (size, seed, steps), so episodes can be recorded in any order, on any number of processes,
and again.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from lssvwm_datasets.errors import LssvwmError
from lssvwm_datasets.parallel import run_units

EVAL_SEED_OFFSET = 1_000_000  # seeds of the eval split; training seeds stay below


@dataclass(frozen=True)
class EpisodeRequest:
    """One episode to record.

    Attributes:
        path: the file; a recorder that writes others beside it writes this one last.
        size: one of the recorder's sizes; empty where it has none.
        compact: smaller files that take longer to write.
        view: how far can be seen, in the environment's unit of length; 0 where that cannot be chosen.
    """

    path: Path
    size: str
    seed: int
    steps: int
    compact: bool = False
    view: int = 0


@dataclass(frozen=True)
class Recorder:
    """What an environment offers. Its functions are those of modules, as processes send them to each other.

    Attributes:
        record: records an episode; its file appears whole or not at all.
        check: fails in words where the environment is not installed. Raises: LssvwmError.
        set_up_process: settings that it wants of its process; called by the command, and in worker processes.
        suffix: of the files.
        sizes: {name: steps of an episode at most}, the default first; empty: one size, and no limit.
        compacts: whether it can write compact files.
        views: how far one can be made to see, from the least to the most; None: that cannot be chosen.
        view: how far one sees where nobody chooses.
    """

    record: Callable[[EpisodeRequest], object]
    check: Callable[[], object]
    set_up_process: Callable[[], None] | None = None
    suffix: str = ".npz"
    sizes: Mapping[str, int] = field(default_factory=dict)
    compacts: bool = False
    views: tuple[int, int] | None = None
    view: int = 0


def plan(
    recorder: Recorder,
    out: Path,
    *,
    train_episodes: int,
    eval_episodes: int,
    steps: int,
    seed: int = 0,
    size: str | None = None,
    compact: bool = False,
    view: int | None = None,
) -> list[EpisodeRequest]:
    """The episodes to record, whether or not they are there already. Raises: LssvwmError for what cannot be recorded.

    Args:
        size: None: the recorder's first.
        view: None: the recorder's own.
    """
    if size is not None and size not in recorder.sizes:
        offered = f"expected one of {', '.join(recorder.sizes)}" if recorder.sizes else "this environment has one size"
        raise LssvwmError(f"--size {size}: {offered}")
    if compact and not recorder.compacts:
        raise LssvwmError("--compact: this environment's recordings have no compact form")
    if view is not None and recorder.views is None:
        raise LssvwmError("--view: how far this environment's agents see cannot be chosen")
    if view is not None and recorder.views is not None and not recorder.views[0] <= view <= recorder.views[1]:
        raise LssvwmError(f"--view {view}: expected {recorder.views[0]} to {recorder.views[1]}")
    size = size or next(iter(recorder.sizes), "")
    longest = recorder.sizes.get(size)
    if steps < 1 or (longest is not None and steps > longest):
        allowed = f"an episode of size {size} has 1 to {longest}" if longest else "expected at least 1"
        raise LssvwmError(f"--steps {steps}: {allowed}")
    if seed < 0:
        raise LssvwmError(f"seed {seed}; expected 0 or more")
    if seed + max(train_episodes, eval_episodes) > EVAL_SEED_OFFSET:
        raise LssvwmError(f"seed {seed}: seeds from {EVAL_SEED_OFFSET} on are the eval split's; start lower")
    splits = (("train", seed, train_episodes), ("eval", seed + EVAL_SEED_OFFSET, eval_episodes))
    return [
        EpisodeRequest(
            path=out / split / f"{first + index:07d}-{steps}{recorder.suffix}",
            size=size,
            seed=first + index,
            steps=steps,
            compact=compact,
            view=recorder.view if view is None else view,
        )
        for split, first, count in splits
        for index in range(count)
    ]


def record_all(recorder: Recorder, requests: list[EpisodeRequest], jobs: int) -> Iterator[EpisodeRequest]:
    """Record the requests whose files are missing, yielding each as its file is complete."""
    missing = [request for request in requests if not request.path.exists()]
    yield from run_units(partial(_record, recorder), missing, max(1, min(jobs, len(missing))), recorder.set_up_process)


def _record(recorder: Recorder, request: EpisodeRequest) -> EpisodeRequest:
    recorder.record(request)
    return request
