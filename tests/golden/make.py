"""Run with the code of 13a7681 on the path, in an empty folder: makes tests/golden."""

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch

from lssvwm_core.model.autoencoder import Autoencoder, AutoencoderConfig, save_autoencoder
from lssvwm_datasets.sources import sample_recordings

torch.set_num_threads(1)
torch.manual_seed(0)
here = Path.cwd()
save_autoencoder(
    here / "ae", Autoencoder(AutoencoderConfig("small", latent_channels=4, widths=(16, 16, 16), decoder_blocks=1))
)
for split, count in (("train", 60), ("eval", 100)):
    source = sorted((sample_recordings() / split).glob("*.npz"))[0]
    with np.load(source) as f:
        arrays = {k: (f[k][:count] if f[k].ndim and len(f[k]) > count else f[k]) for k in f.files}
    (here / "rec" / split).mkdir(parents=True)
    np.savez_compressed(here / "rec" / split / "a.npz", **arrays)


def run(*a):
    subprocess.run([sys.executable, "-m", "lssvwm_cli.app", *a], check=True)


run("prepare", "maze", "rec", "--autoencoder", "ae", "--jobs", "1", "--keep-frames", "none", "--out", "data/maze")
sets = [
    p
    for o in (
        "model.width=32",
        "model.depth=2",
        "model.head_width=16",
        "model.state_width=8",
        "model.mlp_ratio=2",
        "train.learning_rate=0.02",
        "train.warmup_steps=1",
        "train.sample_every=0",
        "train.ema_decay=0.5",
        "train.keep_checkpoints=1",
    )
    for p in ("--set", o)
]
run("train", "--name", "test", "--steps", "40", "--threads", "1", "--clip-frames", "20", "--batch-size", "2", *sets)
state = here / "state.safetensors"
run(
    "rollout",
    "--checkpoint",
    "test",
    "--frames",
    "40",
    "--context",
    "20",
    "--upscale",
    "1",
    "--out",
    "v.mp4",
    "--save-state",
    str(state),
)
from lssvwm_core import rollout as ro
from lssvwm_core.episodes import load_episode
from lssvwm_core.evaluation.features import latent_features
from lssvwm_core.evaluation.results import Measures, load_results
from lssvwm_core.evaluation.run import EvalOptions, evaluate
from lssvwm_core.evaluation.tasks import Task
from lssvwm_core.play.game import Game
from lssvwm_core.resolve import resolve_world
from lssvwm_core.world import load_world

frames = {}


class Keep:
    def __init__(self):
        self.parts = []

    def append(self, f):
        self.parts.append(f)


import contextlib


def rendered(world, episode, options):
    keep = Keep()

    @contextlib.contextmanager
    def writer(path, fps):
        yield keep

    ro.video_writer, ro._compose = writer, (lambda frames, *a: frames)
    for _ in ro.render(world, episode, options, here / "x.mp4"):
        pass
    return np.concatenate(keep.parts)


device = torch.device("cpu")
world = load_world(resolve_world("test"), device)
episode = load_episode(here / "data/maze", world, 0)
frames["rollout"] = rendered(world, episode, ro.RolloutOptions(frames=45, context=20, seed=3))
frames["rollout_chunk_1"] = rendered(
    world.sampled_with(2, 1),
    episode,
    ro.RolloutOptions(frames=30, context=20, seed=1, actions="forward*3,left", conditions=("action",)),
)
frames["rollout_beyond"] = rendered(world, episode, ro.RolloutOptions(frames=130, context=90, seed=2))
frames["loaded_state"] = rendered(
    world, None, ro.RolloutOptions(frames=15, context=0, seed=5, actions="left*5,forward", load_state=state)
)
game = Game(world, here / "data/maze", here / "slots", context=30, seed=7)
keys = [1, 1, 2, 0, 4, 3, 1, 1]
played = [game.step(k) for k in keys]
game.cut_memory = True
played += [game.step(k) for k in keys]
game.cut_memory = False
game.save("moment")
played += [game.step(k) for k in keys]
frames["play"] = np.stack(played)
shipped = load_world(resolve_world("maze-world"), device)
sample = load_episode(sample_recordings(), shipped, 0)
frames["maze_world"] = rendered(shipped, sample, ro.RolloutOptions(frames=70, context=60, seed=0))[60:]
options = EvalOptions(Task("retrieval", 40, 35), episodes=1, seeds=2, batch=2, videos=0)
for _ in evaluate(
    world, here / "data/maze", options, Measures("none", latent_features(world.autoencoder, device)), {}, here / "ev"
):
    pass
for k, r in enumerate(load_results(here / "ev")):
    for name in ("psnr", "ssim", "features", "pictures"):
        frames[f"eval{k}_{name}"] = r[name]
np.savez_compressed(here / "frames.npz", **frames)
out = here / "golden"
out.mkdir()
for name in ("data", "runs", "slots", "state.safetensors", "frames.npz"):
    (shutil.copytree if (here / name).is_dir() else shutil.copy)(
        here / name, out / name, **({"symlinks": True} if (here / name).is_dir() else {})
    )
