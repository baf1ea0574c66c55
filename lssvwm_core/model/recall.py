"""A memory by least squares: what was seen from a pose comes back when the pose does, as exactly as addresses allow.

The state of a scan adds what it sees, x ⊗ B, so that memories of neighbouring poses blur each other. Here the same
addresses, random Fourier features φ of the pose (Rahimi and Recht, 2007), are fitted to what was seen from them: W
minimises Σ |v - φW|² / R + λ |W|² over all frames v so far. That is kept up to date exactly, at a fixed size and cost,
by recursive least squares (a Kalman filter with constant weights):

    K = PΦᵀ (R + ΦPΦᵀ)⁻¹        W += K (V - ΦW)        P -= KΦP        for a chunk with addresses Φ and latents V

P, the inverse of λ + ΣφᵀΦ / R, also says how well a place is known: the novelty λ·φPφᵀ is 1 where nothing like it was
seen, and falls with every look. R is the noise of what is written: what a world made itself counts for less than what
was recorded. In the literature: recursive least squares, the mesa layer (von Oswald et al., 2023), ridge read-outs.

With `neighbours`, it also gives back what was seen from the nearest of the poses at which something new was seen: see
`lssvwm_core.model.neighbours`.

Nothing here is learnt by gradients, and none flow through it: addresses are fixed when the model is made.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from lssvwm_core.model.neighbours import NEW, kept, nearest, rows_at

RecallState = dict[str, Tensor]

GENERATED_NOISE = 4.0  # R of frames that a world made itself: what was really seen is not overwritten by them
BLOCK_FRAMES = 256  # solved together at most: bounds time and memory of a long context


class Recollection(NamedTuple):
    """What the memory says of frames before they are seen.

    Attributes:
        latents: (B, T, C, h, w) float32; zeros where nothing is known.
        novelty: (B, T) float32 in [0, 1]: 1 where nothing like the pose was seen, or where the pose is unknown.
        neighbours: (B, T, K, C, h, w) float32, what was seen from the landmarks nearest to the pose; K may be 0.
        places: (B, T, K, P) the poses of those; rows of NaN where there are no more.
        told: (B, T, h, w, D) what a model makes of it all for its tokens, where it has done so already.
    """

    latents: Tensor
    novelty: Tensor
    neighbours: Tensor
    places: Tensor
    told: Tensor | None = None

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
        neighbours: K, landmarks near each pose that are recalled beside it; as many poses are kept as there are
            addresses.
    """

    frequencies: Tensor

    def __init__(
        self,
        columns: int,
        latent_shape: tuple[int, int, int],
        addresses: int,
        lengths: tuple[float, float] = (0.05, 0.5),
        ridge: float = 1e-3,
        neighbours: int = 0,
    ) -> None:
        super().__init__()
        self.latent_shape, self.addresses, self.ridge, self.neighbours = latent_shape, addresses, ridge, neighbours
        shortest, longest = (math.log(length) for length in lengths)
        scales = torch.empty(addresses // 2).uniform_(shortest, longest).exp()
        self.register_buffer("frequencies", torch.randn(columns, addresses // 2) / scales)

    def initial_state(self, batch: int) -> RecallState:
        """The memory that has seen nothing: `covariance` P (B, n, n) and `weights` W (B, n, C·h·w), both float64.

        With neighbours also `landmarks` (B, n, P) float32, the latest last; rows of NaN are none.
        """
        eye = torch.eye(self.addresses, dtype=torch.float64, device=self.frequencies.device) / self.ridge
        values = math.prod(self.latent_shape)
        state = {
            "covariance": eye.repeat(batch, 1, 1),
            "weights": eye.new_zeros(batch, self.addresses, values),
        }
        if self.neighbours:
            state["landmarks"] = self._unknown(batch, self.addresses)
        return state

    @torch.no_grad()
    def forward(
        self, state: RecallState, poses: Tensor | None, latents: Tensor, chunk: int, noise: float = 1.0
    ) -> tuple[Recollection, RecallState]:
        """What is known of each frame before its chunk is seen, and the memory when all of them were.

        Frames are recalled from `state` and from the chunks before their own, as if one chunk after another were read
        and then written; a clip in pieces of whole chunks gives what it gives as a whole.

        Args:
            poses: (B, T, P); rows of NaN are unknown: such frames are neither recalled nor remembered. None: all are.
            latents: (B, T, C, h, w) clean latents, to be remembered.
            noise: R of these frames; 1 for recorded ones.
        """
        batch, frames = latents.shape[:2]
        poses = self._unknown(batch, frames) if poses is None else poses
        values = latents.double().flatten(2)  # (B, T, C·h·w)
        found = []
        step = max(1, BLOCK_FRAMES // chunk) * chunk
        for start in range(0, frames, step):
            rows = slice(start, start + step)
            known, state = self._block(state, poses[:, rows], values[:, rows], chunk, noise)
            found.append(known[:4])  # nobody has been told of it
        return Recollection(*(torch.cat(parts, dim=1) for parts in zip(*found, strict=True))), state

    def gram(self, poses: Tensor) -> Tensor:
        """(T, T) float64 ΦΦᵀ of known poses (T, P): how much two of them are the same place, 1 for the very same."""
        addresses = self._addresses(poses)
        return addresses @ addresses.mT

    @torch.no_grad()
    def of_clip(self, poses: Tensor | None, latents: Tensor, chunk: int) -> Recollection:
        """What `forward` recalls of clips that begin with nothing, without the memory at their end: for training.

        As no P is carried along, the Gram matrix of the clip's own addresses is all that is needed.
        """
        poses = self._unknown(*latents.shape[:2]) if poses is None else poses
        addresses = self._addresses(poses)
        prior = addresses @ addresses.mT / self.ridge  # ΦPΦᵀ
        solved = _solve(prior, latents.double().flatten(2), chunk, 1.0)
        novelty = self._novelty(addresses, solved.left)
        indices = self._nearest(poses[:, :0], poses, self._are_new(poses, novelty), chunk)
        ways = torch.linalg.solve_triangular(solved.factor, prior, upper=False).mT  # of every frame to every other
        near = solved.from_earlier(rows_at(ways, indices).nan_to_num(0.0), chunk)
        return self._found(solved.recalled, novelty, near, rows_at(poses, indices))

    @torch.no_grad()
    def read(self, state: RecallState, poses: Tensor | None, frames: int) -> Recollection:
        """What is known of the poses (B, T, P), none of which is remembered."""
        weights = state["weights"]
        poses = self._unknown(len(weights), frames) if poses is None else poses
        addresses = self._addresses(poses)
        novelty = self._novelty(addresses, (addresses @ state["covariance"] * addresses).sum(dim=-1))
        landmarks = state.get("landmarks", poses[:, :0])
        none_new = torch.zeros_like(novelty, dtype=torch.bool)
        places = rows_at(landmarks, self._nearest(landmarks, poses, none_new, frames))
        near = self._addresses(places.flatten(1, 2)) @ weights
        return self._found(addresses @ weights, novelty, near, places)

    def _block(
        self, state: RecallState, poses: Tensor, values: Tensor, chunk: int, noise: float
    ) -> tuple[Recollection, RecallState]:
        """One block of frames, all at once: what is recalled of them, and the memory after."""
        covariance, weights = state["covariance"], state["weights"]
        addresses = self._addresses(poses)
        spread = covariance @ addresses.mT  # PΦᵀ (B, n, T)
        known = addresses @ weights
        solved = _solve(addresses @ spread, values - known, chunk, noise)
        novelty = self._novelty(addresses, solved.left)
        gain = torch.linalg.solve_triangular(solved.factor, spread.mT, upper=False)  # (B, T, n)
        covariance = torch.baddbmm(covariance, gain.mT, gain, alpha=-1)
        if addresses.shape[1] > chunk:  # one chunk adds rounding only, and this takes long
            covariance = (covariance + covariance.mT) / 2
        after = {"covariance": covariance, "weights": torch.baddbmm(weights, gain.mT, solved.white)}
        landmarks, new = state.get("landmarks", poses[:, :0]), self._are_new(poses, novelty)
        indices = self._nearest(landmarks, poses, new, chunk)
        places = rows_at(torch.cat([landmarks, poses], dim=1), indices)
        there = self._addresses(places.flatten(1, 2))  # (B, T · K, n)
        ways = torch.linalg.solve_triangular(solved.factor, (there @ spread).mT, upper=False).mT
        near = there @ weights + solved.from_earlier(ways.unflatten(1, places.shape[1:3]), chunk)
        if self.neighbours:
            after["landmarks"] = kept(landmarks, poses, new)
        return self._found(known + solved.recalled, novelty, near, places), after

    def _nearest(self, landmarks: Tensor, poses: Tensor, new: Tensor, chunk: int) -> Tensor:
        """(B, T, K) the landmarks to recall for each frame; see `nearest`."""
        return nearest(landmarks, poses, new, chunk, self.neighbours, self.addresses)

    @staticmethod
    def _are_new(poses: Tensor, novelty: Tensor) -> Tensor:
        return (novelty > NEW) & ~poses.isnan().any(dim=-1)

    def _found(self, recalled: Tensor, novelty: Tensor, near: Tensor, places: Tensor) -> Recollection:
        """recalled (B, T, C·h·w), novelty (B, T), near (B, T · K, C·h·w), places (B, T, K, P)."""
        frames = near.unflatten(1, places.shape[1:3]).unflatten(3, self.latent_shape)
        return Recollection(recalled.unflatten(2, self.latent_shape).float(), novelty.float(), frames.float(), places)

    def _unknown(self, batch: int, frames: int) -> Tensor:
        """(B, T, P) poses of which none is known."""
        return self.frequencies.new_full((batch, frames, len(self.frequencies)), torch.nan)

    def _addresses(self, poses: Tensor) -> Tensor:
        """(…, P) -> (…, n) float64 of length 1; zeros where a pose is unknown."""
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
    recalled: Tensor
    """(B, T, C·h·w) what the earlier chunks tell of each frame's errors."""
    left: Tensor
    """(B, T) the variance that they leave."""

    def from_earlier(self, ways: Tensor, chunk: int) -> Tensor:
        """What the chunks before a frame's own tell of the errors at other places: (B, T · K, C·h·w).

        Args:
            ways: (B, T, K, T) L⁻¹ΦPφᵀ of K places for each frame.
        """
        number = torch.arange(ways.shape[1], device=ways.device) // chunk
        return (ways * (number[:, None, None] > number)).flatten(1, 2) @ self.white


def _solve(prior: Tensor, errors: Tensor, chunk: int, noise: float) -> _Solved:
    """What the earlier chunks tell of each frame's errors, and the variance that they leave.

    Within a chunk, no frame knows of another.

    Args:
        prior: (B, T, T) ΦPΦᵀ.
        errors: (B, T, C·h·w) what the memory did not know.
    """
    noises = noise * torch.eye(prior.shape[-1], dtype=prior.dtype, device=prior.device)
    factor = torch.linalg.cholesky(prior + noises)
    white = torch.linalg.solve_triangular(factor, errors, upper=False)
    number = torch.arange(prior.shape[-1], device=prior.device) // chunk
    before = factor * (number[:, None] > number)  # of earlier chunks
    left = prior.diagonal(dim1=-2, dim2=-1) - before.square().sum(dim=-1)
    return _Solved(factor, white, before @ white, left)
