"""Results of episodes as `results.measure` keeps them, made up."""

from typing import Any

import numpy as np
from numpy.typing import NDArray


def make_result(rows: tuple[str, ...], frames: int, **changed: Any) -> dict[str, NDArray[Any]]:
    """Two clips of three features and two shown frames of 8×8 pixels for every row."""
    rng = np.random.default_rng(0)
    return {
        "id": np.array("episode"),
        "rows": np.array(rows),
        "exact": np.array(True),
        "places_known": np.array(True),
        "distance": 1 + np.arange(float(frames)),
        "psnr": rng.uniform(10, 30, (len(rows), frames)),
        "ssim": rng.uniform(0, 1, (len(rows), frames)),
        "features": rng.normal(size=(len(rows), 2, 3)),
        "features_truth": rng.normal(size=(2, 3)),
        "shown": np.array([0, frames - 1]),
        "pictures": np.zeros((1 + len(rows), 2, 8, 8, 3), np.uint8),
    } | changed
