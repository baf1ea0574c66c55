"""The result of one episode: per-frame measures of every row, kept as an npz file from which everything is drawn."""

import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from lssvwm_core.evaluation.features import ClipFeatures, Lpips
from lssvwm_core.evaluation.metrics import psnr, ssim
from lssvwm_core.evaluation.tasks.task import Trial
from lssvwm_core.model.tensors import check_regular
from lssvwm_core.video import Frames
from lssvwm_core.world import World
from lssvwm_datasets.errors import LssvwmError
from lssvwm_datasets.files import written_whole

MODEL, CUT, LAST, CEILING = "model", "memory cut", "last context frame", "autoencoder"
EPISODES_FOLDER = "episodes"
EVALUATIONS = Path("evaluations")
SETTINGS_FILE, REPORT_FILE = "evaluation.json", "report.json"
SHEET_FRAMES = 8  # of an episode that are kept as pictures

Result = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Measures:
    """Beside PSNR and SSIM."""

    lpips: Lpips | str
    """The network, or why there is none."""
    features: ClipFeatures


def measure(world: World, trial: Trial, generated: dict[str, Frames], measures: Measures) -> Result:
    """What is kept of an episode, one line of each array for every row.

    `psnr`, `ssim`, `lpips` (rows, N), `distance` (N,), `features` (rows, clips, d) and those of the truth, and
    `pictures` (1 + rows, shown, H, W, 3), the truth first.
    """
    everything = {
        **generated,
        LAST: np.broadcast_to(trial.context_frames[-1:], trial.truth.shape),
        CEILING: world.decode(trial.truth_latents),
    }
    rows = [np.ascontiguousarray(frames) for frames in everything.values()]
    shown = np.unique(np.linspace(0, len(trial.truth) - 1, SHEET_FRAMES).round().astype(int))
    kept: Result = {
        "id": np.array(trial.id),
        "rows": np.array(list(everything)),
        "exact": np.array(trial.exact),
        "places_known": np.array(trial.places_known),
        "distance": trial.distance,
        "psnr": np.stack([psnr(frames, trial.truth) for frames in rows]),
        "ssim": np.stack([ssim(frames, trial.truth) for frames in rows]),
        "features": np.stack([measures.features.extract(frames) for frames in rows]),
        "features_truth": measures.features.extract(trial.truth),
        "shown": shown,
        "pictures": np.stack([trial.truth[shown], *(frames[shown] for frames in rows)]),
    }
    if isinstance(measures.lpips, Lpips):
        kept["lpips"] = np.stack([measures.lpips.score(frames, trial.truth) for frames in rows])
    return kept


def save_result(path: Path, result: Result) -> None:
    with written_whole(path) as partial:
        np.savez_compressed(partial, **result)  # type: ignore[arg-type]


def result_files(out: Path) -> list[Path]:
    return sorted((out / EPISODES_FOLDER).glob("[0-9]*.npz"))


def load_results(out: Path) -> list[Result]:
    """What `measure` kept of every episode, in order of episodes. Raises: LssvwmError for damaged files."""
    results = []
    for path in result_files(out):
        check_regular(path)
        try:
            with np.load(path) as file:
                results.append({name: file[name] for name in file.files})
        except (ValueError, EOFError, BadZipFile, zlib.error) as error:
            raise LssvwmError(f"{path}: damaged result ({error}); delete it and evaluate again") from error
    return results
