"""Safetensors files: written whole; read by their header first, and taken only when every tensor is what it should be.

The rule for what is read: names and shapes must be those expected. Numbers with a fraction may be stored as float16,
bfloat16, float32 or float64, and become what is expected; every other type must be exactly that. They must be finite,
but for tensors in which NaN stands for what is unknown.
"""

import contextlib
import os
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import safetensors
import torch
from safetensors.torch import save_file
from torch import Tensor

from lssvwm_datasets.errors import LssvwmError
from lssvwm_datasets.files import hidden_folder, written_whole

FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
DTYPES = {
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F32": torch.float32,
    "F64": torch.float64,
    "U8": torch.uint8,
    "I8": torch.int8,
    "I16": torch.int16,
    "I32": torch.int32,
    "I64": torch.int64,
    "BOOL": torch.bool,
}  # by the names that the format gives them

WRITTEN = "tensors"  # the name of a file that is being written


class TensorSpec(NamedTuple):
    """What a tensor must be; with `may_be_nan`, NaN stands for what is unknown."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    may_be_nan: bool = False


class Header(NamedTuple):
    """What a file says that it holds; the format has made sure that the file is long enough for it."""

    tensors: dict[str, TensorSpec]
    metadata: dict[str, str]


def specs_of(tensors: Mapping[str, Tensor]) -> dict[str, TensorSpec]:
    """What these tensors are."""
    return {name: TensorSpec(tuple(tensor.shape), tensor.dtype) for name, tensor in tensors.items()}


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write a file that appears whole or not at all, readable as the umask says."""
    with written_whole(path) as partial:
        stored = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        # save_file's own temporary file would outlive a kill
        with hidden_folder(partial) as folder, _in_utf8(folder) as named:
            save_file(stored, named / WRITTEN, dict(metadata))
            os.replace(folder / WRITTEN, partial)


def read_header(path: Path) -> Header:
    """The names, shapes and types in a file. Raises: OSError; LssvwmError when it is no safetensors file."""
    check_regular(path)
    with _opened(path) as file:
        slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
        found = {name: (tuple(part.get_shape()), str(part.get_dtype())) for name, part in slices.items()}
        metadata = dict(file.metadata() or {})
    for name, (_, dtype) in found.items():
        if dtype not in DTYPES:
            raise LssvwmError(f"{path}: {name} is of type {dtype}, expected one of {', '.join(DTYPES)}")
    return Header({name: TensorSpec(shape, DTYPES[dtype]) for name, (shape, dtype) in found.items()}, metadata)


def problems(header: Header, specs: Mapping[str, TensorSpec]) -> list[str]:
    """Why the tensors of a file are not those of `specs`, each in words; none when they are."""
    found = header.tensors
    return [
        *(f"missing {name}" for name in specs if name not in found),
        *(f"unexpected {name}" for name in found if name not in specs),
        *(
            f"{name} is {found[name].shape}, expected {spec.shape}"
            for name, spec in specs.items()
            if name in found and found[name].shape != spec.shape
        ),
        *(
            f"{name} is {found[name].dtype}, expected {spec.dtype}"
            for name, spec in specs.items()
            if name in found and not _becomes(found[name].dtype, spec.dtype)
        ),
    ]


def read_tensors(path: Path, specs: Mapping[str, TensorSpec]) -> dict[str, Tensor]:
    """The tensors of `specs`, on the CPU, of a file in which `problems` found none.

    Raises: OSError; LssvwmError naming the tensor that has numbers which are not finite.
    """
    with _opened(path) as file:
        tensors = {name: file.get_tensor(name).to(spec.dtype) for name, spec in specs.items()}
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not is_finite(tensor, specs[name].may_be_nan):
            raise LssvwmError(f"{path}: damaged: {name} has numbers that are not finite (NaN or infinite)")
    return tensors


def is_finite(tensor: Tensor, may_be_nan: bool = False) -> bool:
    """Whether all numbers are finite (or NaN, where it may be)."""
    if tensor.numel() == 0:
        return True
    extremes = torch.stack((tensor.nan_to_num(0.0, torch.inf, -torch.inf) if may_be_nan else tensor).aminmax())
    return bool(extremes.isfinite().all())


def check_regular(path: Path) -> None:
    """Check that a path is a regular file. Raises: LssvwmError when it is none; OSError for other trouble."""
    try:
        mode = os.stat(path).st_mode
    except (FileNotFoundError, NotADirectoryError) as error:
        raise LssvwmError(f"{path}: no such file") from error
    if not stat.S_ISREG(mode):
        raise LssvwmError(f"{path}: not a regular file")


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Any]:
    path.open("rb").close()  # safetensors calls all trouble of the machine "no such file"
    try:
        with _in_utf8(path) as named, safetensors.safe_open(named, framework="pt") as file:
            yield file
    except safetensors.SafetensorError as error:
        raise LssvwmError(f"{path}: damaged or not a safetensors file ({error})") from error


@contextlib.contextmanager
def _in_utf8(path: Path) -> Iterator[Path]:
    """A name for a file or folder that safetensors takes: it takes no bytes that are not UTF-8, as Linux does."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            yield Path(f"/proc/self/fd/{descriptor}")
        finally:
            os.close(descriptor)
    else:
        yield path


def _becomes(stored: torch.dtype, wanted: torch.dtype) -> bool:
    return stored == wanted or (stored in FLOATS and wanted in FLOATS)
