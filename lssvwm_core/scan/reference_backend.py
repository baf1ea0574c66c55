"""The recurrence, computed token by token: slow and simple. In float64 it is the reference of the tests."""

import torch
from torch import Tensor


def scan(
    x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, initial_state: Tensor | None, final: bool = True
) -> tuple[Tensor, Tensor]:
    """As `lssvwm_core.scan.ssd_scan`, without the D term."""
    heads = x.shape[2]
    work = torch.promote_types(x.dtype, torch.float32)
    values, dt, A = x.to(work), dt.to(work), A.to(work)
    B = B.to(work).repeat_interleave(heads // B.shape[2], dim=2)  # (b, l, heads, n)
    C = C.to(work).repeat_interleave(heads // C.shape[2], dim=2)
    state = values.new_zeros(*x[:, 0].shape, B.shape[-1]) if initial_state is None else initial_state.to(work)
    outputs = []
    for t in range(x.shape[1]):
        decay = torch.exp(dt[:, t] * A)[..., None, None]  # (b, heads, 1, 1)
        state = decay * state + dt[:, t, :, None, None] * values[:, t, :, :, None] * B[:, t, :, None, :]
        outputs.append((state @ C[:, t, :, :, None]).squeeze(-1))  # (b, heads, p)
    return torch.stack(outputs, dim=1).to(x.dtype), state
