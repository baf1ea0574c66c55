"""Every version of torch from 2.9 on: what newer ones have is used, and what older ones have instead gives the same."""

import sys
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType, SimpleNamespace

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from lssvwm_core import compat
from lssvwm_core.device import fastest_precision, training_precision
from lssvwm_core.presets import preset
from lssvwm_core.training.step.cost import step_cost

XEON = ("GenuineIntel", "fpu avx2 avx512_bf16 amx_tile amx_bf16")
EPYC = ("AuthenticAMD", "fpu avx2 avx512_bf16")
CORE = ("GenuineIntel", "fpu avx2 avx512_bf16x")


@pytest.fixture(params=["new torch", "old torch"])
def cpu(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):  # type: ignore[no-untyped-def]
    """A function that makes this CPU another one, as the torch of today sees it and as older ones do."""

    def pretend(vendor: str, flags: str) -> None:
        info = tmp_path / "cpuinfo"
        info.write_text(f"processor\t: 0\nvendor_id\t: {vendor}\nmodel name\t: flags : x\nflags\t\t: {flags}\n")
        monkeypatch.setattr(compat, "CPU_INFO", info)
        if request.param == "new torch":
            known: Mapping[str, bool] = MappingProxyType(dict.fromkeys(flags.split(), True))
            monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: known, raising=False)
        else:
            monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)

    return pretend


@pytest.mark.parametrize(
    ("processor", "rollout", "training"),
    [(XEON, "bf16", "bf16"), (EPYC, "fp32", "bf16"), (CORE, "fp32", "fp32")],
    ids=["Intel with AMX", "AMD", "Intel without AMX"],
)
def test_precision_follows_the_instructions_of_the_cpu(cpu, processor, rollout, training):  # type: ignore[no-untyped-def]
    cpu(*processor)
    device = torch.device("cpu")
    assert (fastest_precision(device), training_precision(device)) == (rollout, training)


def test_where_linux_does_not_tell_no_instruction_is_taken_for_granted(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(compat, "CPU_INFO", tmp_path / "none")
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    assert not compat.cpu_has("amx_tile")
    assert isinstance(compat.cpu_vendor(), str)


class Doubler(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x + x


@pytest.mark.parametrize("limited", [False, True], ids=["old torch", "new torch"])
def test_a_compiled_layer_takes_any_number_of_shapes_and_leaves_the_settings_of_others(limited: bool) -> None:
    arguments = compat.compile_arguments(64) if limited else {}
    compiled: list[int] = []

    def count(graph, _):  # type: ignore[no-untyped-def]
        compiled.append(1)
        return graph.forward

    before, layer = torch.compiler.config.recompile_limit, Doubler()
    layer.compile(backend=count, dynamic=False, **arguments)
    for rows in range(2, 14):
        assert layer(torch.ones(rows, 3)).eq(2).all()
    assert len(compiled) == (12 if arguments else before)
    assert torch.compiler.config.recompile_limit == before
    torch.compiler.reset()


def test_a_limit_is_only_given_to_a_torch_that_takes_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "compile", lambda model, *, fullgraph=False, dynamic=None: model)
    assert compat.compile_arguments(64) == {}
    monkeypatch.setattr(torch, "compile", lambda model, *, dynamic=None, recompile_limit=None: model)
    assert compat.compile_arguments(64) == {"recompile_limit": 64}


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_costs_are_the_same_counted_or_computed(monkeypatch: pytest.MonkeyPatch, precision: str) -> None:
    config = preset("tiny", (4, 4, 4), action_names=("go",), width=64, depth=2, headdim=32, d_state=16)
    counted = step_cost(config, 2, 20, 5, precision)
    monkeypatch.setitem(sys.modules, "torch._subclasses.fake_tensor", None)  # importing it fails
    assert step_cost(config, 2, 20, 5, precision) == counted


def test_attention_on_the_cpu_is_counted_where_torch_has_an_operator_of_its_own_for_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    q = torch.ones(1, 2, 16, 8)
    for known, expected in ((compat.flops_of_attention(), 2 * 2 * 2 * 16 * 16 * 8), ({}, 0)):
        with FlopCounterMode(display=False, custom_mapping=known) as counter:
            functional.scaled_dot_product_attention(q, q, q)
        assert counter.get_total_flops() == expected
    monkeypatch.setattr(torch.ops, "aten", SimpleNamespace())
    assert compat.flops_of_attention() == {}
