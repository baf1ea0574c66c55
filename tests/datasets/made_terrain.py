"""Ground to walk on that no game made."""

import numpy as np

from lssvwm_datasets.luanti.terrain import Terrain
from lssvwm_datasets.minecraft import Kind


def hills(seed: int = 0) -> Terrain:
    """A plain with steps of a block, pillars, a pond and a spring of lava."""
    rng = np.random.default_rng(seed)
    kinds = np.zeros((50, 20, 50), np.uint8)
    heights = 5 + (np.add.outer(np.arange(50), np.arange(50)) // 15)
    for x, z in np.ndindex(50, 50):
        kinds[x, : heights[x, z], z] = Kind.FULL
        if rng.random() < 0.04:
            kinds[x, : heights[x, z] + 3, z] = Kind.FULL
    kinds[10:15, 4:8, 30:36][kinds[10:15, 4:8, 30:36] == Kind.FULL] = Kind.WATER
    kinds[35:37, 9, 10:12] = Kind.HARM
    return Terrain(kinds, (-25, 0, -25))
