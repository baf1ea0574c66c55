"""The mamba_ssm backend, without a GPU: stand-in packages show how it finds the kernels and how it calls them."""

import sys

import pytest
import torch
from torch.nn import functional as F

from lssvwm_core import scan
from lssvwm_core.scan import mamba_ssm_backend, ssd_scan

KERNELS = '''
import torch
from lssvwm_core.scan import reference_backend

def mamba_chunk_scan_combined(
    x, dt, A, B, C, chunk_size, D=None, z=None, dt_bias=None, initial_states=None, seq_idx=None, cu_seqlens=None,
    dt_softplus=False, dt_limit=(0.0, float("inf")), return_final_states=False, return_varlen_states=False,
):
    """What the Triton kernels insist on, and the recurrence."""
    assert chunk_size & (chunk_size - 1) == 0
    assert all(tensor.is_contiguous() for tensor in (x, dt, A, B, C))
    assert x.dtype == B.dtype == C.dtype
    assert dt.dtype == A.dtype == torch.float32
    assert initial_states is None or (initial_states.is_contiguous() and initial_states.dtype == torch.float32)
    assert D is None and not dt_softplus  # the caller's own
    y, state = reference_backend.scan(x, dt.clamp(*dt_limit), A, B, C, initial_states)
    return (y, state) if return_final_states else y
'''


@pytest.fixture(autouse=True)
def fresh_imports(monkeypatch):
    """Forget what was imported and picked, before and after."""

    def forget():
        mamba_ssm_backend._kernels.cache_clear()
        scan._pick.cache_clear()
        for name in [name for name in sys.modules if name.split(".")[0] == "mamba_ssm"]:
            del sys.modules[name]

    forget()
    yield
    monkeypatch.undo()
    forget()


@pytest.fixture(params=["", "import selective_scan_cuda"], ids=["compiled", "without CUDA extensions"])
def installed(request, tmp_path, monkeypatch):
    """A mamba_ssm package; built without CUDA extensions it fails to import as a whole."""
    for folder, text in (("", request.param), ("ops", ""), ("ops/triton", "")):
        package = tmp_path / "mamba_ssm" / folder
        package.mkdir()
        (package / "__init__.py").write_text(text)
    (tmp_path / "mamba_ssm/ops/triton/ssd_combined.py").write_text(KERNELS)
    monkeypatch.syspath_prepend(tmp_path)


@pytest.fixture
def not_installed(monkeypatch):
    monkeypatch.setitem(sys.modules, "mamba_ssm", None)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.usefixtures("installed")
def test_the_kernels_get_what_they_insist_on(dtype):
    """Strided views and mixed dtypes go in, as the mixer has them; the reference's answer comes out."""
    generator = torch.Generator().manual_seed(0)
    values, B, C = torch.randn(2, 9, 4 * 8 + 2 * 6, generator=generator).to(dtype).split([32, 6, 6], dim=-1)
    inputs = {
        "x": values.unflatten(-1, (4, 8)),
        "dt": F.softplus(torch.randn(2, 4, 9, generator=generator)).transpose(1, 2).to(dtype),
        "A": -torch.rand(4, generator=generator).to(dtype),
        "B": B[:, :, None].float(),
        "C": C[:, :, None],
        "D": torch.randn(4, generator=generator),
        "initial_state": torch.randn(2, 4, 6, 8, generator=generator).transpose(2, 3).to(dtype),
    }
    y, state = ssd_scan(**inputs, return_final_state=True, backend="mamba_ssm")
    expected_y, expected_state = ssd_scan(**inputs, return_final_state=True, backend="reference")
    assert (y.dtype, state.dtype) == (dtype, torch.float32)
    torch.testing.assert_close(y, expected_y)
    torch.testing.assert_close(state, expected_state)


@pytest.mark.usefixtures("installed")
def test_auto_takes_it_on_cuda():
    assert mamba_ssm_backend.why_unavailable() is None
    assert scan._pick("cuda") == "mamba_ssm"
    assert scan._pick("cpu") == "torch"


@pytest.mark.usefixtures("installed")
def test_no_empty_package_is_left_behind():
    """Others who import a package without its extensions get its own error, not an empty module."""
    assert mamba_ssm_backend.why_unavailable() is None
    left = sys.modules.get("mamba_ssm")
    assert left is None or left.__file__ is not None


@pytest.mark.usefixtures("not_installed")
def test_absence_is_told_in_words_and_auto_does_without(caplog):
    reason = mamba_ssm_backend.why_unavailable()
    assert reason is not None
    assert reason.startswith("mamba-ssm is not usable: ")
    assert "README" in reason
    with caplog.at_level("INFO", logger="lssvwm_core.scan"):
        assert scan._pick("cuda") == "torch"
    assert reason in caplog.text


@pytest.mark.usefixtures("not_installed")
def test_asking_for_it_in_vain_raises():
    x, dt, B = torch.zeros(1, 1, 1, 1), torch.ones(1, 1, 1), torch.zeros(1, 1, 1, 1)
    with pytest.raises(ImportError, match="mamba_ssm"):
        ssd_scan(x, dt, -torch.ones(1), B, B, backend="mamba_ssm")
