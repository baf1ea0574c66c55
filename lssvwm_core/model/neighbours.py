"""Frames seen from near a pose, for places that were only nearly seen: what they show, and from where.

A memory by least squares gives back what was seen from a pose, and little of what is seen a quarter of a turn or half a
cell away from it. So poses at which something new was seen are kept as landmarks; each frame is told what was seen from
the landmarks nearest to its own pose, and where those lie as it sees them: a step back, a little to the left. What is
to be made of that, a picture that shifts, grows or is hidden, is learnt. (WorldMem, Xiao et al., 2025, keeps the frames
themselves, ever more of them; here a memory of a fixed size gives them back.)
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lssvwm_datasets.poses import plane_of

NEW = 0.5  # the novelty of a frame from which on its pose becomes a landmark
HIDDEN = 2  # width of the network that reads a frame, over D
LAYERS = 2
PLACE_WIDTH = 128  # of what it is told of where the frame was seen from


def nearest(landmarks: Tensor, poses: Tensor, new: Tensor, chunk: int, count: int, capacity: int) -> Tensor:
    """For each frame, which landmarks of earlier chunks are nearest to its pose, the nearest first.

    Args:
        landmarks: (B, N, P) from before these frames, the latest last; rows of NaN are none.
        poses: (B, T, P) of the frames; rows of NaN are unknown.
        new: (B, T) which of the frames become landmarks.
        count: K.
        capacity: how many of the latest landmarks are remembered.

    Returns: (B, T, K) indices into the N landmarks with the T frames after them; -1 where there are no more.
    """
    places = torch.cat([landmarks, poses], dim=1)  # (B, N + T, P)
    there = torch.cat([~landmarks.isnan().any(dim=-1), new], dim=1)
    chunks = torch.arange(poses.shape[1], device=poses.device) // chunk
    first_seen_by = F.pad(chunks + 1, (landmarks.shape[1], 0))  # (N + T,) chunks
    before = there[:, None] & (first_seen_by <= chunks[:, None])  # (B, T, N + T)
    number = there.cumsum(dim=1)[:, None]
    seen = before & (number > (before * number).amax(dim=-1, keepdim=True) - capacity)
    seen = seen & ~poses.isnan().any(dim=-1, keepdim=True)
    exact = "donot_use_mm_for_euclid_dist"
    distances = torch.cdist(poses.nan_to_num(0.0), places.nan_to_num(0.0), compute_mode=exact)
    found = distances.masked_fill(~seen, torch.inf).topk(count, dim=-1, largest=False)
    return found.indices.masked_fill(found.values.isinf(), -1)


def kept(landmarks: Tensor, poses: Tensor, new: Tensor) -> Tensor:
    """(B, N, P) the latest landmarks after these frames; arguments as for `nearest`."""
    places = torch.cat([landmarks, poses.masked_fill(~new[..., None], torch.nan)], dim=1)
    order = (~places.isnan().any(dim=-1)).long().argsort(dim=1, stable=True)  # rows that are none come first
    return rows_at(places, order)[:, -landmarks.shape[1] :].clone()


def rows_at(rows: Tensor, indices: Tensor) -> Tensor:
    """(B, N, …) rows, (B, …) indices of rows -> those rows; NaN for an index of -1."""
    batch = torch.arange(len(rows), device=rows.device).view(-1, *[1] * (indices.ndim - 1))
    found = rows[batch, indices.clamp(min=0)]
    return found.masked_fill((indices < 0).view(*indices.shape, *[1] * (rows.ndim - 2)), torch.nan)


class Neighbours(nn.Module):
    """What the neighbours of a frame add to its tokens: a network reads each whole, and says how much it counts.

    Its last layer starts at zero: a model that is given neighbours goes on as it was until it has learnt to use them.

    Args:
        latents: C·h·w, numbers of a frame.
        grid: (rows, columns) of tokens.
        width: D.
        pose_names, pose_kinds: of the pose's columns.
    """

    def __init__(
        self, latents: int, grid: tuple[int, int], width: int, pose_names: tuple[str, ...], pose_kinds: tuple[str, ...]
    ) -> None:
        super().__init__()
        self.grid, self.plane = grid, plane_of(pose_names, pose_kinds)
        hidden = HIDDEN * width
        self.read = nn.Linear(latents, hidden)
        self.place = nn.Sequential(
            nn.Linear(len(pose_names), PLACE_WIDTH), nn.SiLU(), nn.Linear(PLACE_WIDTH, 2 * LAYERS * hidden)
        )
        self.layers = nn.ModuleList(nn.Linear(hidden, hidden) for _ in range(LAYERS))
        self.weigh = nn.Linear(hidden, 1)
        self.tell = nn.Linear(hidden, grid[0] * grid[1] * width)
        nn.init.zeros_(self.tell.weight)
        nn.init.zeros_(self.tell.bias)

    def forward(self, frames: Tensor, places: Tensor, poses: Tensor) -> Tensor:
        """What is added to the tokens of T frames.

        Args:
            frames: (B, T, K, C, h, w) what was seen from the neighbours.
            places: (B, T, K, P) their poses; rows of NaN are none.
            poses: (B, T, P) of the frames themselves.

        Returns: (B, T, h, w, D) of the grid of tokens; zeros for a frame that has no neighbours.
        """
        there = ~places.isnan().any(dim=-1)  # (B, T, K)
        hidden = self.read(frames.flatten(3))
        modulations = self.place(self.seen_from(poses, places).nan_to_num(0.0)).chunk(2 * LAYERS, dim=-1)
        for layer, scale, shift in zip(self.layers, modulations[::2], modulations[1::2], strict=True):
            hidden = hidden + layer(F.silu(hidden * (1 + scale) + shift))
        weights = self.weigh(hidden).float().masked_fill(~there[..., None], -torch.inf).softmax(dim=2).nan_to_num(0.0)
        told = self.tell(F.silu((hidden * weights).sum(dim=2))) * there.any(dim=2, keepdim=True)
        return told.unflatten(-1, (*self.grid, -1))

    def seen_from(self, poses: Tensor, places: Tensor) -> Tensor:
        """(B, T, P) and (B, T, K, P) -> (B, T, K, P) where each place lies, as it is seen from the pose.

        Ahead, to the left, cosine and sine of the turn between the headings; lengths grow with their logarithm only.
        """
        own, there = poses[:, :, None].unbind(-1), places.unbind(-1)
        columns = [torch.asinh(place - here) for here, place in zip(own, there, strict=True)]
        if self.plane is not None:
            x, y, cos, sin = self.plane.x, self.plane.y, self.plane.cos, self.plane.sin
            right, up = there[x] - own[x], there[y] - own[y]
            columns[x] = torch.asinh(right * own[cos] + up * own[sin])
            columns[y] = torch.asinh(up * own[cos] - right * own[sin])
            columns[cos] = own[cos] * there[cos] + own[sin] * there[sin]
            columns[sin] = own[cos] * there[sin] - own[sin] * there[cos]
        return torch.stack(columns, dim=-1)
