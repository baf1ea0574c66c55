"""Run the real Triton kernels of mamba-ssm on the CPU, in Triton's interpreter, against the reference.

Prints a JSON list: for each shape the largest error of outputs and gradients over the reference's largest value, as the
kernels are and, for some, in a compiled graph. A program of its own, since `TRITON_INTERPRET` counts at import only and
parts of torch.cuda must be replaced. float32 only: the interpreter has no true bfloat16.
"""

import contextlib
import gc
import json
import os
import types

os.environ["TRITON_INTERPRET"] = "1"

import torch
from triton.runtime.autotuner import Autotuner

from lssvwm_core.scan import mamba_ssm_backend, ssd_scan

SHAPES = [  # b, l, heads, p, groups, n, with an initial state
    (1, 1, 2, 8, 1, 16, True),
    (2, 5, 3, 5, 1, 7, True),
    (1, 257, 2, 16, 2, 16, True),
    (1, 130, 2, 8, 1, 8, False),
]
COMPILED = (SHAPES[1], SHAPES[3])


def use_interpreter() -> None:
    """Give the kernels what they ask of a GPU, and one configuration each."""
    torch.cuda.device = lambda *_: contextlib.nullcontext()
    torch.cuda.get_device_properties = lambda *_: types.SimpleNamespace(multi_processor_count=1)
    mamba_ssm_backend._kernels()
    for kernel in gc.get_objects():  # their modules are in no table
        if isinstance(kernel, Autotuner):
            kernel.configs = kernel.configs[:1]


def with_the_kernels_as_one_node(graph: torch.fx.GraphModule, inputs: list[torch.Tensor]):
    assert torch.ops.lssvwm.mamba_scan.default in [node.target for node in graph.graph.nodes]
    return torch._dynamo.lookup_backend("aot_eager")(graph, inputs)


def outputs_and_gradients(
    backend: str, b: int, l: int, heads: int, p: int, groups: int, n: int, carried: bool, scan=ssd_scan
):
    generator = torch.Generator().manual_seed(l)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator).requires_grad_()

    inputs = {
        "x": normal(b, l, heads, p),
        "dt": (0.3 * torch.rand(b, l, heads, generator=generator)).requires_grad_(),
        "A": (-3 * torch.rand(heads, generator=generator)).requires_grad_(),
        "B": normal(b, l, groups, n),
        "C": normal(b, l, groups, n),
        "D": normal(heads),
    }
    if carried:
        inputs["initial_state"] = normal(b, heads, p, n)
    y, state = scan(**inputs, return_final_state=True, backend=backend)
    (y * normal(*y.shape).detach()).sum().add((state * normal(*state.shape).detach()).sum()).backward()
    return [y.detach(), state.detach(), *(tensor.grad for tensor in inputs.values())]


if __name__ == "__main__":
    use_interpreter()
    errors = []
    for shape in SHAPES:
        true = outputs_and_gradients("reference", *shape)
        compiled = torch.compile(ssd_scan, backend=with_the_kernels_as_one_node, fullgraph=True, dynamic=False)
        for scan in (ssd_scan, compiled) if shape in COMPILED else (ssd_scan,):
            pairs = zip(outputs_and_gradients("mamba_ssm", *shape, scan=scan), true, strict=True)
            errors.append(max(float((a - b).abs().max() / b.abs().max()) for a, b in pairs))
    print(json.dumps(errors))
