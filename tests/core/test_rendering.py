"""Videos of rollouts: constant memory, the same seed the same video, states, refusals."""

import json
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageSequence

from lssvwm_datasets.video import read_video
from tests.conftest import CLI, lssvwm

SHORT = ("rollout", "--frames", "40", "--context", "20", "--steps", "2", "--upscale", "1")


def video(path: Path) -> np.ndarray:
    return np.concatenate(list(read_video(path)))


def test_video_has_all_frames_and_marks_the_context(workspace: Path, tmp_path: Path) -> None:
    done = lssvwm(workspace, *SHORT, "--out", str(tmp_path / "v.mp4"), "--side-by-side", "--map", "--json")
    summary = json.loads(done.stdout)
    assert (summary["frames"], summary["generated"]) == (40, 20)
    frames = video(tmp_path / "v.mp4")
    assert frames.shape == (40, 84, 128, 3)
    strips = frames[:, 66:82, 100:].mean(axis=(1, 2))
    blue = strips[:, 2] - strips[:, 0] > 50
    assert blue[:20].all()
    assert not blue[20:].any()
    assert Image.open(tmp_path / "v.map.png").size == (432, 432)


@pytest.mark.parametrize(("context", "chunk"), [("21", "5"), ("3", "5"), ("17", "1")])
def test_any_context_works_with_any_chunk(workspace: Path, tmp_path: Path, context: str, chunk: str) -> None:
    options = ("--out", str(tmp_path / "v.mp4"), "--context", context, "--chunk", chunk, "--json")
    summary = json.loads(lssvwm(workspace, *SHORT, *options).stdout)
    assert (summary["frames"], summary["generated"]) == (40, 40 - int(context))
    assert len(video(tmp_path / "v.mp4")) == 40


@pytest.mark.parametrize(
    ("world", "frames", "generated"), [("test", 30, 15), ("luanti-world", 330, 330 - 161)], ids=["half", "all there is"]
)
def test_the_usual_context_fits_the_video_and_the_recording(
    workspace: Path, tmp_path: Path, world: str, frames: int, generated: int
) -> None:
    options = ("--checkpoint", world, "--frames", str(frames), "--steps", "1", "--out", str(tmp_path / "v.mp4"))
    assert json.loads(lssvwm(workspace, "rollout", *options, "--json").stdout)["generated"] == generated


def test_a_gif_for_pages(workspace: Path, tmp_path: Path) -> None:
    for name in ("v.mp4", "v.gif"):
        lssvwm(workspace, *SHORT, "--out", str(tmp_path / name), "--side-by-side", "--fps", "10")
    with Image.open(tmp_path / "v.gif") as gif:
        assert (gif.n_frames, gif.size, gif.info["duration"], gif.info["loop"]) == (40, (128, 84), 100, 0)
        frames = np.stack([np.asarray(frame.convert("RGB")) for frame in ImageSequence.Iterator(gif)])
    assert np.abs(frames.astype(int) - video(tmp_path / "v.mp4")).mean() < 8
    assert (tmp_path / "v.gif").stat().st_size < 500_000


def test_same_seed_same_video(workspace: Path, tmp_path: Path) -> None:
    for name, seed in (("a", "1"), ("b", "1"), ("c", "2")):
        lssvwm(workspace, *SHORT, "--out", str(tmp_path / f"{name}.mp4"), "--seed", seed)
    a, b, c = ((tmp_path / f"{name}.mp4").read_bytes() for name in "abc")
    assert a == b
    assert a != c


def test_saved_state_goes_on(workspace: Path, tmp_path: Path) -> None:
    state = tmp_path / "state.safetensors"
    lssvwm(workspace, *SHORT, "--out", str(tmp_path / "a.mp4"), "--save-state", str(state))
    lssvwm(
        workspace, *SHORT, "--out", str(tmp_path / "b.mp4"), "--load-state", str(state), "--actions", "forward*2,left"
    )
    assert len(video(tmp_path / "b.mp4")) == 40
    unknown = tmp_path / "unknown.safetensors"  # no context: nobody knows where the agent stands
    blind = ("rollout", "--frames", "8", "--context", "0", "--steps", "1", "--upscale", "1")
    lssvwm(workspace, *blind, "--out", str(tmp_path / "d.mp4"), "--save-state", str(unknown))
    lssvwm(workspace, *blind, "--out", str(tmp_path / "e.mp4"), "--load-state", str(unknown))
    state.write_bytes(state.read_bytes()[:1000])
    error = lssvwm(workspace, *SHORT, "--out", str(tmp_path / "c.mp4"), "--load-state", str(state), fails=True).stderr
    assert "damaged or not a safetensors file" in error
    assert not (tmp_path / "c.mp4").exists()


def test_memory_does_not_grow_with_the_video(workspace: Path, tmp_path: Path) -> None:
    """Decoded frames alone would be 12 kB each: 20 MB more."""
    code = (
        "import resource, sys; from lssvwm_cli.app import run\n"
        "for frames in ('400', '2000'):\n"
        "    assert run([*sys.argv[1:], '--frames', frames]) == 0\n"
        "    print('peak', resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)\n"
    )
    command = ["rollout", "--context", "100", "--steps", "1", "--upscale", "1", "--out", str(tmp_path / "v.mp4")]
    done = subprocess.run([CLI[0], "-c", code, *command], cwd=workspace, capture_output=True, text=True, check=True)
    short, long = (int(line.split()[1]) for line in done.stdout.splitlines() if line.startswith("peak"))
    assert long - short < 16_000  # kB; 8_100 were measured


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--context", "1100", "--frames", "1200"], "has 1001 frames"),
        (["--context", "40"], "nothing is left to generate"),
        (["--episode", "9"], "validation episodes 0..0"),
        (["--out", "v.webm"], "v.webm: expected a name that ends in .mp4 or .gif"),
        (["--actions", "fly*3"], "'fly*3' is not an action"),
        (["--chunk", "3"], "was trained for 5, 1"),
        (["--conditions", "mood"], "conditions mood; the world has action, pose"),
        (["--checkpoint", "nothing"], "nothing: no such model"),
        (["--data", "nowhere"], "nowhere: no such folder"),
    ],
)
def test_bad_options_are_told_and_write_nothing(
    workspace: Path, tmp_path: Path, arguments: list[str], message: str
) -> None:
    error = lssvwm(workspace, *SHORT, "--out", str(tmp_path / "v.mp4"), *arguments, fails=True).stderr
    assert message in error
    assert not list(tmp_path.iterdir())


def test_damaged_world_is_told(workspace: Path, tmp_path: Path) -> None:
    import shutil

    shutil.copytree(workspace / "runs/test", tmp_path / "runs/test", symlinks=True)
    weights = next((tmp_path / "runs/test/checkpoints").glob("0*/model/model.safetensors"))
    weights.write_bytes(weights.read_bytes()[:5000])
    error = lssvwm(tmp_path, *SHORT, fails=True).stderr
    assert str(weights.relative_to(tmp_path)) in error
    assert "damaged" in error
