"""What leads a world: rows of actions and poses, one for each frame, by the name of their stream."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor


class Conditions(Mapping[str, Tensor]):
    """Streams by name, each (B, T, columns) float32; a row of NaN is unknown, as is a stream that is left out.

    Behaves as a mapping from names to tensors; `conditions[10:20]` are the rows of ten frames of every stream.

        Conditions(action=actions, pose=poses)      arrays or tensors, (T, columns) or (B, T, columns)

    Raises: ValueError when the streams differ in their batch or in their number of frames.
    """

    def __init__(self, streams: Mapping[str, Any] | None = None, /, **more: Any) -> None:
        self._streams = {name: _rows(name, rows) for name, rows in {**(streams or {}), **more}.items()}
        shapes = {name: tuple(rows.shape[:2]) for name, rows in self._streams.items()}
        if len(set(shapes.values())) > 1:
            raise ValueError(f"streams of different batches or frames: {shapes}")

    def __getitem__(self, key: Any) -> Any:
        """The rows of a stream, by name; all streams for some frames, by slice."""
        return self._map(lambda rows: rows[:, key]) if isinstance(key, slice) else self._streams[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._streams)

    def __len__(self) -> int:
        """How many streams there are; see `frames`."""
        return len(self._streams)

    def __repr__(self) -> str:
        return f"Conditions({', '.join(f'{name}={tuple(rows.shape)}' for name, rows in self.items())})"

    @property
    def frames(self) -> int:
        """T; 0 without streams."""
        return next((rows.shape[1] for rows in self.values()), 0)

    @property
    def batch(self) -> int:
        """B; 0 without streams."""
        return next((len(rows) for rows in self.values()), 0)

    def to(self, device: torch.device) -> "Conditions":
        return self._map(lambda rows: rows.to(device))

    def only(self, names: Collection[str]) -> "Conditions":
        """The streams of these names; those that are not there stay out."""
        return Conditions({name: rows for name, rows in self.items() if name in names})

    def unknown(self, *names: str) -> "Conditions":
        """The same with every row of the streams `names` unknown."""
        return Conditions(
            {name: torch.full_like(rows, torch.nan) if name in names else rows for name, rows in self.items()}
        )

    def padded(self, frames: int) -> "Conditions":
        """With the last row repeated up to `frames`."""
        missing = frames - self.frames
        return (
            self._map(lambda rows: torch.cat([rows, rows[:, -1:].expand(-1, missing, -1)], dim=1)) if missing else self
        )

    @staticmethod
    def cat(parts: "Sequence[Conditions]") -> "Conditions":
        """One after another in time; all have the streams of the first."""
        return Conditions({name: torch.cat([part[name] for part in parts], dim=1) for name in parts[0]})

    @staticmethod
    def stack(worlds: "Sequence[Conditions]") -> "Conditions":
        """Side by side, as a batch; all have the streams of the first."""
        return Conditions({name: torch.cat([world[name] for world in worlds]) for name in worlds[0]})

    def _map(self, change: Any) -> "Conditions":
        return Conditions({name: change(rows) for name, rows in self.items()})


def _rows(name: str, rows: Any) -> Tensor:
    tensor = torch.from_numpy(np.ascontiguousarray(rows)) if isinstance(rows, np.ndarray) else rows
    if not isinstance(tensor, Tensor) or tensor.ndim not in (2, 3):
        shape = tuple(getattr(rows, "shape", ()))
        raise ValueError(f"{name} has shape {shape}, expected (frames, columns) or (batch, frames, columns)")
    return (tensor if tensor.ndim == 3 else tensor[None]).float()
