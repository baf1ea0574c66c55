"""Weights, gradients, EMA and optimiser states shared out over the processes (FSDP2), for models too large for one.

Checkpoints hold whole tensors, so a run goes on with another number of processes, shared out or not.
"""

from typing import Any

import torch
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from lssvwm_core.model.world_model import WorldModel


def shard(model: WorldModel, device: torch.device) -> None:
    """Leave to each process its share of every tensor; a layer is put together while it computes, and no longer."""
    mesh = init_device_mesh(device.type, (torch.distributed.get_world_size(),))
    for layer in model.layers:
        fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh)


def gather(values: Any, keep: bool = True) -> Any:
    """A nest of dicts, lists and tuples with its sharded tensors whole, on the CPU: every process must call it.

    Without `keep` they are None: the process only helps another one.
    """
    if isinstance(values, dict):
        return {name: gather(value, keep) for name, value in values.items()}
    if isinstance(values, list | tuple):
        return type(values)(gather(value, keep) for value in values)
    if not isinstance(values, DTensor):
        return values
    full = values.full_tensor()
    return full.cpu() if keep else None


def gather_model(model: WorldModel, keep: bool) -> WorldModel:
    """The model itself, or a whole copy of a sharded one where `keep` says so: every process must call it."""
    if not any(isinstance(parameter, DTensor) for parameter in model.parameters()):
        return model
    state = gather(model.state_dict(), keep)
    if not keep:
        return model
    copy = WorldModel(model.config).eval()
    copy.load_state_dict(state)
    return copy


def load_optimizer(optimizer: torch.optim.Optimizer, moments: dict[int, dict[str, Tensor]]) -> None:
    """Load whole moments, by the number of their parameter; each process takes its shares of them."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for number, tensors in moments.items():
        parameter = parameters[number]
        if isinstance(parameter, DTensor):
            for name, tensor in tensors.items():
                if tensor.shape == parameter.shape:
                    mesh, placements = parameter.device_mesh, parameter.placements
                    whole = tensor.to(parameter.device)
                    tensors[name] = distribute_tensor(whole, mesh, placements, src_data_rank=None)
    optimizer.load_state_dict({"state": moments, "param_groups": optimizer.state_dict()["param_groups"]})
