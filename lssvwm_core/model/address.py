"""Poses as addresses of the memory: where in a scan's state a frame is written and looked up.

The state of a scan is an associative memory: token t adds x_t ⊗ B_t, and C_s reads what was written under a similar B.
Here the pose enters B and C directly, as random Fourier features (Rahimi and Recht, 2007) that are learnt further: the
product of two addresses falls off as a Gaussian of the distance between the poses, so a frame finds what was seen from
its own pose, however long ago. This goes past the paper, whose scan has to learn addresses from the tokens alone.
"""

import math

import torch
from torch import Tensor, nn

LENGTHS = (0.3, 2.0)  # of the Gaussians at initialisation, in the pose's units (cells; cosine and sine of the heading)


class PoseAddress(nn.Module):
    """Adds to B and C of the scan what the pose of a frame says: learnt random Fourier features of it.

    Args:
        columns: P, of a pose.
        d_state: n of the scan; even.
    """

    def __init__(self, columns: int, d_state: int) -> None:
        super().__init__()
        shortest, longest = (math.log(length) for length in LENGTHS)
        lengths = torch.empty(d_state // 2).uniform_(shortest, longest).exp()
        self.frequencies = nn.Parameter(torch.randn(columns, d_state // 2) / lengths)
        self.write_scale = nn.Parameter(torch.ones(d_state))
        self.read_scale = nn.Parameter(torch.ones(d_state))

    def forward(self, poses: Tensor) -> tuple[Tensor, Tensor]:
        """(B, T, P) -> what is added to B and to C, (B, T, n) each; zeros where a pose is unknown (NaN)."""
        known = ~poses.isnan().any(dim=-1, keepdim=True)
        angles = poses.nan_to_num(0.0).float() @ self.frequencies
        address = torch.cat([angles.cos(), angles.sin()], dim=-1) * known
        return address * self.write_scale, address * self.read_scale
