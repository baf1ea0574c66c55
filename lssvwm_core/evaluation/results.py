"""The result of one episode: what was measured of every row, kept as an npz file from which everything is drawn."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lssvwm_core.evaluation.features import ClipFeatures
from lssvwm_core.evaluation.frame_metrics import FRAME_METRICS, PSNR, Score
from lssvwm_core.evaluation.tasks.task import Task, Trial
from lssvwm_core.video import Frames
from lssvwm_core.world import World
from lssvwm_datasets.errors import DamagedRecording, LssvwmError
from lssvwm_datasets.files import written_whole
from lssvwm_datasets.format import DEFAULTS
from lssvwm_datasets.npz import load_arrays

MODEL, CUT, LAST, CEILING = "model", "memory cut", "last context frame", "autoencoder"
EPISODES_FOLDER = "episodes"
EVALUATIONS = Path("evaluations")
SETTINGS_FILE, REPORT_FILE = "evaluation.json", "report.json"
SHEET_FRAMES = 8  # of an episode that are kept as pictures
MAY_BE_UNKNOWN = ("distance", "nearest", "certainty")  # NaN there
REQUIRED = (
    *("id", "rows", "exact", "places_known", "distance", "features", "features_truth", "shown", "pictures"),
    PSNR.name,
)  # what else there is, depends on the machine, and on the version that wrote it
ADVICE = "delete it and evaluate again"
MOST_MEMORY = 16 * 10**9  # bytes, of the results of an evaluation; no more for one of them than for a recording

Result = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Measures:
    """What is measured of every row.

    Attributes:
        features: of clips, for the Fréchet distance.
        scores: the frame metrics that are available, by name.
        missing: why the others are not, in words.
    """

    features: ClipFeatures
    scores: Mapping[str, Score]
    missing: Mapping[str, str] = field(default_factory=dict)


def measure(
    world: World,
    task: Task,
    trial: Trial,
    generated: dict[str, Frames],
    measures: Measures,
    certainty: NDArray[np.float64],
) -> Result:
    """What is kept of an episode; R rows, N measured frames.

    Args:
        generated: the frames of each row.
        certainty: (N,) how well the model knew each place before, see `Chunk`; NaN where nobody can tell.

    Returns: arrays by name. Each frame metric (R, N), `distance`, `nearest` and `certainty` (N,), `features`
        (R, clips, d), `features_truth` (clips, d), and `pictures` (1 + R, shown, H, W, 3), the truth first.
    """
    everything = dict(generated)
    if task.has_truth:
        everything[LAST] = np.broadcast_to(trial.context_frames[-1:], trial.truth.shape)
        everything[CEILING] = world.decode(trial.truth_latents)
    compared = [task.compared(frames, trial.truth) for frames in everything.values()]
    rows = [np.ascontiguousarray(frames) for frames, _ in compared]
    truths = [np.ascontiguousarray(truth) for _, truth in compared]
    data = trial.truth if task.has_truth else trial.context_frames
    shown = np.unique(np.linspace(0, task.frames - 1, SHEET_FRAMES).round().astype(int))
    scores = {metric: measures.scores[metric.name] for metric in FRAME_METRICS if metric.name in measures.scores}
    return {
        "id": np.array(trial.id),
        "rows": np.array(list(everything)),
        "exact": np.array(trial.exact),
        "places_known": np.array(trial.places_known),
        "distance": trial.distance,
        "nearest": trial.nearest,
        "certainty": certainty,
        "features": np.stack([measures.features.extract(frames) for frames in rows]),
        "features_truth": measures.features.extract(np.ascontiguousarray(data)),
        "shown": shown,
        "pictures": np.stack([truths[0][shown], *(frames[shown] for frames in rows)]),
        **{
            metric.name: np.stack(
                [score(frames, data if metric.of_level else truth) for frames, truth in zip(rows, truths, strict=True)]
            )
            for metric, score in scores.items()
        },
    }


def save_result(path: Path, result: Result) -> None:
    with written_whole(path) as partial:
        np.savez_compressed(partial, **result)  # type: ignore[arg-type]


def result_files(out: Path) -> list[Path]:
    return sorted((out / EPISODES_FOLDER).glob("[0-9]*.npz"))


def load_results(out: Path) -> list[Result]:
    """What `measure` kept of every episode, in order of episodes.

    Raises: LssvwmError naming the file for results that are damaged or do not fit each other; OSError.
    """
    results: list[Result] = []
    left = MOST_MEMORY
    for path in result_files(out):
        results.append(_load_result(path, min(left, DEFAULTS.max_memory)))
        left -= sum(array.nbytes for array in results[-1].values())
        first, last = results[0], results[-1]
        if first["rows"].tolist() != last["rows"].tolist() or first["distance"].size != last["distance"].size:
            raise LssvwmError(f"{path}: its rows or frames are not those of the other episodes; {ADVICE}")
    return results


def _load_result(path: Path, max_memory: int) -> Result:
    try:
        result = load_arrays(path, _shapes().keys(), max_memory, "no results need as much")
    except DamagedRecording as error:
        raise LssvwmError(f"{error}; {ADVICE}") from error
    problem = _problem(result)
    if problem:
        raise LssvwmError(f"{path}: damaged result ({problem}); {ADVICE}")
    return result


def _shapes(rows: int = 0, frames: int = 0, shown: int = 0) -> dict[str, tuple[str, tuple[int | None, ...]]]:
    """Kinds of numpy's dtypes, and shapes, of all arrays that a result may have; None is any length."""
    return {
        "id": ("U", ()),
        "rows": ("U", (rows,)),
        "exact": ("b", ()),
        "places_known": ("b", ()),
        "distance": ("f", (frames,)),
        "features": ("f", (rows, None, None)),
        "features_truth": ("f", (None, None)),
        "shown": ("iu", (shown,)),
        "pictures": ("u", (1 + rows, shown, None, None, 3)),
        **{metric.name: ("f", (rows, frames)) for metric in FRAME_METRICS},
        **dict.fromkeys(MAY_BE_UNKNOWN, ("f", (frames,))),
    }


def _problem(result: Result) -> str | None:
    """The first array that is missing, of another type or shape, or not finite where it must be; None when all fit."""
    rows, frames, shown = (result[name].size if name in result else 0 for name in ("rows", "distance", "shown"))
    for name, (kinds, shape) in _shapes(rows, frames, shown).items():
        array = result.get(name)
        if array is None:
            if name in REQUIRED:
                return f"no {name}"
            continue
        fits = len(array.shape) == len(shape) and all(b in (None, a) for a, b in zip(array.shape, shape, strict=True))
        if array.dtype.kind not in kinds or not fits:
            return f"{name} has shape {array.shape} and type {array.dtype}, expected {shape}".replace("None", "any")
        if name not in MAY_BE_UNKNOWN and array.dtype.kind == "f" and not np.isfinite(array).all():
            place = np.argwhere(~np.isfinite(array))[0].tolist()
            return f"{name}{place} is {array[tuple(place)]}, expected finite numbers"
    if not frames or not rows:
        return "no frames or no rows"
    if shown and not (0 <= result["shown"].min() <= result["shown"].max() < frames):
        return f"shown has frames outside 0..{frames - 1}"
    return None
