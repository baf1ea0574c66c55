"""Shapes of tensors, checked at every call that the tests make of a function, and never in use.

A line a function says what its docstring says: `B T C h w` names dimensions, numbers are sizes, and a name has one size
within a call. jaxtyping would want annotations of its own, an import hook and a run-time type checker in the package,
for a dozen functions; this costs the package nothing.
"""

import functools
import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor


def checked(function: Callable[..., Any], shapes: Mapping[str, str]) -> Callable[..., Any]:
    """`function`, which fails with an AssertionError when tensors of a call that succeeded have other shapes.

    Args:
        shapes: by the names of arguments; `return`, or `return.0`, `return.1` … of a tuple. What is None is left out.
    """
    signature = inspect.signature(function)

    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        result = function(*args, **kwargs)
        if not torch.compiler.is_compiling():
            sizes: dict[str, int] = {}
            for name, value in _values(signature.bind(*args, **kwargs).arguments, result):
                if name in shapes and value is not None:
                    _compare(f"{function.__qualname__}: {name}", value, shapes[name], sizes)
        return result

    return wrapper


def _values(arguments: Mapping[str, Any], result: Any) -> Iterator[tuple[str, Any]]:
    yield from arguments.items()
    if isinstance(result, Tensor):
        yield from (("return", result), ("return.0", result))
    elif isinstance(result, tuple):
        yield from ((f"return.{number}", part) for number, part in enumerate(result))


def _compare(what: str, tensor: Tensor, shape: str, sizes: dict[str, int]) -> None:
    names = shape.split()
    told = f"{what} has shape {tuple(tensor.shape)}, expected ({', '.join(names)})"
    assert tensor.ndim == len(names), told
    for name, size in zip(names, tensor.shape, strict=True):
        expected = int(name) if name.isdigit() else sizes.setdefault(name, size)
        assert size == expected, f"{told} with {sizes}"
