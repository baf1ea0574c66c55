"""Files of a known shape: what is anything else is told, with its place."""

from dataclasses import dataclass
from pathlib import Path

import pytest

from lssvwm_datasets.errors import LssvwmError
from lssvwm_datasets.schema import convert, read_json, read_toml


@dataclass(frozen=True)
class Shard:
    file: str
    episodes: int
    std: tuple[float, ...] = ()


@dataclass(frozen=True)
class Index:
    shards: tuple[Shard, ...]


def test_a_file_becomes_what_it_should_be(tmp_path: Path) -> None:
    path = tmp_path / "index.json"
    path.write_text('{"shards": [{"file": "ä", "episodes": 2, "std": [1, 2.5], "later": null}]}', encoding="utf-8")
    assert read_json(path, Index) == Index((Shard("ä", 2, (1.0, 2.5)),))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"shards": [{"file": 3, "episodes": 1}]}', r"Expected str, got int - at \$.shards\[0\].file; prepare again"),
        (b'{"shards": [{"file": "a", "episodes": true}]}', r"Expected int, got bool - at \$.shards\[0\].episodes"),
        (b'{"shards": [{"file": "a"}]}', "missing required field episodes"),
        (b'{"shards": [{"file": "a", "episodes": 1, "std": [NaN]}]}', "expected finite numbers, found NaN"),
        (b'{"shards": [{"file": "a", "episodes": 1, "std": [1e999]}]}', "expected finite numbers, found inf"),
        (b"[" * 200_000, "nested too deep"),
        (b'"\xff"', "not UTF-8"),
        (b"{", "not readable as JSON: Expecting property name"),
        (b"3", "Expected object, got int"),
    ],
)
def test_anything_else_is_told(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "index.json"
    path.write_bytes(content)
    with pytest.raises(LssvwmError, match=message) as told:
        read_json(path, Index, "prepare again")
    assert str(told.value).startswith(str(path))


def test_missing_files_and_folders(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_json(tmp_path / "none.json", Index)
    with pytest.raises(LssvwmError, match="not a regular file"):
        read_json(tmp_path, Index)
    with pytest.raises(LssvwmError, match=r"none.toml: no such file"):
        read_toml(tmp_path / "none.toml")


def test_toml_tells_the_line(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text("a = 1\nb = \n")
    with pytest.raises(LssvwmError, match=r"a.toml: not readable as TOML: .*line 2"):
        read_toml(tmp_path / "a.toml")


def test_values_from_elsewhere() -> None:
    assert convert("--set", [1, 2], tuple[int, ...]) == (1, 2)
    with pytest.raises(LssvwmError, match="--set: Expected"):
        convert("--set", "wandb", tuple[str, ...])
