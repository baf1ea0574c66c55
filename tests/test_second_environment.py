"""An environment is one module and one line of the registry: recorded, trained, scored, played."""

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from lssvwm_cli.app import app
from lssvwm_core.play.game import Game
from lssvwm_core.training.run.folder import Run
from lssvwm_core.world import load_world
from lssvwm_datasets.environments import ENVIRONMENTS
from lssvwm_datasets.episode import Episode
from lssvwm_datasets.errors import LssvwmError
from lssvwm_datasets.format import ReaderOptions
from lssvwm_datasets.poses import plane_of
from lssvwm_datasets.shards import open_shards
from lssvwm_datasets.streams import STREAMS, Stream
from tests.conftest import SMALL_MODEL
from tests.toy_environment import TOY, move, read

Command = Callable[..., str]
TRAIN = ["train", "--data", "data/toy", "--name", "lawn", "--steps", "2", "--threads", "1", "--clip-frames", "10"]
TRAIN += ["--batch-size", "2", *(part for setting in SMALL_MODEL for part in ("--set", setting))]


@pytest.fixture
def command(workspace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Command:
    """`lssvwm …` in an empty folder where the toy is registered; what it prints to stdout."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(ENVIRONMENTS, "toy", TOY)
    shutil.copytree(workspace / "autoencoder", "autoencoder")

    def run(*arguments: str) -> str:
        done = CliRunner().invoke(app, arguments, catch_exceptions=False)
        assert done.exit_code == 0, done.output
        return done.stdout

    return run


def prepare(command: Command) -> None:
    command("record", "toy", "--episodes", "3", "--steps", "60", "--jobs", "1")
    command("prepare", "toy", "--autoencoder", "autoencoder", "--accept-quality", "--jobs", "1")


def test_a_toy_environment_from_recording_to_play(command: Command) -> None:
    prepare(command)
    shards = open_shards(Path("data/toy"), "train")
    assert (shards.header.dataset, len(shards.episodes), shards.frames) == ("toy", 3, 183)
    assert plane_of(shards.header.pose_names, shards.header.pose_kinds)

    command(*TRAIN)
    world = load_world(Run(Path("runs/lawn")).world, "cpu")
    ahead, port = (np.array(world.model.config.odometry)[n] for n in (1, 2))
    np.testing.assert_allclose(ahead - port, [0.5, 0, -np.pi / 4, 0], atol=0.05)

    short = ("rollout", "--frames", "30", "--context", "10", "--steps", "1", "--upscale", "1")
    told = json.loads(command(*short, "--actions", "explore", "--map", "--out", "v.mp4", "--json"))
    assert (told["frames"], Path("v.map.png").exists()) == (30, True)

    command("eval", "turn", "--context", "10", "--steps", "1", "--out", "turn", "--videos", "0")
    assert json.loads(Path("turn/report.json").read_text())["frames"] == 8
    command("eval", "reasoning", "--context", "40", "--frames", "15", "--steps", "1", "--out", "on", "--videos", "0")
    assert "seen" in json.loads(Path("on/report.json").read_text())["rows"]["model"]

    game = Game(world.sampled_with(1), Path("data/toy"), Path("play"), context=20)
    assert (game.idle, game.keys) == (0, {"i": 1, "j": 2, "l": 3})
    assert game.place.pose is not None
    for action in (1, 2, 1):
        expected = move(None, game.place.pose, action)
        game.step(action)
        np.testing.assert_array_equal(game.place.pose, expected)
    _, x, y, cos, sin = (float(value) for value in expected)
    assert game.place.spot == pytest.approx((x, y, np.arctan2(sin, cos)))
    game.save("here")
    game.step(1)
    game.load("here")
    assert game.place.spot == pytest.approx((x, y, np.arctan2(sin, cos)))


def test_options_that_an_environment_does_not_have_are_refused(command: Command) -> None:
    for option, message in ((("--size", "9x9"), "--size 9x9"), (("--compact",), "--compact")):
        with pytest.raises(LssvwmError, match=f"{message}: this environment"):
            command("record", "toy", *option)
    with pytest.raises(LssvwmError, match="no environment 'doom'; expected one of maze, luanti, toy"):
        command("record", "doom")
    ENVIRONMENTS["toy"] = replace(TOY, recorder=None)
    with pytest.raises(LssvwmError, match="toy: this environment cannot be recorded here"):
        command("record", "toy")


def read_with_goals(path: Path, id: str, options: ReaderOptions) -> Iterator[Episode]:
    for episode in read(path, id, options):
        goals = np.stack([np.arange(episode.length), np.ones(episode.length)], axis=1).astype(np.float32)
        yield replace(episode, stream_rows={"goal": goals}, stream_names={"goal": ("near", "far")})


def test_a_third_condition_stream_needs_its_record_and_a_reader(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert TOY.format
    monkeypatch.setitem(STREAMS, "goal", Stream("goal", "goals"))
    monkeypatch.setitem(ENVIRONMENTS, "toy", replace(TOY, format=replace(TOY.format, read=read_with_goals)))
    prepare(command)
    shards = open_shards(Path("data/toy"), "train")
    assert shards.header.stream_names == {"goal": ("near", "far")}
    goals = shards.read(shards.episodes[1], "goals", 5, 7)
    np.testing.assert_array_equal(goals, [[5, 1], [6, 1]])

    command(*TRAIN)
    world = load_world(Run(Path("runs/lawn")).world, "cpu")
    assert world.model.config.streams == {"action": 4, "pose": 5, "goal": 2}
    assert any(name.startswith("streams.goal.") for name, _ in world.model.named_parameters())
    command("rollout", "--frames", "40", "--context", "10", "--steps", "1", "--out", "v.mp4", "--conditions", "goal")
    command("eval", "retrieval", "--context", "10", "--steps", "1", "--out", "back", "--videos", "0")
    Game(world.sampled_with(1), Path("data/toy"), Path("play"), context=20).step(1)
