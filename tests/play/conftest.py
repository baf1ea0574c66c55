"""A world that reacts: the workspace's few steps of training leave it all but frozen."""

import os
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import pytest
import torch

from lssvwm_core.play.game import Game
from lssvwm_core.play.session import Picture, Session, Viewer
from lssvwm_core.training.run.folder import Run
from lssvwm_core.world import World, load_world
from tests.conftest import CLI

CONTEXT = 20


class Serve(Protocol):
    def __call__(self, *options: str, open_files: int = 512) -> tuple[subprocess.Popen[str], str]: ...


class Watcher(Viewer):
    """Notes all that comes, beside its bounded mailbox."""

    def __init__(self) -> None:
        super().__init__(lambda: None)
        self.seen: list[Picture] = []
        self.news = threading.Condition()

    def put(self, picture: Picture) -> None:
        super().put(picture)
        with self.news:
            self.seen.append(picture)
            self.news.notify_all()

    def wait_for(self, wanted: Callable[[Picture], bool], seconds: float = 30) -> Picture:
        with self.news:
            assert self.news.wait_for(lambda: any(map(wanted, self.seen)), seconds)
            return next(filter(wanted, self.seen))


@pytest.fixture(scope="session")
def world(workspace: Path) -> World:
    world = load_world(Run(workspace / "runs/test").world, torch.device("cpu"))
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in world.model.parameters():
            parameter += 0.05 * torch.randn_like(parameter)
    return world.sampled_with(steps=2)


@pytest.fixture
def new_game(workspace: Path, world: World, tmp_path: Path) -> Callable[[], Game]:
    return lambda: Game(replace(world), workspace / "data/maze", tmp_path / "play", CONTEXT)


@pytest.fixture
def game(new_game: Callable[[], Game]) -> Game:
    return new_game()


@pytest.fixture
def session(game: Game) -> Iterator[Session]:
    with Session(game, fps=10) as session:
        yield session


@pytest.fixture
def serve(workspace: Path, tmp_path: Path) -> Iterator[Serve]:
    """Run the command, with more options and at a limit of open files; returns it with its first printed link."""
    running: list[subprocess.Popen[str]] = []

    def start(*options: str, open_files: int = 512) -> tuple[subprocess.Popen[str], str]:
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        fixed = ["--context", "20", "--steps", "1", "--slots", str(tmp_path / "slots"), "--port", "0"]
        command = [*CLI, "play", "test", *fixed, *options]
        command = ["bash", "-c", f'ulimit -n {open_files}; exec "$@"', "bash", *command]
        server = subprocess.Popen(command, cwd=workspace, stderr=subprocess.PIPE, text=True, env=environment)
        running.append(server)
        assert server.stderr is not None
        for line in server.stderr:
            if line.startswith("play: "):
                return server, line.split()[1]
        raise AssertionError("the server ended")

    yield start
    for server in running:
        if server.poll() is None:
            stop(server)


def stop(server: subprocess.Popen[str]) -> None:
    server.send_signal(signal.SIGINT)
    assert server.stderr is not None
    assert "Traceback" not in server.communicate(timeout=30)[1]
