"""The selective state-space scan (Mamba-2's SSD): one function, several backends.

    h_t = exp(dt_t A) h_{t-1} + dt_t x_t ⊗ B_t          y_t = h_t C_t + D x_t

`reference` computes this recurrence token by token, and the tests compare the other backends with it; `torch` computes
it in chunks by matrix products, on any device; `mamba_ssm` runs the Triton kernels of the mamba-ssm package on CUDA.
"""

import functools
import logging
from typing import Literal, overload

import torch
from torch import Tensor

from lssvwm_core.scan import mamba_ssm_backend, reference_backend, torch_backend

IMPLEMENTATIONS = {"mamba_ssm": mamba_ssm_backend, "torch": torch_backend, "reference": reference_backend}
BACKENDS = ("auto", *IMPLEMENTATIONS)
logger = logging.getLogger(__name__)


@overload
def ssd_scan(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    *,
    D: Tensor | None = ...,
    initial_state: Tensor | None = ...,
    return_final_state: Literal[False] = ...,
    backend: str = ...,
) -> Tensor: ...
@overload
def ssd_scan(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    *,
    D: Tensor | None = ...,
    initial_state: Tensor | None = ...,
    return_final_state: Literal[True],
    backend: str = ...,
) -> tuple[Tensor, Tensor]: ...
def ssd_scan(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    *,
    D: Tensor | None = None,
    initial_state: Tensor | None = None,
    return_final_state: bool = False,
    backend: str = "auto",
) -> Tensor | tuple[Tensor, Tensor]:
    """Compute the scan over a sequence of any length l >= 1.

    Args:
        x: (b, l, heads, p) values.
        dt: (b, l, heads) step sizes, after softplus.
        A: (heads,) negative decay rates.
        B, C: (b, l, groups, n) input and output maps; `groups` divides `heads`.
        D: (heads,) skip weights.
        initial_state: (b, heads, p, n), the state before the first token; zeros when None.
        backend: one of `BACKENDS`; `auto` is mamba_ssm on CUDA where it is installed, else torch.

    Returns: y (b, l, heads, p) of x's dtype, and with `return_final_state` the state (b, heads, p, n), float32 (float64
        when x is). Decays and states are computed in float32 whatever x's dtype.

    Raises: ValueError for shapes that do not fit, or an unknown backend.
    """
    _check_shapes(x, dt, A, B, C, D, initial_state)
    if backend not in BACKENDS:
        raise ValueError(f"unknown scan backend {backend!r}; expected one of {', '.join(BACKENDS)}")
    implementation = IMPLEMENTATIONS[_auto(x.device.type) if backend == "auto" else backend]
    with torch.autocast(x.device.type, enabled=False):
        y, final_state = implementation.scan(x, dt, A, B, C, initial_state, return_final_state)
    if D is not None:
        y = y + (D[:, None] * x).to(y.dtype)
    return (y, final_state) if return_final_state else y


def choose_backend(device_type: str) -> tuple[str, str]:
    """The backend that `auto` chooses for a device type ("cpu", "cuda"), and the reason in words."""
    if device_type != "cuda":
        return "torch", f"the device is {device_type}"
    missing = mamba_ssm_backend.why_unavailable()
    return ("torch", missing) if missing else ("mamba_ssm", "CUDA and mamba-ssm are there")


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]  # logging cannot be compiled
def _auto(device_type: str) -> str:
    return _pick(device_type)


@functools.cache
def _pick(device_type: str) -> str:
    """The backend for a device type; logs the choice and its reason once."""
    name, reason = choose_backend(device_type)
    logger.info("scan backend: %s (%s)", name, reason)
    return name


def _check_shapes(
    x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor | None, initial_state: Tensor | None
) -> None:
    if x.ndim != 4 or x.shape[1] < 1:
        raise ValueError(f"x has shape {tuple(x.shape)}, expected (b, l, heads, p) with l >= 1")
    b, l, heads, p = x.shape
    if B.ndim != 4 or heads % B.shape[2]:
        raise ValueError(f"B has shape {tuple(B.shape)}, expected (b, l, groups, n) with groups dividing {heads} heads")
    groups, n = B.shape[2:]
    for name, tensor, expected in (
        ("dt", dt, (b, l, heads)),
        ("A", A, (heads,)),
        ("B", B, (b, l, groups, n)),
        ("C", C, (b, l, groups, n)),
        ("D", D, (heads,)),
        ("initial_state", initial_state, (b, heads, p, n)),
    ):
        if tensor is not None and tuple(tensor.shape) != expected:
            raise ValueError(f"{name} has shape {tuple(tensor.shape)}, expected {expected}")
