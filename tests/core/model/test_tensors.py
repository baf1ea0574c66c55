"""Safetensors files are written with nothing left beside them, whatever ends the writing."""

from pathlib import Path

import pytest
import torch

from lssvwm_core.model import tensors
from lssvwm_core.model.tensors import write_tensors


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
