"""The scan in chunks, by matrix products (Mamba-2, section 6), on any device.

Within a chunk, the outputs are a masked matrix product over all pairs of tokens. Between chunks, only the states are
passed on, and one matrix product computes them all. Large products run in x's dtype; decays and states stay in float32.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

CHUNK = 64  # most tokens in a chunk; measured to be the fastest on CPUs


def scan(
    x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, initial_state: Tensor | None, final: bool = True
) -> tuple[Tensor, Tensor | None]:
    """As `lssvwm_core.scan.ssd_scan`, without the D term. The last state is None where `final` does not ask for it."""
    b, length, heads, p = x.shape
    groups, n = B.shape[2:]
    work = torch.promote_types(x.dtype, torch.float32)
    q = _chunk(length)
    padding = -length % q  # dt = 0: a padded token changes no state
    chunks = (length + padding) // q

    def chunked(tensor: Tensor) -> Tensor:  # (b, l, k, d) -> (b, chunks, k, q, d)
        padded = F.pad(tensor, (0, 0, 0, 0, 0, padding)) if padding else tensor
        return padded.unflatten(1, (chunks, q)).transpose(2, 3)

    dt = chunked(dt.to(work)[..., None]).squeeze(-1)  # (b, chunks, heads, q)
    log_decay = (dt * A.to(work)[:, None]).cumsum(dim=-1)  # from the chunk's start up to and including each token
    X, B, C = chunked(x), chunked(B.to(x.dtype)), chunked(C.to(x.dtype))
    per_group = heads // groups

    # Within each chunk: y_i = Σ_{j<=i} (C_i · B_j) exp(decay from j to i) dt_j x_j
    products = (C @ B.transpose(-1, -2)).repeat_interleave(per_group, dim=2)  # (b, chunks, heads, q, q)
    future = torch.ones(q, q, dtype=torch.bool, device=x.device).triu(1)
    between = (log_decay[..., :, None] - log_decay[..., None, :]).masked_fill(future, -torch.inf)
    y = (products * (between.exp() * dt[..., None, :]).to(x.dtype)) @ X  # (b, chunks, heads, q, p)

    if initial_state is None:
        initial_state = x.new_zeros(b, heads, p, n, dtype=work)
    before, last = initial_state.to(work)[:, None], None  # the states before each chunk
    if final or chunks > 1:  # a single chunk that nothing follows only reads the state, which is most of what it costs
        before, last = _states(before, X, B.repeat_interleave(per_group, dim=2), log_decay, dt)
    carried = C.repeat_interleave(per_group, dim=2) @ before.to(x.dtype).transpose(-1, -2)
    y = y + carried * log_decay.exp()[..., None].to(x.dtype)
    return y.transpose(2, 3).flatten(1, 2)[:, :length], last


def _states(initial: Tensor, X: Tensor, B: Tensor, log_decay: Tensor, dt: Tensor) -> tuple[Tensor, Tensor]:
    """The states before each chunk (b, chunks, heads, p, n), and the last one (b, heads, p, n).

    Args:
        initial: (b, 1, heads, p, n); X (b, chunks, heads, q, p), B (b, chunks, heads, q, n), the others without d.
    """
    # What each chunk adds to the state: Σ_j exp(decay from j to the end) dt_j x_j ⊗ B_j
    to_end = (log_decay[..., -1:] - log_decay).exp() * dt
    added = (X.to(dt.dtype) * to_end[..., None]).transpose(-1, -2) @ B.to(dt.dtype)  # (b, chunks, heads, p, n)
    if added.shape[1] == 1:
        return initial, log_decay[:, 0, :, -1, None, None].exp() * initial[:, 0] + added[:, 0]
    states = _states_between_chunks(initial[:, 0], added, log_decay[..., -1])
    return states[:, :-1], states[:, -1].clone()


def _chunk(length: int) -> int:
    """Tokens in a chunk: one that divides the length where possible, as padding costs more than shorter chunks."""
    if length <= CHUNK:
        return length
    return next((q for q in range(CHUNK, CHUNK // 2, -1) if length % q == 0), CHUNK)


def _states_between_chunks(initial_state: Tensor, added: Tensor, log_decay: Tensor) -> Tensor:
    """The state before each chunk and after the last one, (b, chunks + 1, heads, p, n).

    Args:
        initial_state: (b, heads, p, n).
        added: (b, chunks, heads, p, n), what each chunk adds to the state at its end.
        log_decay: (b, chunks, heads), the logarithm of each chunk's decay.
    """
    chunks = added.shape[1]
    sources = torch.cat([initial_state[:, None], added], dim=1).transpose(1, 2)  # (b, heads, chunks + 1, p, n)
    # Each span is summed separately: differences of running sums would lose small decays after large ones to rounding.
    after = torch.ones(chunks + 1, chunks + 1, dtype=torch.bool, device=added.device).tril(-1)  # [i, j]: i after j
    steps = F.pad(log_decay.transpose(1, 2), (1, 0))[..., None]  # (b, heads, chunks + 1, 1)
    spans = steps.masked_fill(~after, 0.0).cumsum(dim=-2)  # [i, j]: from chunk j's end to chunk i's
    decay = spans.masked_fill(after.T, -torch.inf).exp()
    return (decay @ sources.flatten(-2)).unflatten(-1, added.shape[-2:]).transpose(1, 2)
