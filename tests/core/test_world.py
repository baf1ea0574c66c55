"""The rollout contract on a whole world."""

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from lssvwm_core.episodes import EncodedEpisode, load_episode
from lssvwm_core.evaluation.metrics import psnr
from lssvwm_core.model.autoencoder import load_autoencoder
from lssvwm_core.resolve import resolve_model, resolve_world
from lssvwm_core.sampling import Euler
from lssvwm_core.training.run.folder import Run
from lssvwm_core.world import World, load_world, save_world
from lssvwm_datasets.errors import LssvwmError
from lssvwm_datasets.sources import find_recordings, sample_recordings


@pytest.fixture(scope="module")
def world(workspace: Path) -> World:
    world = load_world(Run(workspace / "runs/test").world, torch.device("cpu"))
    world = world.sampled_with(steps=2)
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in world.model.parameters():  # four steps of training leave the gates all but closed
            parameter += 0.05 * torch.randn_like(parameter)
    return world


@pytest.fixture(scope="module")
def episode(workspace: Path, world: World) -> EncodedEpisode:
    return load_episode(world, workspace / "data/maze")


def conditions(episode: EncodedEpisode, start: int, stop: int) -> dict[str, torch.Tensor]:
    assert episode.poses is not None
    return {
        "action": torch.from_numpy(episode.actions[start:stop])[None],
        "pose": torch.from_numpy(episode.poses[start:stop])[None],
    }


@pytest.mark.usefixtures("float32")
def test_observing_in_pieces_is_observing_at_once(world: World, episode: EncodedEpisode) -> None:
    latents = torch.from_numpy(episode.latents[:230])[None].float()
    whole, pieces = world.reset(), world.reset()
    world.observe(whole, latents, conditions(episode, 0, 230))
    for start, stop in ((0, 5), (5, 120), (120, 230)):
        world.observe(pieces, latents[:, start:stop], conditions(episode, start, stop))
    assert whole.frames_seen == pieces.frames_seen == 230
    for one, other in zip(whole.mixers, pieces.mixers, strict=True):
        for name in one:
            torch.testing.assert_close(one[name], other[name], atol=1e-4, rtol=1e-3)


def test_generating_commits_what_was_sampled(world: World, episode: EncodedEpisode) -> None:
    state = world.reset()
    latents = torch.from_numpy(episode.latents[:10])[None].float()
    world.observe(state, latents, conditions(episode, 0, 10))
    branch, size = state.copy(), state.nbytes
    chunk = world.generate(state, conditions(episode, 10, 15), torch.Generator().manual_seed(3))
    world.observe(branch, chunk, conditions(episode, 10, 15), generated=True)
    assert state.nbytes == size
    for one, other in zip(state.mixers, branch.mixers, strict=True):
        for name in one:
            torch.testing.assert_close(one[name], other[name])


def test_steps_and_shift_change_what_is_sampled(world: World, episode: EncodedEpisode) -> None:
    state = world.reset()
    world.observe(state, torch.from_numpy(episode.latents[:10])[None].float(), conditions(episode, 0, 10))
    samplers = [world.sampler, Euler(steps=1), Euler(steps=2, shift=3.0)]
    chunks = [
        replace(world, sampler=sampler).sample(state, conditions(episode, 10, 15), torch.Generator().manual_seed(3))
        for sampler in samplers
    ]
    assert not torch.equal(chunks[0], chunks[1])
    assert not torch.equal(chunks[0], chunks[2])


def test_a_world_keeps_the_steps_it_is_for(workspace: Path, tmp_path: Path, world: World) -> None:
    shutil.copytree(workspace / "data/maze/autoencoder", tmp_path / "autoencoder")
    save_world(tmp_path, world.model, world.header, "autoencoder", Euler(steps=3, shift=2.0))
    assert load_world(tmp_path, "cpu").sampler == Euler(3, 2.0)
    config = json.loads((tmp_path / "config.json").read_text())
    for wrong in ({"sampling_steps": 0}, {"sampler": {"steps": "x"}}, {"sampler": {"name": "y"}}, {"sampler": 3}):
        (tmp_path / "config.json").write_text(json.dumps(config | wrong))
        with pytest.raises(LssvwmError, match=r"config\.json"):
            load_world(tmp_path, "cpu")
    del config["sampler"]
    for older, steps in (({"sampling_steps": 2}, 2), ({}, 4)):
        (tmp_path / "config.json").write_text(json.dumps(config | older))
        assert load_world(tmp_path, "cpu").steps == steps
    assert world.sampled_with(steps=5, chunk=1).chunk == 1
    with pytest.raises(LssvwmError, match="--chunk 3: the world was trained for 5, 1"):
        world.sampled_with(chunk=3)


def test_a_world_dreams_the_same_alone_and_in_a_batch(world: World, episode: EncodedEpisode) -> None:
    latents = torch.from_numpy(episode.latents[:10])[None].float()
    dreams = []
    for seeds in ((3, 4), (4,)):
        state, batch = world.reset(len(seeds)), len(seeds)
        world.observe(state, latents.repeat(batch, 1, 1, 1, 1), {})
        dreams.append(world.generate(state, {}, [torch.Generator().manual_seed(seed) for seed in seeds])[-1])
    torch.testing.assert_close(*dreams, atol=1e-4, rtol=1e-3)


def test_worlds_are_found_by_run_path_and_folder(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(workspace)
    expected = Run(Path("runs/test")).world.resolve()
    for name in ("test", "runs/test", "runs/test/checkpoints/last", "runs/test/checkpoints/last/model"):
        assert resolve_world(name).resolve() == expected
    with pytest.raises(LssvwmError, match="no such model"):
        resolve_world("unknown")


def test_without_a_name_the_latest_run_is_taken_else_the_shipped_world(
    workspace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert resolve_world(None).name == "maze-world"
    for name, time in (("b", 1e9), ("a", 2e9)):
        shutil.copytree(workspace / "runs/test", tmp_path / "runs" / name, symlinks=True)
        last = Run(tmp_path / "runs" / name).last
        assert last is not None
        os.utime(last, (time, time))
    assert resolve_world(None) == Run(Path("runs/a")).world


@pytest.mark.parametrize("name", ["maze-world", "luanti-world"])
def test_the_shipped_worlds_load_and_dream(name: str) -> None:
    world = load_world(name, "cpu").sampled_with(steps=1)
    state = world.reset()
    chunk = world.generate(state, {}, torch.Generator().manual_seed(0))
    frames = world.decode(chunk[0])
    assert frames.shape == (5, 64, 64, 3)
    assert frames.std() > 5


def test_the_shipped_autoencoder_keeps_an_unseen_maze(workspace: Path) -> None:
    """The recipe reports 37.6 dB on 48 mazes; the maze of this sample is another."""
    autoencoder = load_autoencoder(resolve_model("maze-autoencoder"))
    episode = next(find_recordings(sample_recordings() / "eval", "maze")[0].episodes())
    frames = torch.from_numpy(np.concatenate(list(episode.frames))[::20])
    with torch.inference_mode():
        decoded = autoencoder.decode(autoencoder.encode(frames)).numpy()
    assert psnr(decoded, frames.numpy()).mean() > 36
