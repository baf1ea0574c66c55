"""What the code of November 2026 made still loads and goes on with the same frames (tests/golden/make.py made it).

Frames are compared with a little room: other processors round otherwise.
"""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from lssvwm_core.conditions import Conditions
from lssvwm_core.episodes import EncodedEpisode, load_episode
from lssvwm_core.evaluation.features import latent_features
from lssvwm_core.evaluation.frame_metrics import load_frame_metrics
from lssvwm_core.evaluation.results import Measures, load_results
from lssvwm_core.evaluation.run import EvalOptions, evaluate
from lssvwm_core.evaluation.tasks import make_task
from lssvwm_core.play.game import Game
from lssvwm_core.rendering import RenderOptions, render
from lssvwm_core.world import World, load_world
from lssvwm_datasets.sources import sample_recordings
from lssvwm_datasets.video import read_video

GOLDEN = Path(__file__).parent / "golden"
pytestmark = pytest.mark.usefixtures("float32")
KEYS = [1, 1, 2, 0, 4, 3, 1, 1]


@pytest.fixture(scope="module")
def golden() -> dict[str, np.ndarray]:
    with np.load(GOLDEN / "frames.npz") as file:
        return {name: file[name] for name in file.files}


@pytest.fixture(scope="module")
def world() -> World:
    return load_world(GOLDEN / "runs/test", "cpu")


@pytest.fixture(scope="module")
def episode(world: World) -> EncodedEpisode:
    return load_episode(world, GOLDEN / "data/maze")


def assert_same(found: np.ndarray, expected: np.ndarray) -> None:
    assert found.shape == expected.shape
    difference = np.abs(found.astype(np.float64) - expected)
    assert difference.mean() < 0.05
    assert (difference > 2).mean() < 0.001


def generated(world: World, episode: EncodedEpisode, context: int, frames: int, seed: int) -> np.ndarray:
    rollout = world.rollout(seed)
    rollout.observe(episode.latents[:context], episode.conditions[:context])
    chunks = rollout.run(episode.conditions[context : context + frames])
    return np.concatenate([chunk.frames for chunk in chunks])[:frames]


def test_a_recorded_walk(world: World, episode: EncodedEpisode, golden: dict[str, np.ndarray]) -> None:
    assert_same(generated(world, episode, 20, 25, seed=3), golden["rollout"][20:])
    decoded = world.decode(torch.from_numpy(episode.latents[:20]).float())
    assert_same(decoded, golden["rollout"][:20])


def test_frame_by_frame_with_two_steps_and_actions_alone(
    world: World, episode: EncodedEpisode, golden: dict[str, np.ndarray]
) -> None:
    actions = np.eye(6, dtype=np.float32)[([1, 1, 1, 2] * 3)[:10]]
    rollout = world.sampled_with(steps=2, chunk=1).rollout(seed=1)
    rollout.observe(episode.latents[:20], Conditions(action=episode.actions[:20]))
    frames = np.concatenate([chunk.frames for chunk in rollout.run(Conditions(action=actions))])
    assert_same(frames, golden["rollout_chunk_1"][20:])


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("rollout_beyond", RenderOptions(frames=130, context=90, seed=2)),
        ("loaded_state", RenderOptions(15, 0, "left*5,forward", seed=5, load_state=GOLDEN / "state.safetensors")),
    ],
)
def test_videos_beyond_the_recording_and_from_a_saved_state(
    world: World,
    episode: EncodedEpisode,
    golden: dict[str, np.ndarray],
    tmp_path: Path,
    name: str,
    options: RenderOptions,
) -> None:
    for _ in render(world, None if options.load_state else episode, options, tmp_path / "v.mp4"):
        pass
    frames = np.concatenate(list(read_video(tmp_path / "v.mp4")))
    frames = frames[:, :256].reshape(len(frames), 64, 4, 64, 4, 3).mean(axis=(2, 4))
    assert np.abs(frames - golden[name]).mean() < 2, "but for what H.264 loses"


def test_keys_and_a_cut_memory(world: World, golden: dict[str, np.ndarray], tmp_path: Path) -> None:
    shutil.copytree(GOLDEN / "slots", tmp_path / "slots")
    game = Game(world, GOLDEN / "data/maze", tmp_path / "slots", context=30, seed=7)
    frames = [game.step(key) for key in KEYS]
    game.cut_memory = True
    frames += [game.step(key) for key in KEYS]
    game.cut_memory = False
    game.save("now")
    frames += [game.step(key) for key in KEYS]
    assert_same(np.stack(frames), golden["play"])
    for slot in ("moment", "now"):  # saved by the code before, and by this
        game.load(slot)
        assert_same(np.stack([game.step(key) for key in KEYS]), golden["play"][16:])


def test_the_shipped_world(golden: dict[str, np.ndarray]) -> None:
    """The same latents; their decoder was trained on since, and these frames were made anew."""
    world = load_world("maze-world-scan", "cpu")
    assert_same(generated(world, load_episode(world, sample_recordings()), 60, 10, seed=0), golden["maze_world"])


def test_an_evaluation(world: World, golden: dict[str, np.ndarray], tmp_path: Path) -> None:
    options = EvalOptions(make_task("retrieval", 40, 35), episodes=1, seeds=2, batch=2, videos=0)
    cpu = torch.device("cpu")
    measures = Measures(latent_features(world.autoencoder, cpu), *load_frame_metrics(cpu))
    for _ in evaluate(world, GOLDEN / "data/maze", options, measures, {}, tmp_path):
        pass
    for k, result in enumerate(load_results(tmp_path)):
        assert_same(result["pictures"], golden[f"eval{k}_pictures"])
        for name in ("psnr", "ssim", "features"):
            np.testing.assert_allclose(result[name], golden[f"eval{k}_{name}"], rtol=2e-2, atol=2e-2)
