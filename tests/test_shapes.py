"""The checker of shapes finds what it is there for."""

import pytest
import torch

from tests.shapes import checked


def joined(a, b, scale=None):
    return torch.cat([a, b], dim=1), scale


@pytest.mark.parametrize(
    ("shapes", "words"),
    [
        ({"a": "B T C"}, r"a has shape \(2, 3\), expected \(B, T, C\)"),
        ({"a": "B T", "b": "T B"}, r"b has shape \(2, 4\), expected \(T, B\) with"),
        ({"a": "2 5"}, r"a has shape \(2, 3\), expected \(2, 5\)"),
        ({"a": "B T", "return.0": "B T"}, r"return.0 has shape \(2, 7\)"),
    ],
)
def test_other_shapes_are_told(shapes, words):
    with pytest.raises(AssertionError, match=words):
        checked(joined, shapes)(torch.zeros(2, 3), b=torch.zeros(2, 4))


def test_a_call_that_fits_or_fails_by_itself_is_left_alone():
    function = checked(joined, {"a": "B T", "b": "B S", "scale": "n", "return.0": "B U", "return.1": "n"})
    assert function(torch.zeros(2, 3), torch.zeros(2, 4))[0].shape == (2, 7)
    with pytest.raises(RuntimeError, match="Sizes of tensors must match"):
        function(torch.zeros(2, 3), torch.zeros(3, 4))
