"""What versions of torch differ in: everything else in the package keeps to torch's documented interface.

Each function takes the way of the newer versions and has a public one for those that lack it.
"""

import contextlib
import inspect
import platform
from pathlib import Path
from typing import Any

import torch

CPU_INFO = Path("/proc/cpuinfo")  # Linux only


def cpu_has(feature: str) -> bool:
    """Whether the CPU has an instruction set, named as torch and Linux both do: `amx_tile`, `avx512_bf16`."""
    if hasattr(torch.cpu, "get_capabilities"):
        return bool(torch.cpu.get_capabilities().get(feature, False))
    return feature in _cpu_info("flags").split()


def cpu_vendor() -> str:
    """`AuthenticAMD` or `GenuineIntel` on Linux; elsewhere whatever the system calls its processor."""
    return _cpu_info("vendor_id") or platform.processor()


def compile_arguments(shapes: int) -> dict[str, Any]:
    """Arguments for torch.compile that let a function be compiled for as many input shapes.

    A torch that does not take them compiles 8 shapes and runs further ones uncompiled: slower, with the same results.
    """
    known = inspect.signature(torch.compile).parameters
    return {"recompile_limit": shapes} if "recompile_limit" in known else {}


def uncomputed() -> contextlib.AbstractContextManager[Any]:
    """A context in which new tensors have shapes but no content, and computing on them takes no time.

    Where torch has no such tensors any more, everything within is computed for real: slower, with the same shapes.
    """
    try:
        from torch._subclasses.fake_tensor import FakeTensorMode
    except ImportError:
        return contextlib.nullcontext()
    return FakeTensorMode()


def flops_of_attention() -> dict[Any, Any]:
    """What torch's FLOP counter is to count for attention on CPUs, since it knows that of GPUs only.

    A torch whose attention on CPUs is made of other operators has nothing to add: the counter knows those.
    """
    try:
        from torch.utils.flop_counter import sdpa_backward_flop_count, sdpa_flop_count

        forward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
        backward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward
    except (ImportError, AttributeError):
        return {}
    return {
        forward: lambda q, k, v, *_, **__: sdpa_flop_count(q, k, v),
        backward: lambda gradient, q, k, v, *_, **__: sdpa_backward_flop_count(gradient, q, k, v),
    }


def storage_key(tensor: torch.Tensor) -> int:
    """A number that tensors have in common when they share their memory, also where it has no content.

    Where torch does not number its storages, it is their address, which content must have for that.
    """
    storage = tensor.untyped_storage()
    return int(getattr(storage, "_cdata", 0)) or storage.data_ptr()


def _cpu_info(field: str) -> str:
    """A field of the first core; empty where there is no such field or no such file."""
    try:
        lines = CPU_INFO.read_text(encoding="utf-8").splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.split(":")[0].strip() == field), "")
