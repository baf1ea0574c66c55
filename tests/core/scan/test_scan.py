"""The scan: the reference against the unrolled sum, the chunked form against the float64 reference."""

import logging

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from lssvwm_core import scan
from lssvwm_core.scan import ssd_scan

LENGTHS = (1, 5, 63, 64, 65, 100, 257)  # 100 is two whole chunks, 65 and 257 are padded
HEADS = ((1, 1, 1), (2, 2, 4), (4, 2, 8), (3, 1, 5))  # (heads, groups, p)
TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-11}


def make_inputs(length, heads=4, groups=2, p=8, n=6, batch=2, dtype=torch.float64, seed=0):
    """Every input of the scan, D and initial state included, in ranges a trained Mamba-2 has."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    inputs = {
        "x": normal(batch, length, heads, p),
        "dt": F.softplus(normal(batch, length, heads) - 3),
        "A": -normal(heads).mul(1.5).exp(),
        "B": normal(batch, length, groups, n),
        "C": normal(batch, length, groups, n),
        "D": normal(heads),
        "initial_state": normal(batch, heads, p, n),
    }
    return {name: tensor.to(dtype) for name, tensor in inputs.items()}


def run(inputs, backend="torch"):
    return ssd_scan(**inputs, return_final_state=True, backend=backend)


def oracle(inputs):
    return run({name: tensor.double() for name, tensor in inputs.items()}, "reference")


def assert_near(found, expected, tolerance):
    """Compare relative to the largest expected value."""
    assert found.shape == expected.shape
    assert (found.double() - expected.double()).abs().max() <= tolerance * expected.abs().max()


def test_reference_is_the_unrolled_sum():
    """y_t = Σ_{j<=t} exp(A Σ_{j<k<=t} dt_k) dt_j (C_t · B_j) x_j + exp(A Σ_{k<=t} dt_k) h_0 C_t + D x_t."""
    inputs = make_inputs(7, heads=4, groups=2, p=3)
    x, dt, A, B, C, D, h = (tensor.numpy() for tensor in inputs.values())
    expected = np.zeros_like(x)
    for b, t, head in np.ndindex(*x.shape[:3]):
        group = head // 2
        decay = [np.exp(A[head] * dt[b, j + 1 : t + 1, head].sum()) for j in range(-1, t + 1)]  # decay[0]: from h_0
        expected[b, t, head] = D[head] * x[b, t, head] + decay[0] * h[b, head] @ C[b, t, group]
        for j in range(t + 1):
            weight = decay[j + 1] * dt[b, j, head] * (C[b, t, group] @ B[b, j, group])
            expected[b, t, head] += weight * x[b, j, head]
    y, _ = run(inputs, "reference")
    np.testing.assert_allclose(y.numpy(), expected, rtol=1e-10, atol=1e-12)


@settings(max_examples=25, deadline=None)
@given(
    length=st.sampled_from(LENGTHS),
    heads=st.sampled_from(HEADS),
    n=st.sampled_from((1, 7, 16)),
    optional=st.sets(st.sampled_from(("D", "initial_state"))),
    dtype=st.sampled_from((torch.float32, torch.float64)),
    seed=st.integers(0, 999),
)
def test_torch_equals_the_reference(length, heads, n, optional, dtype, seed):
    inputs = make_inputs(length, *heads, n=n, dtype=dtype, seed=seed)
    inputs = {name: tensor for name, tensor in inputs.items() if name in optional or name not in ("D", "initial_state")}
    y, state = run(inputs)
    assert (y.dtype, state.dtype) == (dtype, dtype)
    expected_y, expected_state = oracle(inputs)
    assert_near(y, expected_y, TOLERANCE[dtype])
    assert_near(state, expected_state, TOLERANCE[dtype])


@pytest.mark.parametrize("length", [1, 65, 100, 130])
def test_gradients_equal_those_of_the_reference(length):
    """For every input, through both the outputs and the final state."""
    inputs = {name: tensor.requires_grad_() for name, tensor in make_inputs(length, 3, 1, 5).items()}
    gradients = []
    for backend in ("torch", "reference"):
        y, state = run(inputs, backend)
        gradients.append(torch.autograd.grad(y.square().sum() + state.sin().sum(), list(inputs.values())))
    for found, expected in zip(*gradients, strict=True):
        assert expected.abs().max() > 0
        assert_near(found, expected, 1e-10)


@settings(max_examples=20, deadline=None)
@given(length=st.integers(2, 150), data=st.data(), backend=st.sampled_from(("torch", "reference")))
def test_carrying_the_state_over_any_split_changes_nothing(length, data, backend):
    cut = data.draw(st.integers(1, length - 1))
    inputs = make_inputs(length, n=3, batch=1)
    whole, final = run(inputs, backend)
    parts, state = [], inputs.pop("initial_state")
    for rows in (slice(cut), slice(cut, None)):
        piece = {name: tensor[:, rows] if name in ("x", "dt", "B", "C") else tensor for name, tensor in inputs.items()}
        y, state = run(piece | {"initial_state": state}, backend)
        parts.append(y)
    assert_near(torch.cat(parts, dim=1), whole, 1e-11)
    assert_near(state, final, 1e-11)


def test_bfloat16_values_keep_a_float32_state():
    inputs = make_inputs(200, dtype=torch.bfloat16) | {"A": make_inputs(1)["A"].float()}
    y, state = run(inputs)
    assert (y.dtype, state.dtype) == (torch.bfloat16, torch.float32)
    expected_y, expected_state = oracle(inputs)
    assert_near(y, expected_y, 1e-2)
    assert_near(state, expected_state, 1e-5)  # only the outputs are rounded


def test_autocast_rounds_nothing():
    inputs = make_inputs(130, dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        y, state = run(inputs)
    assert (y.dtype, state.dtype) == (torch.float32, torch.float32)
    assert torch.equal(y, run(inputs)[0])
    assert torch.equal(state, run(inputs)[1])


def test_strong_decays_stay_finite():
    """Step sizes that forget everything at once: exponents of -30,000 and beyond, forward and backward."""
    inputs = make_inputs(130, dtype=torch.float32)
    inputs["dt"] = inputs["dt"] + 20.0
    inputs["A"] = torch.full_like(inputs["A"], -16.0)
    inputs = {name: tensor.requires_grad_() for name, tensor in inputs.items()}
    y, state = run(inputs)
    assert_near(y, oracle(inputs)[0], 1e-5)
    for gradient in torch.autograd.grad(y.sum() + state.sum(), list(inputs.values())):
        assert gradient.isfinite().all()


def test_memory_is_exact_after_much_was_forgotten():
    """Decays are differences of running sums: a large sum must not blur the small decays that follow it."""
    inputs = make_inputs(64 * 12, heads=2, groups=1, p=2, n=2, batch=1, dtype=torch.float32)
    inputs["A"] = torch.full_like(inputs["A"], -16.0)
    inputs["dt"][:, : 64 * 6] = 5.0  # -80 a token, -30,720 in all
    inputs["dt"][:, 64 * 6 :] = 1e-3
    y, state = run(inputs)
    expected_y, expected_state = oracle(inputs)
    assert_near(y[:, 64 * 6 :], expected_y[:, 64 * 6 :], 1e-5)
    assert_near(state, expected_state, 1e-5)


def test_inputs_are_left_as_they_were():
    inputs = make_inputs(70)
    before = {name: tensor.clone() for name, tensor in inputs.items()}
    run(inputs)
    assert all(torch.equal(inputs[name], before[name]) for name in inputs)


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("x", (2, 5, 32)),
        ("x", (2, 0, 4, 8)),
        ("dt", (2, 4, 4)),
        ("A", (3,)),
        ("B", (2, 5, 3, 6)),  # 3 groups do not divide 4 heads
        ("B", (2, 5, 6)),
        ("C", (2, 5, 1, 6)),
        ("D", (4, 8)),
        ("initial_state", (2, 4, 6, 8)),
    ],
)
@pytest.mark.parametrize("backend", ["torch", "reference"])
def test_shapes_that_do_not_fit_are_named(name, shape, backend):
    with pytest.raises(ValueError, match=rf"^{name} has shape \({', '.join(map(str, shape))},?\), expected"):
        run(make_inputs(5) | {name: torch.zeros(shape)}, backend)


def test_unknown_backend_is_named():
    with pytest.raises(
        ValueError, match="unknown scan backend 'cuda'; expected one of auto, mamba_ssm, torch, reference"
    ):
        run(make_inputs(5), "cuda")


def test_auto_on_a_cpu_is_torch_and_says_so_once(caplog):
    scan._pick.cache_clear()
    inputs = make_inputs(70, dtype=torch.float32)
    with caplog.at_level(logging.INFO, logger="lssvwm_core.scan"):
        found = [run(inputs, "auto")[0] for _ in range(2)]
    assert all(torch.equal(y, run(inputs, "torch")[0]) for y in found)
    assert [record.getMessage() for record in caplog.records] == ["scan backend: torch (the device is cpu)"]
