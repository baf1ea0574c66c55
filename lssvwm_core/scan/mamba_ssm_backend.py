"""The Triton kernels of the mamba-ssm package, on CUDA.

A mamba-ssm built without its CUDA extensions (the wheel that installs everywhere) fails to import as a whole, though
its Triton kernels work; they are then imported below an empty parent module.
"""

import functools
import importlib
import importlib.util
import sys
import types
from typing import Any

import torch
from torch import Tensor

CHUNK = 128  # tokens


@torch.compiler.disable  # type: ignore[untyped-decorator]  # Triton kernels as they are, between compiled graphs
def scan(x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, initial_state: Tensor | None) -> tuple[Tensor, Tensor]:
    """See `lssvwm_core.scan.ssd_scan`; without the D term. Raises: ImportError when mamba-ssm is not usable."""
    y, state = _kernels().mamba_chunk_scan_combined(
        x.contiguous(),
        dt.float().contiguous(),
        A.float(),
        B.to(x.dtype).contiguous(),
        C.to(x.dtype).contiguous(),
        chunk_size=CHUNK,
        initial_states=None if initial_state is None else initial_state.float().contiguous(),
        return_final_states=True,
    )
    return y, state


def why_unavailable() -> str | None:
    """None when the kernels import, else the reason in words."""
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
        spec = importlib.util.find_spec("mamba_ssm")
        if spec is None or spec.submodule_search_locations is None:
            raise
    parent = types.ModuleType("mamba_ssm")
    parent.__path__ = list(spec.submodule_search_locations)
    sys.modules["mamba_ssm"] = parent
    try:
        return importlib.import_module(name)
    finally:
        del sys.modules["mamba_ssm"]
