"""Where an agent in a world stands and which way it came, reckoned from its actions by the environment's kinematics."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lssvwm_datasets.environment import Environment
from lssvwm_datasets.errors import LssvwmError

PATH_POINTS = 1000  # of the way that are kept for the map
LARGEST_LAYOUT = 1000  # cells a side


def _no_points() -> NDArray[np.float32]:
    return np.zeros((0, 2), np.float32)


@dataclass(frozen=True, eq=False)
class Place:
    """A place in an environment.

    Attributes:
        environment: None where it is unknown; then the place is, too.
        pose: (P,) float32; None where unknown.
        layout: (N, N) uint8, 1 = free; None where unknown.
        path: (n, 2) float32, x and y of the last frames, oldest first; empty where they are unknown.
    """

    environment: Environment | None
    pose: NDArray[np.float32] | None = None
    layout: NDArray[np.uint8] | None = None
    path: NDArray[np.float32] = field(default_factory=_no_points)

    @classmethod
    def recorded(
        cls,
        environment: Environment | None,
        poses: NDArray[np.float32] | None,
        layout: NDArray[np.uint8] | None,
    ) -> "Place":
        """The last place of a recording with (T, P) poses, if it has any and it can be gone on from there."""
        place = cls(environment, layout=layout)
        if environment is None or environment.kinematics is None or poses is None or not np.isfinite(poses[-1]).all():
            return place
        plane = environment.plane
        path = _no_points() if plane is None else poses[-PATH_POINTS:, [plane.x, plane.y]]
        return replace(place, pose=poses[-1], path=path[np.isfinite(path).all(axis=1)])

    def after(self, action: int) -> "Place":
        """The place that an action leads to."""
        if self.environment is None or self.environment.kinematics is None or self.pose is None:
            return self
        pose = self.environment.kinematics(self.layout, self.pose, action)
        here = replace(self, pose=pose)
        if (spot := here.spot) is None:
            return here
        return replace(here, path=np.append(self.path, np.array([spot[:2]], np.float32), axis=0)[-PATH_POINTS:])

    @property
    def spot(self) -> tuple[float, float, float] | None:
        """x, y and the heading in radians, from x to y; None where unknown."""
        plane = self.environment.plane if self.environment is not None else None
        if plane is None or self.pose is None:
            return None
        x, y, cos, sin = (float(self.pose[column]) for column in (plane.x, plane.y, plane.cos, plane.sin))
        return x, y, float(np.arctan2(sin, cos))

    def tensors(self) -> dict[str, Tensor]:
        """What is known of the place, to be saved."""
        known = {"pose": self.pose, "layout": self.layout, "path": self.path}
        return {name: torch.from_numpy(np.array(value)) for name, value in known.items() if value is not None}

    @classmethod
    def restored(cls, environment: Environment | None, file: Path, tensors: Mapping[str, Tensor]) -> "Place":
        """The place that `tensors` of a file tell. Raises: LssvwmError when they are not such as `tensors()` gives."""
        saved = {name: tensors[name].numpy() for name in ("pose", "layout", "path") if name in tensors}
        place = cls(environment)
        if "layout" in saved:
            layout = saved["layout"]
            square = layout.ndim == 2 and 0 < len(layout) == layout.shape[1] <= LARGEST_LAYOUT
            _check(square and layout.dtype == np.uint8 and layout.max() <= 1, file, "layout", "a square of 0 and 1")
            place = replace(place, layout=layout)
        if environment is None or environment.kinematics is None or "pose" not in saved:
            return place
        pose, path = saved["pose"], saved.get("path", _no_points())
        columns = f"one finite number for each of {', '.join(environment.pose_names)}"
        _check(pose.shape == (len(environment.pose_names),) and _finite(pose), file, "pose", columns)
        points = path.ndim == 2 and path.shape[1] == 2 and len(path) <= PATH_POINTS
        _check(points and _finite(path), file, "path", f"at most {PATH_POINTS} points, x and y, finite")
        return replace(place, pose=pose.astype(np.float32), path=path.astype(np.float32))


def _finite(values: NDArray[np.generic]) -> bool:
    return values.dtype.kind == "f" and bool(np.isfinite(values).all())


def _check(holds: bool, file: Path, name: str, expected: str) -> None:
    if not holds:
        raise LssvwmError(f"{file}: damaged: its {name} is something else than {expected}")
