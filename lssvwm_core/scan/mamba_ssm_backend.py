"""The Triton kernels of the mamba-ssm package, on CUDA.

A mamba-ssm that was built without its CUDA extensions cannot be imported as a package, although its Triton kernels
work. The module with the kernels is then imported without the package around it.
"""

import functools
import importlib
from typing import Any

import torch
from torch import Tensor

from lssvwm_datasets.imports import import_without_parent

CHUNK = 128  # tokens


def scan(
    x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, initial_state: Tensor | None, final: bool = True
) -> tuple[Tensor, Tensor]:
    """As `lssvwm_core.scan.ssd_scan`, without the D term. Raises: ImportError when mamba-ssm is not usable."""
    inputs = [tensor.contiguous() for tensor in (x, dt.float(), A.float(), B.to(x.dtype), C.to(x.dtype))]
    if initial_state is not None:
        inputs.append(initial_state.float().contiguous())
    return _compiled_scan(*inputs) if torch.compiler.is_compiling() else _run_kernels(*inputs)


def _run_kernels(
    x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, initial_state: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    combined = _kernels().mamba_chunk_scan_combined
    return combined(x, dt, A, B, C, chunk_size=CHUNK, initial_states=initial_state, return_final_states=True)


@torch.library.custom_op("lssvwm::mamba_scan", mutates_args=())
def _compiled_scan(
    x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, initial_state: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The kernels as a single operation, which torch.compile calls without tracing into it."""
    return _run_kernels(x, dt, A, B, C, initial_state)


@_compiled_scan.register_fake
def _(
    x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, initial_state: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    b, _, heads, p = x.shape
    return torch.empty_like(x), x.new_empty(b, heads, p, B.shape[-1], dtype=torch.float32)


@torch.library.custom_op("lssvwm::mamba_scan_backward", mutates_args=())
def _compiled_backward(gradients: list[Tensor], inputs: list[Tensor]) -> list[Tensor]:
    """Gradients of the inputs. The forward kernels run again: what they save for their backward pass is not public."""
    leaves = [tensor.detach().requires_grad_() for tensor in inputs]
    with torch.enable_grad():
        outputs = _run_kernels(*leaves)
    return [gradient.contiguous() for gradient in torch.autograd.grad(outputs, leaves, gradients)]


@_compiled_backward.register_fake
def _(gradients: list[Tensor], inputs: list[Tensor]) -> list[Tensor]:
    return [torch.empty_like(tensor) for tensor in inputs]


def _keep_inputs(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.save_for_backward(*(tensor for tensor in inputs if tensor is not None))


def _gradients(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
    found = _compiled_backward([gradient.contiguous() for gradient in gradients], list(ctx.saved_tensors))
    return (*found, *([None] * (6 - len(found))))


_compiled_scan.register_autograd(_gradients, setup_context=_keep_inputs)


def why_unavailable() -> str | None:
    """None when the kernels can be imported, else the reason in words."""
    try:
        _kernels()
    except ImportError as error:
        return f"mamba-ssm is not usable: {error}; see README, 'On a GPU'"
    return None


@functools.cache
def _kernels() -> Any:
    name = "mamba_ssm.ops.triton.ssd_combined"
    try:
        return importlib.import_module(name)
    except ImportError:
        return import_without_parent(name)
