"""Weights, gradients, EMA and optimiser states shared out over the processes (FSDP2), for models too large for one.

Checkpoints hold whole tensors, so a run goes on with another number of processes, shared out or not.
"""

import warnings
from typing import Any

import torch
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.utils._pytree import tree_map

from lssvwm_core.model.world_model import WorldModel


def shard(model: WorldModel, device: torch.device) -> None:
    """Leave to each process its share of every tensor; a layer is put together while it computes, and no longer."""
    warnings.filterwarnings("ignore", "FSDP2-wrapped module .* returned a view", UserWarning)  # nobody writes to it
    mesh = init_device_mesh(device.type, (torch.distributed.get_world_size(),))
    for layer in model.layers:
        fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh)


def gather(values: Any, keep: bool = True) -> Any:
    """A nest of dicts and lists with its sharded tensors put together, on the CPU: every process must call it.

    Without `keep` they are None: the process only helps another one.
    """

    def gathered(value: Any) -> Any:
        if not isinstance(value, DTensor):
            return value
        full = value.full_tensor()
        return full.cpu() if keep else None

    return tree_map(gathered, values)


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


def load_optimizer(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Load a whole state; each process takes the shares that belong to its shares of the parameters."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for number, values in state["state"].items():
        parameter = parameters[number]
        if isinstance(parameter, DTensor):
            for name, value in values.items():
                if value.shape == parameter.shape:
                    mesh, placements = parameter.device_mesh, parameter.placements
                    value = value.to(parameter.device)
                    values[name] = distribute_tensor(value, mesh, placements, src_data_rank=None)
    optimizer.load_state_dict(state)
