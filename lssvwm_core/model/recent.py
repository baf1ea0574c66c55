"""The last frames that a world has seen: what it would go on from if it had no other memory."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lssvwm_core.conditions import Conditions


@dataclass(frozen=True)
class Recent:
    """Frames and what led to them, on the CPU.

    Attributes:
        latents: (B, n, C, h, w) float32.
        conditions: a (B, n, columns) tensor for every stream of the model.
    """

    latents: Tensor
    conditions: Conditions

    @staticmethod
    def none(batch: int, latent_shape: Sequence[int], streams: Mapping[str, int]) -> "Recent":
        """No frame yet; `streams` and their columns."""
        rows = {name: torch.zeros(batch, 0, columns) for name, columns in streams.items()}
        return Recent(torch.zeros(batch, 0, *latent_shape), Conditions(rows))

    @staticmethod
    def joined(parts: "Sequence[Recent]") -> "Recent":
        """Put those of several worlds side by side, as many frames as each of them has."""
        parts = [one.last(min(other.frames for other in parts)) for one in parts]
        return Recent(torch.cat([one.latents for one in parts]), Conditions.stack([one.conditions for one in parts]))

    @property
    def frames(self) -> int:
        return self.latents.shape[1]

    def of_world(self, number: int) -> "Recent":
        one = slice(number, number + 1)
        return Recent(self.latents[one], Conditions({name: rows[one] for name, rows in self.conditions.items()}))

    def after(self, latents: Tensor, conditions: Mapping[str, Tensor], kept: int) -> "Recent":
        """The last `kept` frames when these have followed; a stream that did not lead to them was unknown."""
        new = {
            name: conditions[name].cpu() if name in conditions else _unknown(latents, rows.shape[2])
            for name, rows in self.conditions.items()
        }
        both = Conditions.cat([self.conditions, Conditions(new)])
        return Recent(torch.cat([self.latents, latents.cpu()], dim=1), both).last(kept)

    def last(self, count: int) -> "Recent":
        """The last of these frames, `count` at most."""
        start = max(0, self.frames - count)
        return Recent(self.latents[:, start:], self.conditions[start:])

    def takes(self, other: "Recent") -> bool:
        """Whether `other` can stand here: frames of the same worlds, finite, with the same streams."""
        latents, streams = other.latents, other.conditions
        return (
            latents.is_floating_point()
            and (len(latents), *latents.shape[2:]) == (len(self.latents), *self.latents.shape[2:])
            and bool(latents.isfinite().all())
            and {name: rows.shape for name, rows in streams.items()}
            == {name: (len(rows), other.frames, rows.shape[2]) for name, rows in self.conditions.items()}
        )


def _unknown(latents: Tensor, columns: int) -> Tensor:
    return torch.full((*latents.shape[:2], columns), torch.nan)
