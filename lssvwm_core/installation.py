"""What this installation runs with, and why: for bug reports."""

import importlib.metadata
import importlib.util
import os
import platform

import torch

from lssvwm_core.device import fastest_precision, pick_device, training_precision
from lssvwm_core.scan import choose_backend

PACKAGES = ("torch", "numpy", "h5py", "accelerate", "safetensors", "huggingface-hub", "av", "imageio-ffmpeg")
EXTRAS = {  # extra -> what it adds, and the module that tells whether it is there
    "maze": ("lssvwm record maze", "memory_maze"),
    "cuda": ("the Triton kernels of mamba-ssm", "mamba_ssm"),
    "play": ("lssvwm play in the browser", "starlette"),
    "gym": ("worlds as gymnasium environments", "gymnasium"),
    "eval": ("LPIPS", "torchmetrics"),
    "diffusers": ("image VAEs as autoencoders", "diffusers"),
    "ray": ("prepare --executor ray", "ray"),
}


def describe() -> str:
    """A Markdown block: versions, devices, the backends that would be used and why."""
    device = pick_device("auto")
    backend, reason = choose_backend(device.type)
    lines = [
        f"- lssvwm {_version('lssvwm')}, Python {platform.python_version()}, {platform.platform()}",
        "- " + ", ".join(f"{name} {_version(name)}" for name in PACKAGES),
        f"- device: {_device(device)}; {os.cpu_count()} CPU cores, {torch.get_num_threads()} threads",
        f"- scan: {backend} ({reason})",
        f"- precision: {fastest_precision(device)} in rollouts, {training_precision(device)} in training",
    ]
    for extra, (what, module) in EXTRAS.items():
        there = importlib.util.find_spec(module) is not None
        lines.append(f"- extra {extra} ({what}): {'yes' if there else f'no; pip install lssvwm[{extra}]'}")
    return "\n".join(lines)


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "missing"


def _device(device: torch.device) -> str:
    if device.type != "cuda":
        return f"cpu (no CUDA: torch {torch.__version__})"
    names = ", ".join(torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count()))
    return f"cuda ({names}; CUDA {torch.version.cuda})"
