"""What a training step asks of a model."""

from collections.abc import Mapping
from typing import NamedTuple

from torch import Tensor


class Lesson(NamedTuple):
    """Clips that are to be noised and told apart from their noise again.

    Attributes:
        latents: (B, T, C, h, w) clean.
        noise: (B, T, C, h, w).
        noise_levels: (B, T) in [0, 1]; 0 for frames that stay clean.
        conditions: a (B, T, columns) tensor for each stream; what the model is told.
        whole: the same, of which nothing was dropped.
        chunk: frames generated together.
    """

    latents: Tensor
    noise: Tensor
    noise_levels: Tensor
    conditions: Mapping[str, Tensor]
    whole: Mapping[str, Tensor]
    chunk: int

    def of(self, clips: Tensor) -> "Lesson":
        """That of some of the clips, (B,) bool."""
        told, whole = ({name: rows[clips] for name, rows in each.items()} for each in (self.conditions, self.whole))
        return Lesson(self.latents[clips], self.noise[clips], self.noise_levels[clips], told, whole, self.chunk)
