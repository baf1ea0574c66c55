"""What a training step costs, counted without computing it: matrix products, and bytes kept for the backward pass."""

from collections import Counter
from dataclasses import dataclass, replace
from statistics import fmean

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.flop_counter import FlopCounterMode

from lssvwm_core.compat import flops_of_attention, storage_key, uncomputed
from lssvwm_core.device import autocast
from lssvwm_core.diffusion import flow_loss
from lssvwm_core.model.config import ModelConfig
from lssvwm_core.model.world_model import WorldModel
from lssvwm_datasets.errors import LssvwmError

STATE_BYTES = 4 + 4 + 8 + 4  # of a parameter: weight, gradient, AdamW's two moments, EMA, all in float32


@dataclass(frozen=True)
class Gpu:
    tflops: float
    """Peak of dense bf16 matrix products that sum in float32."""
    memory: float
    """GB."""


GPUS = {  # by the makers' data sheets
    "B200": Gpu(2250, 180),
    "H200": Gpu(989, 141),
    "H100": Gpu(989, 80),
    "H100 PCIe": Gpu(756, 80),
    "A100": Gpu(312, 80),
    "L40S": Gpu(362, 48),
    "L4": Gpu(121, 24),
    "RTX 5090": Gpu(209, 32),
    "RTX 4090": Gpu(165, 24),
    "RTX 3090": Gpu(71, 24),
}


@dataclass(frozen=True)
class StepCost:
    """What one step costs, on one process.

    Attributes:
        flops: of matrix products, forward and backward.
        recomputed_flops: of those that activation checkpointing computes again.
        forward_flops: of the forward pass alone, by kind of mixer, `mlp` and `rest`.
        activation_bytes: kept between forward and backward.
        checkpointed_bytes: the same with activation checkpointing: the layers' inputs, and one layer at a time.
    """

    flops: int
    recomputed_flops: int
    forward_flops: dict[str, int]
    activation_bytes: int
    checkpointed_bytes: int


def step_cost(config: ModelConfig, batch: int, frames: int, chunk: int, precision: str = "bf16") -> StepCost:
    """The cost of a step on `batch` clips of `frames` frames. The scan is counted as the torch backend computes it."""
    forward, backward = (FlopCounterMode(display=False, custom_mapping=flops_of_attention()) for _ in range(2))
    with uncomputed():
        model = WorldModel(config)
        latents, levels = torch.empty(batch, frames, *config.latent_shape), torch.empty(batch, frames)
        conditions = {name: torch.empty(batch, frames, columns) for name, columns in config.streams.items()}
        saved, counts = _Saved(model), _flops_by_name(model, forward)
        with forward, autocast(torch.device("cpu"), precision), saved_tensors_hooks(saved.keep, _itself):
            loss = flow_loss(model, latents, torch.empty_like(latents), levels, conditions, chunk)
        with backward:
            loss.backward()
    layers = [f"layers.{number}" for number in range(config.depth)]
    inputs = 4 * batch * frames * config.grid[0] * config.grid[1] * config.width  # bytes, of each layer
    by_layer = [saved.bytes_of(layer) for layer in model.layers]
    total = forward.get_total_flops()
    parts = {
        name: sum(counts[f"{layer}.mixers.{number}"] for layer in layers) for number, name in enumerate(config.mixers)
    }
    parts["mlp"] = sum(counts[f"{layer}.{linear}"] for layer in layers for linear in ("mlp_in", "mlp_out"))
    parts["rest"] = total - sum(parts.values())
    return StepCost(
        flops=total + backward.get_total_flops(),
        recomputed_flops=sum(counts[layer] for layer in layers),
        forward_flops=parts,
        activation_bytes=saved.bytes_of(None) + sum(by_layer),
        checkpointed_bytes=saved.bytes_of(None) + inputs * config.depth + max(by_layer),
    )


def _flops_by_name(model: nn.Module, counter: FlopCounterMode) -> Counter[str]:
    """What `counter` counts while each of the model's modules is called, by its name; filled as that happens.

    By hooks of the modules themselves: those by which the counter tells modules apart are the whole process's, so
    that it takes modules which other threads call for its own.
    """
    counts: Counter[str] = Counter()

    def watch(name: str, module: nn.Module) -> None:
        module.register_forward_pre_hook(lambda *_: counts.subtract({name: counter.get_total_flops()}))
        module.register_forward_hook(lambda *_: counts.update({name: counter.get_total_flops()}))

    for name, module in model.named_modules():
        watch(name, module)
    return counts


class _Saved:
    """Storages kept for the backward pass, weights apart, with the layer that kept each first."""

    def __init__(self, model: WorldModel) -> None:
        self.layer: nn.Module | None = None
        self.kept: dict[int, tuple[nn.Module | None, int]] = {}
        self.alive: list[Tensor] = []  # so that no two storages have one address
        self.weights = {storage_key(parameter) for parameter in model.parameters()}
        for layer in model.layers:
            layer.register_forward_pre_hook(lambda module, _: self._enter(module))
            layer.register_forward_hook(lambda *_: self._enter(None))

    def _enter(self, layer: nn.Module | None) -> None:
        self.layer = layer

    def keep(self, tensor: Tensor) -> Tensor:
        key = storage_key(tensor)
        if key not in self.weights:
            self.kept.setdefault(key, (self.layer, tensor.untyped_storage().nbytes()))
            self.alive.append(tensor)
        return tensor

    def bytes_of(self, layer: nn.Module | None) -> int:
        return sum(size for owner, size in self.kept.values() if owner is layer)


def flops_a_frame(config: ModelConfig) -> float:
    """The FLOPs of training on one frame, without computing anything again; mean over the model's chunk sizes.

    Those of a memory by least squares are left out: they are few, are not learnt, and grow with the clip.
    """
    config = replace(config, recall=0)
    least = 20 * config.frame_window  # as long as clips are
    lengths = {chunk: least + -least % chunk for chunk in config.chunk_sizes}
    return fmean(step_cost(config, 1, lengths[chunk], chunk).flops / lengths[chunk] for chunk in config.chunk_sizes)


def peak_tflops(device_name: str) -> float | None:
    """The peak of a GPU by its name, such as `NVIDIA H100 80GB HBM3`; None for one that is not in the table."""
    name = device_name.removeprefix("NVIDIA ").removeprefix("GeForce ")
    fitting = [known for known in GPUS if f"{name} ".replace("-", " ").startswith(f"{known} ")]
    return GPUS[max(fitting, key=len)].tflops if fitting else None


def find_gpus(name: str) -> dict[str, Gpu]:
    """The GPU of a name such as `H100` or `4090`; all of the table for an empty one. Raises: LssvwmError."""
    wanted = name.lower()
    found = {known: gpu for known, gpu in GPUS.items() if wanted in ("", known.lower(), known.lower().split(" ")[-1])}
    if not found:
        raise LssvwmError(f"--gpu {name}: not in the table; expected one of {', '.join(GPUS)}")
    return found


def _itself(tensor: Tensor) -> Tensor:
    return tensor
