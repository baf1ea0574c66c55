"""Where and in what precision to compute."""

import contextlib

import torch

from lssvwm_core.compat import cpu_has, cpu_vendor
from lssvwm_datasets.errors import LssvwmError


def pick_device(name: str = "auto") -> torch.device:
    """`auto` is CUDA when there is one, else the CPU. Raises: LssvwmError for a device that is not there."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise LssvwmError(f"device {name!r} cannot be used here: {str(error).splitlines()[0]}") from error
    return device


def autocast(device: torch.device, precision: str) -> contextlib.AbstractContextManager[None]:
    """For `bf16`, matrix products in bfloat16; weights, norms, decays and states stay in float32."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bf16")


def fastest_precision(device: torch.device) -> str:
    """`bf16` or `fp32`: bf16 on CUDA and on CPUs with AMX; others multiply matrices faster in float32.

    Told by the hardware and not by timing: the same seed must give the same frames on a busy machine too.
    """
    return "bf16" if device.type != "cpu" or cpu_has("amx_tile") else "fp32"


def training_precision(device: torch.device) -> str:
    """`bf16` or `fp32`: as for rollouts, and bf16 on AMD's CPUs that have instructions for it.

    Those multiply the large matrices of training twice as fast in bf16, the small ones of a rollout no faster; Intel's
    without AMX multiply half as fast.
    """
    amd = device.type == "cpu" and cpu_has("avx512_bf16") and "AuthenticAMD" in cpu_vendor()
    return "bf16" if amd else fastest_precision(device)


def why_not_compiled(device: torch.device) -> str | None:
    """None where torch.compile works, else the reason in words: no C++ compiler, say, or no Triton."""
    try:
        torch.compile(lambda x: x + 1)(torch.ones(2, device=device))
    except Exception as error:  # whatever compilers raise
        return f"torch.compile does not work here: {str(error).splitlines()[0]}"
    return None
