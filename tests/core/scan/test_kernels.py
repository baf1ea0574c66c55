"""The real mamba-ssm kernels, forward and backward, against the recurrence; without a GPU."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.skipif(
    importlib.util.find_spec("triton") is None or importlib.util.find_spec("mamba_ssm") is None,
    reason="mamba-ssm or triton is not installed; make test installs them on Linux",
)
def test_the_kernels_match_the_recurrence():
    """Ragged lengths, two groups, carried states; outputs, final states and every gradient."""
    program = Path(__file__).with_name("interpreted_kernels.py")
    done = subprocess.run([sys.executable, str(program)], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    errors = json.loads(done.stdout)
    assert max(errors) < 1e-5, errors
