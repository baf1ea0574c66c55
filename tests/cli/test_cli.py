"""The command line as users meet it."""

import json
import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from lssvwm_cli.app import app
from lssvwm_core.training.run.folder import Run
from tests.conftest import lssvwm, train_command

COMMANDS = [
    "record",
    "prepare",
    "index",
    "inspect",
    "train-autoencoder",
    "train",
    "distill",
    "rollout",
    "eval",
    "compare",
    "bench",
    "push-hub",
    "info",
]


def test_help_lists_every_command_without_loading_torch() -> None:
    code = (
        "import sys; sys.argv = ['lssvwm', '--help']\n"
        "from lssvwm_cli.app import app\n"
        "app(standalone_mode=False)\n"
        "assert not {'torch', 'h5py', 'numpy', 'imageio'} & set(sys.modules), 'heavy imports'"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert all(command in done.stdout for command in COMMANDS)


def test_alone_it_greets_with_what_can_be_done_now(tmp_path: Path) -> None:
    """Each line that it shows is a command that there is, and the world named is the one that would be played."""
    shown = lssvwm(tmp_path).stdout
    offers = re.findall(r"^  lssvwm ([\w-]+)", shown, re.M)
    assert len(offers) == 3
    assert set(offers) <= {command.name for command in app.registered_commands}
    assert max(map(len, shown.splitlines())) < 80
    assert "the world that ships" in shown
    (tmp_path / "runs/mine/checkpoints").mkdir(parents=True)
    assert "the world of your latest run" in lssvwm(tmp_path).stdout


def test_help_is_in_groups(tmp_path: Path) -> None:
    shown = lssvwm(tmp_path, "--help").stdout
    groups = ["Data", "Worlds", "Measuring", "Sharing"]
    assert [name for name in re.findall(r"─ (\w+) ─", shown) if name in groups] == groups
    assert "─ Commands ─" not in shown, "a command without a group: give it a rich_help_panel in app.py"


def test_info_names_versions_and_backends(tmp_path: Path) -> None:
    shown = lssvwm(tmp_path, "info").stdout
    assert all(line.startswith("- ") for line in shown.splitlines())
    for part in (f"- lssvwm {version('lssvwm')}, Python 3.", "torch 2.", "- scan: ", "- precision: ", "- extra play "):
        assert part in shown


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command: str, tmp_path: Path) -> None:
    assert "Usage" in lssvwm(tmp_path, command, "--help").stdout


def test_inspect_tells_recordings_and_shards_alike(workspace: Path, tmp_path: Path) -> None:
    from lssvwm_datasets.sources import sample_recordings

    sheet = tmp_path / "sheet.png"
    figures = [
        json.loads(lssvwm(workspace, "inspect", str(path), "--json", "--sheet", str(sheet)).stdout)
        for path in (sample_recordings(), Path("data/maze"))
    ]
    assert [figure["kind"] for figure in figures] == ["recordings", "shards"]
    for key in ("action_counts", "skipped"):
        assert figures[0][key] == figures[1][key]
    assert figures[0]["splits"]["train"]["episodes"] == 3
    assert figures[1]["splits"]["validation"]["frames"] == 1001
    assert sheet.stat().st_size > 10_000


def test_train_continues_its_run(workspace: Path) -> None:
    lssvwm(workspace, *train_command("again", 2))
    done = lssvwm(workspace, *train_command("again", 4))
    assert "from step 2" in done.stderr
    assert "step 4 of 4" in done.stderr


def test_train_starts_from_the_weights_of_a_run(workspace: Path) -> None:
    done = lssvwm(workspace, *train_command("child", 2, "--init-from", "test"))
    assert "step 2 of 2" in done.stderr


def test_train_takes_the_shape_of_the_world_it_starts_from(workspace: Path) -> None:
    lssvwm(workspace, "train", "--name", "grown", "--init-from", "test", "--steps", "1", "--threads", "1")
    worlds = [Run(workspace / "runs" / name).world / "config.json" for name in ("test", "grown")]
    assert len({json.dumps(json.loads(path.read_text())["model"]) for path in worlds}) == 1


def test_ctrl_c_saves_and_says_how_to_go_on(workspace: Path) -> None:
    import signal
    import time

    from tests.conftest import CLI

    process = subprocess.Popen(
        [*CLI, *train_command("stopped", 100_000, "--set", "train.log_every=1")],
        cwd=workspace,
        stderr=subprocess.PIPE,
        text=True,
    )
    metrics = workspace / "runs/stopped/metrics.jsonl"
    while not (metrics.exists() and metrics.read_text()):
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    error = process.communicate(timeout=60)[1]
    assert process.returncode == 130
    assert "go on with the same command" in error
    assert (Run(workspace / "runs/stopped").world / "model.safetensors").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "--data", "nowhere"], "nowhere: no such folder; expected shards (from lssvwm prepare)"),
        (["train", "--name", "x", "--set", "model.width=65"], "must be a multiple of headdim"),
        (["train", "--name", "x", "--set", "model.block_sizes=[[3, 3]]"], "block size 3x3 does not divide"),
        (["train", "--name", "x", "--clip-frames", "22"], "expected a multiple of the chunk, 5"),
        (["train", "--name", "x", "--set", "train.track=['clearml']"], "clearml is not installed"),
        (["train", "--name", "x", "--preset", "huge"], "unknown preset 'huge'"),
        (["train", "--name", "x", "--device", "cuda:7"], "device 'cuda:7' cannot be used here"),
        (["inspect", "nowhere"], "nowhere: no such folder"),
        (["record", "maze", "--size", "10x10"], "expected one of 9x9"),
        (["record", "maze", "--steps", "1001"], "has 1 to 1000"),
        (["push-hub", "test", "--repo", "name"], "expected user/name"),
        (["rollout", "--checkpoint", "some/world"], "some/world"),
    ],
)
def test_bad_input_is_one_message(workspace: Path, arguments: list[str], message: str) -> None:
    assert message in lssvwm(workspace, *arguments, fails=True).stderr
    assert not (workspace / "runs/x").exists()
