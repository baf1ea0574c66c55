"""Where a frame was seen from, reckoned from the actions where no pose tells: dead reckoning.

What an action does to an agent is nearly linear in its last few actions and in the products of successive ones, with
inertia and all, so it is fitted to the recordings by least squares (`lssvwm_core.training.data.odometry`) and kept in
the model's config: there are no weights to train. The reckoned poses address the memory of the scan (`address`) and
that by least squares (`recall`), and nothing else: a world that is told actions alone still finds a place again, until
a wall that stopped it has led the reckoning astray.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

OdometerState = dict[str, Tensor]


class Odometer(nn.Module):
    """Fills in the poses that are unknown.

    Position on the ground and heading follow from the motion that is seen from the agent; every other column of a pose,
    a height or a pitch, from what each action adds to it.

    Args:
        odometry: (lags · A + pairs · A², P - 1) what each of the `features` adds: units forward, units to the left,
            radians turned to the left, then to each other column of a pose, in their order.
        columns: A.
        kinds: (P,) of the pose's columns (`lssvwm_datasets.poses`): x, y, cos and sin are among them.
        pairs: of successive actions whose products are among the features.
    """

    motion: Tensor

    def __init__(
        self,
        odometry: Sequence[Sequence[float]],
        columns: int,
        kinds: tuple[str, ...] = ("x", "y", "cos", "sin"),
        pairs: int = 0,
    ) -> None:
        super().__init__()
        self.lags = len(odometry) // columns - pairs * columns
        self.columns, self.kinds, self.pairs = columns, kinds, pairs
        self.register_buffer("motion", torch.tensor(odometry), persistent=False)

    def initial_state(self, batch: int) -> OdometerState:
        """`pose` (B, P): the origin, facing along x; `actions` (B, lags - 1, A), none so far."""
        origin = [float(kind == "cos") for kind in self.kinds]
        pose = torch.tensor(origin, device=self.motion.device).repeat(batch, 1)
        return {"pose": pose, "actions": pose.new_zeros(batch, self.lags - 1, self.columns)}

    def forward(
        self, poses: Tensor | None, actions: Tensor | None, state: OdometerState, frames: int
    ) -> tuple[Tensor, OdometerState]:
        """Poses (B, T, P) and actions (B, T, A), rows of NaN where unknown; None: all are.

        Returns: the poses with those that follow from actions filled in, and the state after these frames. A pose stays
        unknown from an unknown action on, until the next one of which every column is known.
        """
        batch = len(state["pose"])
        poses = state["pose"].new_full((batch, frames, len(self.kinds)), torch.nan) if poses is None else poses.float()
        actions = poses.new_full((batch, frames, self.columns), torch.nan) if actions is None else actions.float()
        motions = self._motions(actions, state["actions"])
        forward, left, turn, *added = motions.unbind(-1)  # (B, T) each, NaN where unknown

        # The latest pose that is known, at every frame: the state's, before the first
        known = torch.cat([state["pose"][:, None], poses], dim=1)  # (B, 1 + T, P)
        times = torch.arange(frames + 1, device=poses.device)
        anchors = (times * ~known.isnan().any(dim=-1)).cummax(dim=1).values  # (B, 1 + T) indices

        def since_anchor(steps: Tensor) -> Tensor:
            """(B, T) -> (B, 1 + T) their sums after the anchors."""
            sums = F.pad(steps, (1, 0)).cumsum(dim=1)
            return sums - sums.gather(1, anchors)

        at_anchor = known.gather(1, anchors[..., None].expand(-1, -1, len(self.kinds))).unbind(-1)
        x, y, cos, sin = (at_anchor[self.kinds.index(kind)] for kind in ("x", "y", "cos", "sin"))
        headings = torch.atan2(sin, cos) + since_anchor(turn.nan_to_num(0.0))
        along = headings[:, :-1] + turn / 2  # of a step: halfway through its turn
        reckoned = {
            "x": x + since_anchor((forward * along.cos() - left * along.sin()).nan_to_num(0.0)),
            "y": y + since_anchor((forward * along.sin() + left * along.cos()).nan_to_num(0.0)),
            "cos": headings.cos(),
            "sin": headings.sin(),
        }
        others = iter(added)
        columns = [
            reckoned[kind] if kind in reckoned else before + since_anchor(next(others).nan_to_num(0.0))
            for kind, before in zip(self.kinds, at_anchor, strict=True)
        ]
        lost = since_anchor(turn.isnan().float()) > 0
        followed = torch.stack(columns, dim=-1).masked_fill(lost[..., None], torch.nan)
        filled = torch.where(known.isnan(), followed, known)
        kept = torch.cat([state["actions"], actions], dim=1)[:, frames:]
        return filled[:, 1:], {"pose": filled[:, -1].clone(), "actions": kept.clone()}

    def _motions(self, actions: Tensor, before: Tensor) -> Tensor:
        """(B, T, A) -> (B, T, P - 1) the motion that led to each frame; an unknown action from before adds nothing."""
        unknown = actions.isnan().any(dim=-1, keepdim=True)
        rows = torch.cat([before, actions], dim=1).nan_to_num(0.0).unfold(1, self.lags, 1)  # (B, T, A, lags)
        recent = rows.flip(-1).transpose(-1, -2)  # (B, T, lags, A), the latest first
        with torch.autocast(recent.device.type, enabled=False):
            return (features(recent, self.pairs) @ self.motion).masked_fill(unknown, torch.nan)


def features(recent: Tensor, pairs: int) -> Tensor:
    """(…, lags, A) the last actions, the latest first -> (…, lags · A + pairs · A²).

    Their columns; then the products of the columns of each action with those of the one before it.
    """
    together = recent[..., :pairs, :, None] * recent[..., 1 : pairs + 1, None, :]
    return torch.cat([recent.flatten(-2), together.flatten(-3)], dim=-1)
