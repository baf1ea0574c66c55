"""The figures of a probe, over the number of steps that the world has seen."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from lssvwm_core.probe.examples import Examples

SECOND_HALF = 500  # steps: what is seen from here on has a mean of its own


def constant(train: Examples, held_out: Examples) -> tuple[Tensor, Tensor]:
    """Errors of the training set's mean: of walls, and of objects as seen from the agent, which need no pose."""
    likely = (train.free.mean(dim=0) > 0.5).float()
    right = (held_out.free == likely).float().mean(dim=1)
    return right, (from_agent(held_out) - from_agent(train).mean(dim=0)).square().sum(dim=-1).mean(dim=1)


def from_agent(examples: Examples) -> Tensor:
    """(E, K, 2) how far each object is to the right and ahead of the agent."""
    x, y, cos, sin = examples.agents.unbind(-1)
    to_x, to_y = examples.objects[..., 0] - x[:, None], examples.objects[..., 1] - y[:, None]
    cos, sin = cos[:, None], sin[:, None]
    return torch.stack([to_x * sin - to_y * cos, to_x * cos + to_y * sin], dim=-1)


def figures(found: Mapping[str, tuple[Tensor, Tensor]], steps: Tensor) -> dict[str, Any]:
    """{what is probed: {steps, or "500 and more": {walls, objects}}}: accuracy, and RMSE in cells."""
    result: dict[str, Any] = {}
    for name, (right, off) in found.items():
        groups = {str(count): steps == count for count in sorted(set(steps.tolist()))}
        groups[f"{SECOND_HALF} and more"] = steps >= SECOND_HALF
        result[name] = {
            label: {"walls": right[rows].mean().item(), "objects": off[rows].mean().sqrt().item()}
            for label, rows in groups.items()
            if rows.any()
        }
    return result


def markdown(found: Mapping[str, Any]) -> str:
    """Two tables: accuracy of walls, and RMSE of objects in cells."""
    columns = list(next(iter(found.values())))
    lines = []
    for key, heading, show in (("walls", "walls, accuracy", "{:.1%}"), ("objects", "objects, RMSE in cells", "{:.2f}")):
        lines += [f"| {heading} | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
        for name, groups in found.items():
            lines.append(f"| {name} | " + " | ".join(show.format(groups[c][key]) for c in columns) + " |")
        lines.append("")
    return "\n".join(lines)
