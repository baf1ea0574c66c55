"""The script from MineRL's recordings to a video, on recordings in MineRL's layout."""

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import imageio.v2 as imageio
import numpy as np
import pytest
import torch

from lssvwm_core import load_world
from lssvwm_core.model.autoencoder import Autoencoder, AutoencoderConfig, save_autoencoder
from lssvwm_datasets.reckoning import NAMES
from lssvwm_datasets.sources import find_recordings, sample_recordings
from lssvwm_datasets.video import count_frames
from tests.conftest import train_command

SCRIPT = Path(__file__).parents[2] / "docs/minerl_video.py"
EARLY = 5  # frames of a stream's video before its first state


@pytest.fixture
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("minerl_video", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def write_as_minerl(folder: Path) -> None:
    """The samples of Luanti as streams: H.264 at 20 frames a second, no poses."""
    for number, recording in enumerate(find_recordings(sample_recordings("luanti"))):
        (episode,) = recording.episodes()
        stream = folder / f"v3_made_up_name-{number}_1-{episode.length}"
        stream.mkdir(parents=True)
        frames = np.concatenate(list(episode.frames))
        imageio.mimwrite(
            stream / "recording.mp4", np.concatenate([frames[:1]] * EARLY + [frames]), fps=20, codec="libx264"
        )
        columns = dict(zip(episode.action_names, episode.actions[1:].T, strict=True))
        camera = np.stack([columns.pop("camera_pitch"), columns.pop("camera_yaw")], axis=1)
        buttons = {f"action${name}": held.astype(np.int64) for name, held in columns.items()}
        reward = np.zeros(episode.length - 1, np.float32)
        np.savez_compressed(stream / "rendered.npz", reward=reward, **{"action$camera": camera, **buttons})
        (stream / "metadata.json").write_text(json.dumps({"true_video_frame_count": episode.length + EARLY}))


def test_the_script_leads_to_a_video_of_a_world_that_reckons(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_as_minerl(tmp_path / "minerl/MineRLTreechop-v0/train")
    for stream in list((tmp_path / "minerl/MineRLTreechop-v0/train").iterdir())[:1]:
        (tmp_path / "minerl/eval").mkdir()
        stream.rename(tmp_path / "minerl/eval" / stream.name)
    torch.manual_seed(0)
    save_autoencoder(tmp_path / "ae", Autoencoder(AutoencoderConfig("ae", 8, widths=(16, 16, 16), decoder_blocks=1)))
    prepare = ("--autoencoder", "ae", "--accept-quality", "--jobs", "1")
    assert script.make_video("minerl", 1, "out.mp4", prepare, train_command("minerl", 2)[1:]) == 0
    world = load_world("minerl")
    assert world.header.pose_names == NAMES
    assert world.model.config.odometry, "poses that nobody tells are reckoned"
    assert count_frames(tmp_path / "out.mp4") == 200
    assert script.make_video("nowhere", 1, "out.mp4") != 0
