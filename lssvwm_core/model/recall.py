"""A memory by least squares: what was seen from a pose comes back when the pose does, as exactly as addresses allow.

The state of a scan adds what it sees, x ⊗ B, so that memories of neighbouring poses blur each other. Here the same
addresses, random Fourier features φ of the pose (Rahimi and Recht, 2007), are fitted to what was seen from them: W
minimises Σ |v - φW|² / R + λ |W|² over all frames v so far. That is kept up to date exactly, at a fixed size and cost,
by recursive least squares (a Kalman filter with constant weights):

    K = PΦᵀ (R + ΦPΦᵀ)⁻¹        W += K (V - ΦW)        P -= KΦP        for a chunk with addresses Φ and latents V

P, the inverse of λ + ΣφᵀΦ / R, also says how well a place is known: the novelty λ·φPφᵀ is 1 where nothing like it was
seen, and falls with every look. R is the noise of what is written: what a world made itself counts for less than what
was recorded. In the literature: recursive least squares, the mesa layer (von Oswald et al., 2023), ridge read-outs.

Nothing here is learnt by gradients, and none flow through it: addresses are fixed when the model is made.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

RecallState = dict[str, Tensor]

GENERATED_NOISE = 4.0  # R of frames that a world made itself: what was really seen is not overwritten by them
BLOCK_FRAMES = 256  # solved together at most: bounds time and memory of a long context


class Recollection(NamedTuple):
    """What the memory says of frames before they are seen.

    Attributes:
        latents: (B, T, C, h, w) float32; zeros where nothing is known.
        novelty: (B, T) float32 in [0, 1]: 1 where nothing like the pose was seen, or where the pose is unknown.
    """

    latents: Tensor
    novelty: Tensor

    def certainty(self, ridge: float) -> Tensor:
        """(B, T) in [0, 1]: 0 where a place is new, 1 where it was recorded; logarithmic in the novelty.

        A frame that was recorded once has a novelty of about the ridge, so this tells it from a near one.
        """
        return (self.novelty.clamp(min=ridge).log() / math.log(ridge)).clamp(0, 1)


class Recall(nn.Module):
    """The memory of a world: frames by the poses that they were seen from.

    Args:
        columns: P, of a pose.
        latent_shape: (C, h, w) of a frame.
        addresses: n, features of a pose; about as many as there are frames to be kept apart. Even.
        lengths: shortest and longest scale of the features, in the pose's units.
        ridge: λ.
    """

    frequencies: Tensor

    def __init__(
        self,
        columns: int,
        latent_shape: tuple[int, int, int],
        addresses: int,
        lengths: tuple[float, float] = (0.05, 0.5),
        ridge: float = 1e-3,
    ) -> None:
        super().__init__()
        self.latent_shape, self.addresses, self.ridge = latent_shape, addresses, ridge
        shortest, longest = (math.log(length) for length in lengths)
        scales = torch.empty(addresses // 2).uniform_(shortest, longest).exp()
        self.register_buffer("frequencies", torch.randn(columns, addresses // 2) / scales)

    def initial_state(self, batch: int) -> RecallState:
        """The memory that has seen nothing: `covariance` P (B, n, n) and `weights` W (B, n, C·h·w), both float64."""
        eye = torch.eye(self.addresses, dtype=torch.float64, device=self.frequencies.device) / self.ridge
        values = math.prod(self.latent_shape)
        return {
            "covariance": eye.repeat(batch, 1, 1),
            "weights": eye.new_zeros(batch, self.addresses, values),
        }

    @torch.no_grad()
    def forward(
        self, state: RecallState, poses: Tensor | None, latents: Tensor, chunk: int, noise: float | Tensor = 1.0
    ) -> tuple[Recollection, RecallState]:
        """What is known of each frame before its chunk is seen, and the memory when all of them were.

        Frames are recalled from `state` and from the chunks before their own, as if one chunk after another were read
        and then written; a clip in pieces of whole chunks gives what it gives as a whole.

        Args:
            poses: (B, T, P); rows of NaN are unknown: such frames are neither recalled nor remembered. None: all are.
            latents: (B, T, C, h, w) clean latents, to be remembered.
            noise: R of these frames, or (B, T) of each; 1 for recorded ones.
        """
        batch, frames = latents.shape[:2]
        noises = self._noises(noise, batch, frames)
        addresses = self._addresses(poses, batch, frames)  # (B, T, n)
        values = latents.double().flatten(2)  # (B, T, C·h·w)
        recalled, novelty = [], []
        step = max(1, BLOCK_FRAMES // chunk) * chunk
        for start in range(0, frames, step):
            rows = slice(start, start + step)
            known, new, state = self._block(state, addresses[:, rows], values[:, rows], chunk, noises[:, rows])
            recalled.append(known)
            novelty.append(new)
        found = torch.cat(recalled, dim=1).unflatten(2, self.latent_shape)
        return Recollection(found.float(), torch.cat(novelty, dim=1).float()), state

    def gram(self, poses: Tensor) -> Tensor:
        """(T, T) float64 ΦΦᵀ of known poses (T, P): how much two of them are the same place, 1 for the very same."""
        addresses = self._addresses(poses[None], 1, len(poses))[0]
        return addresses @ addresses.mT

    @torch.no_grad()
    def of_clip(self, poses: Tensor | None, latents: Tensor, chunk: int, noise: float | Tensor = 1.0) -> Recollection:
        """What `forward` recalls of clips that begin with nothing, without the memory at their end: for training.

        As no P is carried along, the Gram matrix of the clip's own addresses is all that is needed.
        """
        addresses = self._addresses(poses, *latents.shape[:2])
        prior = addresses @ addresses.mT / self.ridge  # ΦPΦᵀ
        noises = self._noises(noise, *latents.shape[:2])
        recalled, left, _ = _solve(prior, latents.double().flatten(2), chunk, noises)
        return Recollection(recalled.unflatten(2, self.latent_shape).float(), self._novelty(addresses, left).float())

    @torch.no_grad()
    def read(self, state: RecallState, poses: Tensor | None, frames: int) -> Recollection:
        """What is known of the poses (B, T, P), none of which is remembered."""
        batch = len(state["weights"])
        addresses = self._addresses(poses, batch, frames)
        spread = addresses @ state["covariance"]
        novelty = self._novelty(addresses, (spread * addresses).sum(dim=-1))
        return Recollection((addresses @ state["weights"]).unflatten(2, self.latent_shape).float(), novelty.float())

    def _block(
        self, state: RecallState, addresses: Tensor, values: Tensor, chunk: int, noises: Tensor
    ) -> tuple[Tensor, Tensor, RecallState]:
        """One block of frames, all at once: what is recalled, what is left of the variance, and the memory after."""
        covariance, weights = state["covariance"], state["weights"]
        spread = covariance @ addresses.mT  # PΦᵀ (B, n, T)
        known = addresses @ weights
        recalled, left, solved = _solve(addresses @ spread, values - known, chunk, noises)
        gain = torch.linalg.solve_triangular(solved.factor, spread.mT, upper=False)  # (B, T, n)
        covariance = torch.baddbmm(covariance, gain.mT, gain, alpha=-1)
        if addresses.shape[1] > chunk:  # one chunk adds rounding only, and this takes long
            covariance = (covariance + covariance.mT) / 2
        after = {"covariance": covariance, "weights": torch.baddbmm(weights, gain.mT, solved.white)}
        return known + recalled, self._novelty(addresses, left), after

    def _noises(self, noise: float | Tensor, batch: int, frames: int) -> Tensor:
        """(B, T) float64."""
        return torch.as_tensor(noise, dtype=torch.float64, device=self.frequencies.device).expand(batch, frames)

    def _addresses(self, poses: Tensor | None, batch: int, frames: int) -> Tensor:
        """(B, T, n) float64 of length 1; zeros where a pose is unknown."""
        if poses is None:
            return torch.zeros(batch, frames, self.addresses, dtype=torch.float64, device=self.frequencies.device)
        known = ~poses.isnan().any(dim=-1, keepdim=True)
        angles = poses.nan_to_num(0.0).double() @ self.frequencies.double()
        return torch.cat([angles.cos(), angles.sin()], dim=-1) * known * (2 / self.addresses) ** 0.5

    def _novelty(self, addresses: Tensor, variance: Tensor) -> Tensor:
        """λ·φPφᵀ, kept within [0, 1]; 1 for unknown poses."""
        unknown = addresses.abs().amax(dim=-1) == 0
        return (self.ridge * variance).clamp(0, 1).masked_fill(unknown, 1.0)


class _Solved(NamedTuple):
    factor: Tensor
    """(B, T, T) L, the Cholesky factor of R + ΦPΦᵀ: row i says how frame i follows from those before it."""
    white: Tensor
    """(B, T, C·h·w) what is new in each frame."""


def _solve(prior: Tensor, errors: Tensor, chunk: int, noises: Tensor) -> tuple[Tensor, Tensor, _Solved]:
    """What the earlier chunks tell of each frame's errors, and the variance that they leave.

    Within a chunk, no frame knows of another.

    Args:
        prior: (B, T, T) ΦPΦᵀ.
        errors: (B, T, C·h·w) what the memory did not know.
        noises: (B, T) R of each frame.
    """
    factor = torch.linalg.cholesky(prior + torch.diag_embed(noises))
    white = torch.linalg.solve_triangular(factor, errors, upper=False)
    number = torch.arange(prior.shape[-1], device=prior.device) // chunk
    before = factor * (number[:, None] > number)  # of earlier chunks
    left = prior.diagonal(dim1=-2, dim2=-1) - before.square().sum(dim=-1)
    return before @ white, left, _Solved(factor, white)
