"""Repositories of strangers, fetched by the real client: each ends in one line, and nothing is written elsewhere."""

import json
import os
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lssvwm_core.hub.folders import world_files
from lssvwm_core.training.run.folder import Run
from tests.core.hub.hub_server import Hub

Files = dict[str, bytes]
TRY = """
import sys
from lssvwm_cli.app import run
for name in sys.argv[1:]:
    code = run(["rollout", "--frames", "10", "--context", "5", "--out", "out.mp4", "--checkpoint", name])
    print(f"{name}: exit code {code}", file=sys.stderr, flush=True)
"""
HUGE = json.dumps({"x": {"dtype": "F32", "shape": [10**10], "data_offsets": [0, 4 * 10**10]}}).encode()


def config(files: Files, **changes: Any) -> bytes:
    content = json.loads(files["config.json"])
    return json.dumps({**content, **changes, "model": {**content["model"], **changes.get("model", {})}}).encode()


def not_finite(weights: bytes) -> bytes:
    start = 8 + struct.unpack("<Q", weights[:8])[0]
    return weights[:start] + b"\xff" * 64 + weights[start + 64 :]


HOSTILE: dict[str, tuple[Callable[[Files], Files], str]] = {
    "nested": (lambda f: {"config.json": b"[" * 300_000}, "nested too deep"),
    "deep": (lambda f: {"config.json": config(f, model={"depth": 10**7})}, "depth is 10000000"),
    "outside": (lambda f: {"config.json": config(f, autoencoder="../../../../../../etc")}, "outside of"),
    "nan": (lambda f: {"model.safetensors": not_finite(f["model.safetensors"])}, "not finite"),
    "header": (lambda f: {"model.safetensors": struct.pack("<Q", len(HUGE)) + HUGE}, "not a safetensors file"),
    "above": (lambda f: {"../../../../evil.json": b"{}"}, "'..' path segment"),
    "absolute": (lambda f: {"/evil.json": b"{}"}, "absolute"),
    "escapes": (lambda f: {"\x1b[2J[/b]\x07.json": b"{}"}, "eve/escapes: "),
}


def test_what_strangers_share_is_data_of_a_known_shape(workspace: Path, tmp_path: Path) -> None:
    world = world_files(Run(workspace / "runs/test").world, "me/maze")
    good = {
        name: content.read_bytes() if isinstance(content, Path) else content.encode() for name, content in world.items()
    }
    folder = tmp_path / "folder"
    folder.mkdir()
    with Hub().running() as hub:
        for name, (change, _) in HOSTILE.items():
            hub.repositories["models", f"eve/{name}"] = [{}, {**good, **change(good)}]
        tried = subprocess.run(
            [sys.executable, "-c", TRY, *(f"eve/{name}" for name in HOSTILE)],
            cwd=folder,
            env={**os.environ, **hub.environment(str(tmp_path / "home"))},
            capture_output=True,
            text=True,
            timeout=300,
            check=True,
        )
    said = tried.stderr
    assert "Traceback" not in said
    assert "this is a bug" not in said
    assert all(letter.isprintable() or letter == "\n" for letter in said)
    for name, (_, words) in HOSTILE.items():
        about, _, said = said.partition(f"eve/{name}: exit code 1\n")
        errors = [line for line in about.splitlines() if line.startswith("error: ")]
        assert len(errors) == 1, (name, about)
        assert words in errors[0], name
    assert list(folder.iterdir()) == []
    assert {path.name for path in tmp_path.iterdir()} == {"folder", "home"}
    assert not list(tmp_path.rglob("evil*"))
