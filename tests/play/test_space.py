"""The Space of a world, written as it is pushed and started as its Dockerfile says, on loopback, in a real browser."""

import json
import os
import shutil
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import SpaceCard
from packaging.requirements import Requirement

from lssvwm_core.hub.folders import world_files, write_files
from lssvwm_core.hub.space import PORT, space_files
from lssvwm_core.training.run.folder import Run
from lssvwm_core.world import load_world
from tests.conftest import CLI
from tests.play.conftest import stop

pytest.importorskip("uvicorn", reason="the extra `play` is not installed")
playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


@pytest.fixture(scope="module")
def space(workspace: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the Space, as a build copies it."""
    run = Run(workspace / "runs/test").world
    work, out = (tmp_path_factory.mktemp(name) for name in ("work", "space"))
    model = world_files(run, "me/maze")
    files = space_files(load_world(run, torch.device("cpu")), model, "me/maze", workspace / "data/maze", work)
    write_files(files, out)
    return out


@pytest.fixture
def served(space: Path, tmp_path: Path) -> Iterator[str]:
    """The address of the Space's page: its own command, but for the port and the address."""
    lines = (space / "Dockerfile").read_text(encoding="utf-8").splitlines()
    name, *arguments = json.loads(next(line for line in lines if line.startswith("CMD ")).removeprefix("CMD "))
    assert name == "lssvwm"
    changed = {"0.0.0.0": "127.0.0.1", str(PORT): "0", "/tmp/play": str(tmp_path / "slots")}
    command = [*CLI, *(changed.get(word, word) for word in arguments), "--steps", "1"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    server = subprocess.Popen(command, cwd=space, stderr=subprocess.PIPE, text=True, env=environment)
    assert server.stderr is not None
    yield next(line.split()[1] for line in server.stderr if line.startswith("play: "))
    stop(server)


def test_its_files_are_a_docker_space_that_installs_this_version(space: Path) -> None:
    card = SpaceCard.load(space / "README.md")
    assert (card.data.sdk, card.data.app_port, card.data.models) == ("docker", PORT, ["me/maze"])
    dockerfile = (space / "Dockerfile").read_text(encoding="utf-8")
    wanted = Requirement(dockerfile.partition('"')[2].partition('"')[0])
    from importlib.metadata import version

    assert wanted.name == "lssvwm"
    assert wanted.extras == {"play"}
    assert wanted.specifier.contains(version("lssvwm"))
    assert not any(path.is_symlink() for path in space.rglob("*"))


def test_anyone_walks_around_in_it(space: Path, served: str) -> None:
    assert "token" not in served
    request = urllib.request.Request(served, headers={"Host": "me-maze-space.hf.space"})
    with urllib.request.urlopen(request) as answer:
        assert "frame-ancestors https://huggingface.co" in answer.headers["Content-Security-Policy"]
    if CHROMIUM is None:
        pytest.skip("no chromium (Debian: apt-get install chromium)")
    with playwright.sync_playwright() as driver:
        browser: Any = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(bypass_csp=True)
        page.goto(served)
        page.wait_for_selector("#picture[data-frames]")
        assert page.text_content("#link") == "live"
        page.keyboard.down("w")
        page.wait_for_function("/^\\d+$/.test(document.getElementById('latency').textContent)")
        browser.close()
