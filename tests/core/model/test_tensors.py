"""Safetensors files are written with nothing left beside them, whatever ends the writing."""

import os
import sys
from pathlib import Path

import pytest
import torch

from lssvwm_core.model import tensors
from lssvwm_core.model.tensors import read_header, read_tensors, specs_of, write_tensors


def test_the_temporary_file_of_safetensors_lies_where_left_overs_are_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save, seen = tensors.save_file, []

    def watched(stored: dict[str, torch.Tensor], path: Path, metadata: dict[str, str]) -> None:
        seen.append(path.parent.name)
        save(stored, path, metadata)

    monkeypatch.setattr(tensors, "save_file", watched)
    for name in ("a.safetensors", "a" * 243 + ".safetensors"):
        write_tensors(tmp_path / name, {"x": torch.ones(2)}, {})
        assert [path.name for path in tmp_path.iterdir()] == [name]
        (tmp_path / name).unlink()
        assert seen[-1].startswith(f".{name[:200].removesuffix('.safetensors')}")
        assert seen[-1].endswith(".partial.safetensors.folder")


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere every name is text")
@pytest.mark.parametrize("name", [b"bad\xff", b"\xe4\xf6.safetensors", b"folder\xff/good"])
def test_a_name_may_be_of_any_bytes(name: bytes, tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(name)
    path.parent.mkdir(exist_ok=True)
    stored = {"x": torch.arange(3.0)}
    for _ in range(2):  # the second time over the first
        write_tensors(path, stored, {"kind": "test"})
        assert read_header(path).metadata == {"kind": "test"}
        torch.testing.assert_close(read_tensors(path, specs_of(stored)), stored)
        assert list(path.parent.iterdir()) == [path]
