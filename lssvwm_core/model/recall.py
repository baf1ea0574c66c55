"""A memory by least squares: what was seen from a pose comes back when the pose does, as exactly as it was seen.

The state of a scan adds what it sees, x ⊗ B, so that memories of neighbouring poses blur each other. Here the latents v
of frames are fitted as a function of the pose, by kernel ridge regression (the mean of a Gaussian process; Rasmussen
and Williams, 2006, ch. 2). Of the frames seen so far, with poses q,

    recalled(p) = k (K + λR)⁻¹ V        novelty(p) = 1 - k (K + λR)⁻¹ kᵀ        k = k(p, q), K = k(q, q)

where k(p, q), the likeness of two poses, is a mean of Gaussians of their distance. The novelty is 1 where nothing like
the pose was seen, and falls with every look. R is the noise of what is written: what a world made itself counts for
less than what was recorded.

Frames are kept as they are, the last `frames` of them that told anything new, and a pose is recalled from the `NEAREST`
of them: all others are so far that they hardly count. So size and cost stay the same however much was seen, and places
far apart share nothing. (Random features of the pose, whose weights are kept up to date by recursive least squares,
cost as much and hold as many frames as there are features: after that all places pass for known, and what they recall
is a mixture; docs/memory.md.)

Nothing here is learnt by gradients, and none flow through it.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

RecallState = dict[str, Tensor]

GENERATED_NOISE = 4.0  # R of frames that a world made itself: what was really seen is not overwritten by them
NEAREST = 32  # frames that a pose is recalled from, at most
GAUSSIANS = 8  # that the likeness of two poses is the mean of: widths from the shortest to the longest, by ratios
TELLS = 2.0  # a frame is kept unless its pose is known better than one look of so many times its noise leaves it
READ_FRAMES = 64  # recalled together at most: bounds the memory of a long clip


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
        frames: that are kept; the oldest makes room for a new one.
        lengths: shortest and longest width of the Gaussians, in the pose's units.
        ridge: λ.
    """

    def __init__(
        self,
        columns: int,
        latent_shape: tuple[int, int, int],
        frames: int,
        lengths: tuple[float, float] = (0.05, 0.5),
        ridge: float = 1e-3,
    ) -> None:
        super().__init__()
        self.columns, self.latent_shape, self.frames, self.ridge = columns, latent_shape, frames, ridge
        ratio = lengths[1] / lengths[0]
        self.widths = tuple(lengths[0] * ratio ** ((i + 0.5) / GAUSSIANS) for i in range(GAUSSIANS))

    def initial_state(self, batch: int, device: torch.device | None = None) -> RecallState:
        """The memory that has seen nothing.

        Its tensors: `poses` (B, frames, P) and `latents` (B, frames, C·h·w) of the frames that are kept, these in
        float16 as in shards, the `noises` (B, frames) that they were written with, and `kept` (B,), how many frames
        ever were: the next takes that place, counted around.
        """
        values = math.prod(self.latent_shape)
        return {
            "poses": torch.zeros(batch, self.frames, self.columns, device=device),
            "latents": torch.zeros(batch, self.frames, values, dtype=torch.float16, device=device),
            "noises": torch.ones(batch, self.frames, device=device),
            "kept": torch.zeros(batch, dtype=torch.int64, device=device),
        }

    @torch.no_grad()
    def forward(
        self, state: RecallState, poses: Tensor | None, latents: Tensor, chunk: int, noise: float | Tensor = 1.0
    ) -> tuple[Recollection, RecallState]:
        """What is known of each frame before its chunk is seen, and the memory when all of them were.

        Frames are recalled from `state` and from the chunks before their own: one chunk after another is read and then
        written, so that a clip in pieces of whole chunks gives what it gives as a whole.

        Args:
            poses: (B, T, P); rows of NaN are unknown: such frames are neither recalled nor remembered. None: all are.
            latents: (B, T, C, h, w) clean latents, to be remembered.
            noise: R of these frames, or (B, T) of each; 1 for recorded ones.
        """
        frames, noises, values = latents.shape[1], self._noises(noise, latents), latents.flatten(2)
        state, recalled = {name: tensor.clone() for name, tensor in state.items()}, []
        for start in range(0, frames, chunk):
            rows = slice(start, start + chunk)
            there = None if poses is None else poses[:, rows]
            found = self.read(state, there, values[:, rows].shape[1])
            recalled.append(found)
            if there is not None:
                self._write(state, there, values[:, rows], noises[:, rows], found.novelty)
        return Recollection(*(torch.cat(parts, dim=1) for parts in zip(*recalled, strict=True))), state

    @torch.no_grad()
    def of_clip(self, poses: Tensor | None, latents: Tensor, chunk: int, noise: float | Tensor = 1.0) -> Recollection:
        """What `forward` recalls of clips that begin with nothing, without the memory at their end: for training.

        All frames are solved at once, from all before them instead of the nearest.
        """
        if poses is None:
            return self._nothing(len(latents), latents.shape[1], latents.device)
        noises = self.ridge * self._noises(noise, latents)
        recalled, left = _solve(self.gram(poses), latents.double().flatten(2), chunk, noises)
        return self._found(recalled, left, poses)

    @torch.no_grad()
    def read(self, state: RecallState, poses: Tensor | None, frames: int) -> Recollection:
        """What is known of the poses (B, T, P), none of which is remembered."""
        if poses is None:
            return self._nothing(len(state["kept"]), frames, state["poses"].device)
        parts = [self._read(state, part) for part in poses.split(READ_FRAMES, dim=1)]
        return Recollection(*(torch.cat(part, dim=1) for part in zip(*parts, strict=True)))

    def gram(self, poses: Tensor) -> Tensor:
        """(…, T, P) -> (…, T, T) float64: how much two poses are the same place, 1 for the very same, 0 if unknown."""
        known, places = _are_known(poses), poses.nan_to_num(0.0).double()
        return self._likeness(torch.cdist(places, places)) * (known[..., None] & known[..., None, :])

    def _read(self, state: RecallState, poses: Tensor) -> Recollection:
        there = torch.arange(self.frames, device=poses.device) < state["kept"][:, None]
        apart = torch.cdist(poses.nan_to_num(0.0).double(), state["poses"].double())
        apart, nearest = apart.masked_fill(~there[:, None], torch.inf).topk(min(NEAREST, self.frames), largest=False)
        world = torch.arange(len(poses), device=poses.device)[:, None, None]
        latents, noises = state["latents"][world, nearest].double(), state["noises"][world, nearest].double()
        places = state["poses"][world, nearest].double()  # (B, T, nearest, P)
        known = apart.isfinite()  # fewer are kept at first
        likeness = self._likeness(torch.cdist(places, places)) * (known[..., None] & known[..., None, :])
        factor = torch.linalg.cholesky(likeness + self.ridge * torch.diag_embed(noises))
        to_them = self._likeness(apart)[..., None]
        shares = torch.cholesky_solve(to_them, factor)
        left = 1 - (shares * to_them).sum(dim=(-2, -1))
        return self._found((shares.mT @ latents)[..., 0, :], left, poses)

    def _write(self, state: RecallState, poses: Tensor, latents: Tensor, noises: Tensor, novelty: Tensor) -> None:
        """Keep the frames of a chunk that tell anything, in place."""
        noisy = TELLS * self.ridge * noises
        tells = _are_known(poses) & (novelty > noisy / (1 + noisy))
        places = (state["kept"][:, None] + tells.cumsum(dim=1) - 1) % self.frames
        world, frame = tells.nonzero(as_tuple=True)
        into = world, places[world, frame]
        for name, values in (("poses", poses), ("latents", latents), ("noises", noises)):
            state[name][into] = values[world, frame].to(state[name].dtype)
        state["kept"] += tells.sum(dim=1)

    def _found(self, recalled: Tensor, left: Tensor, poses: Tensor) -> Recollection:
        """In float32; nothing of unknown poses."""
        known = _are_known(poses)
        latents = (recalled * known[..., None]).unflatten(2, self.latent_shape).float()
        return Recollection(latents, left.clamp(0, 1).masked_fill(~known, 1.0).float())

    def _nothing(self, batch: int, frames: int, device: torch.device) -> Recollection:
        latents = torch.zeros(batch, frames, *self.latent_shape, device=device)
        return Recollection(latents, torch.ones(batch, frames, device=device))

    def _noises(self, noise: float | Tensor, latents: Tensor) -> Tensor:
        """(B, T) float64."""
        return torch.as_tensor(noise, dtype=torch.float64, device=latents.device).expand(*latents.shape[:2])

    def _likeness(self, apart: Tensor) -> Tensor:
        """How alike poses at such distances are: 1 at none, 0 at an infinite one."""
        squares, total = -0.5 * apart.square(), torch.zeros_like(apart)
        for width in self.widths:
            total += (squares / width**2).exp()
        return total / len(self.widths)


def _are_known(poses: Tensor) -> Tensor:
    """Which of the poses (…, P) have no NaN: (…)."""
    return ~poses.isnan().any(dim=-1)


def _solve(likeness: Tensor, values: Tensor, chunk: int, noises: Tensor) -> tuple[Tensor, Tensor]:
    """What the earlier chunks tell of each frame, (B, T, C·h·w), and the novelty that they leave, (B, T).

    Within a chunk, no frame knows of another.

    Args:
        likeness: (B, T, T) K.
        values: (B, T, C·h·w).
        noises: (B, T) λR of each frame.
    """
    factor = torch.linalg.cholesky(likeness + torch.diag_embed(noises))
    white = torch.linalg.solve_triangular(factor, values, upper=False)
    number = torch.arange(likeness.shape[-1], device=likeness.device) // chunk
    before = factor * (number[:, None] > number)  # of earlier chunks
    return before @ white, 1 - before.square().sum(dim=-1)
