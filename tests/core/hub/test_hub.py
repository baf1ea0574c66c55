"""What is shared: the folder for the hub, and what is said when the hub says no."""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import torch
from huggingface_hub import DatasetCard, ModelCard

from lssvwm_core.hub.cards import Report, Row, model_card
from lssvwm_core.hub.client import own_repository, push, repository_of
from lssvwm_core.hub.folders import Files, dataset_files, world_files, write_files
from lssvwm_core.hub.pretrained import PretrainedWorld
from lssvwm_core.hub.previews import write_previews
from lssvwm_core.training.run.folder import Run, RunFacts
from lssvwm_core.world import World, load_world
from lssvwm_datasets.errors import LssvwmError
from lssvwm_datasets.sources import sample_recordings
from lssvwm_datasets.video import probe_video
from tests.conftest import lssvwm, train_command
from tests.core.hub.hub_server import CUT, USER, Hub, revision

as_a_user = partial(lssvwm, own_process=True)  # the hub's address is read when its client is imported


@pytest.fixture
def built(workspace: Path, tmp_path: Path) -> Path:
    write_files(world_files(Run(workspace / "runs/test").world, "me/maze"), tmp_path / "hub")
    return tmp_path / "hub"


def assert_same_world(ours: World, theirs: World) -> None:
    for one, other in ((ours.model, theirs.model), (ours.autoencoder, theirs.autoencoder)):
        for name, tensor in one.state_dict().items():
            assert torch.equal(tensor, other.state_dict()[name]), name


def test_folder_loads_back_into_the_identical_world(workspace: Path, built: Path) -> None:
    ours = load_world(Run(workspace / "runs/test").world, torch.device("cpu"))
    theirs = load_world(built, torch.device("cpu"))
    assert_same_world(ours, theirs)


def test_folder_holds_what_people_expect_and_nothing_else(built: Path) -> None:
    files = {path.relative_to(built).as_posix() for path in built.rglob("*") if path.is_file()}
    weights = {"config.json", "model.safetensors"}
    assert files == weights | {f"autoencoder/{name}" for name in weights} | {"README.md"}
    card = (built / "README.md").read_text()
    assert "lssvwm rollout --checkpoint me/maze" in card
    assert "Trained for 4 steps" in card
    assert "po2025longcontext" in card
    assert json.loads((built / "config.json").read_text())["autoencoder"] == "autoencoder"


def test_the_card_tells_what_eval_found_about_these_weights_and_no_others(workspace: Path, tmp_path: Path) -> None:
    world = Run(workspace / "runs/test").world
    evaluations = tmp_path / "evaluations"
    small = ["--context", "20", "--frames", "10", "--episodes", "1", "--steps", "1", "--videos", "0"]
    for checkpoint in ("test", "maze-world"):
        which = ["--checkpoint", checkpoint, "--data", str(sample_recordings()), "--out", str(evaluations / checkpoint)]
        lssvwm(workspace, "eval", "retrieval", *which, *small)
    write_files(world_files(world, "me/maze", evaluations), tmp_path / "hub")
    card = ModelCard.load(tmp_path / "hub/README.md")
    report = json.loads((evaluations / "test/report.json").read_text())["rows"]["model"]["all"]
    found = {result.metric_type: result.metric_value for result in card.data.eval_results}
    assert found == {metric: round(value, 4) for metric, value in report.items()}
    assert card.data.eval_results[0].task_name == "retrieval 20 + 10"
    assert f"| retrieval 20 + 10 | 1 | model | {report['psnr']:.3f} |" in card.text
    assert card.text.count("| memory cut |") == 1


def test_the_cards_figures_keep_their_tasks(built: Path) -> None:
    def report(task: str, episodes: int, **figures: float) -> Report:
        return Report(task, 20, 10, episodes, {name: Row(figures) for name in ("model", "memory cut")})

    reports = [report("retrieval", 8, psnr=21.0, ssim=0.5), report("reasoning", 3, psnr=17.0, ssim=0.25, lpips=0.125)]
    card = ModelCard(model_card("me/maze", json.loads((built / "config.json").read_text()), reports=reports))
    assert card.data.eval_results is not None
    found = {(result.task_name, result.metric_type): result.metric_value for result in card.data.eval_results}
    assert found["retrieval 20 + 10", "psnr"] == 21.0
    assert found["reasoning 20 + 10", "lpips"] == 0.125
    assert len(found) == 5
    assert "| retrieval 20 + 10 | 8 | memory cut | 21.000 | 0.500 | – |" in card.text
    assert "| reasoning 20 + 10 | 3 | model | 17.000 | 0.250 | 0.125 |" in card.text


def test_the_card_shows_the_last_sample(workspace: Path, tmp_path: Path) -> None:
    shutil.copytree(workspace / "runs/test", tmp_path / "runs/test", symlinks=True)
    samples = tmp_path / "runs/test/samples"
    samples.mkdir(exist_ok=True)
    for step in (2, 4):
        (samples / f"{step:06d}.mp4").write_bytes(bytes([step]))
    write_files(world_files(Run(tmp_path / "runs/test").world, "me/maze"), tmp_path / "hub")
    address = "https://huggingface.co/me/maze/resolve/main/sample.mp4"
    assert f'<video controls loop src="{address}">' in (tmp_path / "hub/README.md").read_text()
    assert (tmp_path / "hub/sample.mp4").read_bytes() == bytes([4])


def test_dry_run_shows_the_folder_and_uploads_nothing(workspace: Path, tmp_path: Path) -> None:
    done = lssvwm(workspace, "push-hub", "test", "--dry-run", "--out", str(tmp_path / "preview"))
    assert "model.safetensors" in done.stdout
    assert "would upload" in done.stderr
    assert (tmp_path / "preview/README.md").exists()


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"HF_TOKEN": "hf_wrong", "HF_HUB_OFFLINE": "1"}, "HF_HUB_OFFLINE"),
        ({"HF_TOKEN": "hf_wrong", "HF_ENDPOINT": "http://127.0.0.1:9"}, "cannot be reached"),
        ({"HF_ENDPOINT": "http://127.0.0.1:9"}, "hf auth login"),
    ],
)
def test_no_network_and_no_login_are_told(
    workspace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], message: str
) -> None:
    for name, value in {"HF_HUB_OFFLINE": "0", "HF_HOME": str(tmp_path), **environment}.items():
        monkeypatch.setenv(name, value)
    assert message in as_a_user(workspace, "push-hub", "test", fails=True).stderr


def test_the_card_names_the_paper_the_data_and_the_world_that_it_began_with(built: Path) -> None:
    config = json.loads((built / "config.json").read_text())
    facts = RunFacts("maze", None, None, None, None, base_model="ada/base")
    card = ModelCard(model_card("me/maze", config, facts, data="me/maze-data"))
    assert (card.data.base_model, card.data.datasets) == ("ada/base", ["me/maze-data"])
    assert "arxiv:2505.20171" in card.data.tags
    assert repository_of(Path("hub/models--ada--base/snapshots/abc")) == "ada/base"
    assert repository_of(Path("runs/test/checkpoints/last")) is None


def test_data_on_the_hub_have_previews_that_its_viewer_shows(golden_copy: Path, tmp_path: Path) -> None:
    made = tmp_path / "made"
    made.mkdir()
    shards = golden_copy / "data/maze"
    files = dataset_files(shards, "me/maze-data", write_previews(shards, made))
    rows = [json.loads(line) for line in str(files["preview/metadata.jsonl"]).splitlines()]
    assert {row["split"] for row in rows} == {"train", "validation"}
    for row in rows:
        video = files[f"preview/{row['file_name']}"]
        assert isinstance(video, Path)
        assert 0 < probe_video(video).count <= row["frames"]
    card = DatasetCard(str(files["README.md"]))
    assert card.data.configs[0]["data_files"][0]["path"] == "preview/*"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub on loopback that commands run by a test talk to, logged in as its user."""
    with Hub().running() as server:
        for name, value in server.environment(str(tmp_path / "home")).items():
            monkeypatch.setenv(name, value)
        yield server


def test_a_world_goes_to_the_hub_and_comes_back_identical(workspace: Path, tmp_path: Path, hub: Hub) -> None:
    done = as_a_user(workspace, "push-hub", "test", "--private")
    assert f"uploaded: {hub.url}/{USER}/test/commit/" in done.stderr
    repo = f"{USER}/test"
    files = hub.files(repo)
    write_files(world_files(Run(workspace / "runs/test").world, repo), tmp_path / "built")
    assert files == {
        path.relative_to(tmp_path / "built").as_posix(): path.read_bytes()
        for path in (tmp_path / "built").rglob("*")
        if path.is_file()
    }
    assert repo in hub.private
    assert str(workspace).encode() not in b"".join(files.values())
    assert b"data/maze" not in files["README.md"]
    first = revision(hub.repositories["models", repo])
    video = tmp_path / "video.mp4"
    options = ["--frames", "15", "--context", "10", "--out"]
    as_a_user(tmp_path, "rollout", "--checkpoint", f"{repo}@{first}", *options, str(video))
    lssvwm(workspace, "rollout", "--checkpoint", "test", "--data", str(sample_recordings()), *options, "own.mp4")
    assert video.read_bytes() == (workspace / "own.mp4").read_bytes()
    hub.faults["info"] = hub.faults["resolve"] = 500  # what was loaded once needs no hub
    as_a_user(tmp_path, "rollout", "--checkpoint", f"{repo}@{first}", *options, str(video))


SHARE = """
import sys, torch
from lssvwm_core.hub.pretrained import PretrainedWorld
world = PretrainedWorld.from_pretrained(sys.argv[1], device="cpu")
with torch.no_grad():
    next(world.model.parameters()).add_(1)
world.push_to_hub(sys.argv[2])
again = PretrainedWorld.from_pretrained(sys.argv[2])
again.sampled_with(steps=1).save_pretrained("saved")
PretrainedWorld.from_pretrained("saved").save_pretrained("saved")  # over itself
"""


def test_a_world_shares_itself_by_the_mixin_of_the_hub(workspace: Path, tmp_path: Path, hub: Hub) -> None:
    as_a_user(workspace, "push-hub", "test")
    subprocess.run([sys.executable, "-c", SHARE, f"{USER}/test", f"{USER}/own"], cwd=tmp_path, check=True)
    files = hub.files(f"{USER}/own")
    weights = {"config.json", "model.safetensors"}
    assert set(files) == weights | {f"autoencoder/{name}" for name in weights} | {"README.md"}
    assert b"lssvwm rollout --checkpoint ada/own" in files["README.md"]
    assert b"Trained for" not in files["README.md"]  # its weights were changed
    pushed, saved = (tmp_path / name for name in ("pushed", "saved"))
    for name, content in files.items():
        (pushed / name).parent.mkdir(parents=True, exist_ok=True)
        (pushed / name).write_bytes(content)
    changed = load_world(Run(workspace / "runs/test").world, torch.device("cpu"))
    with torch.no_grad():
        next(changed.model.parameters()).add_(1)
    for folder in (pushed, saved):
        assert_same_world(changed, load_world(folder, torch.device("cpu")))
        assert_same_world(changed, PretrainedWorld.from_pretrained(str(folder)))


def test_shards_go_to_the_hub_and_train_from_there(workspace: Path, tmp_path: Path, hub: Hub) -> None:
    as_a_user(workspace, "push-hub", "test", "--what", "both", "--repo", f"{USER}/both")
    data = hub.files(f"{USER}/both-data", "datasets")
    shards = {path.name: path.read_bytes() for path in (workspace / "data/maze").glob("*.h5")}
    assert {name: data[name] for name in shards} == shards
    assert b"lssvwm train --data ada/both-data" in data["README.md"]
    as_a_user(tmp_path, *train_command("far", 4), "--data", f"{USER}/both-data")
    ours, theirs = (Run(folder / "runs" / name).world for folder, name in ((workspace, "test"), (tmp_path, "far")))
    assert (ours / "model.safetensors").read_bytes() == (theirs / "model.safetensors").read_bytes()


@pytest.mark.parametrize(
    ("step", "fault", "message"),
    [
        ("whoami", 401, "hf auth login"),
        ("create", 403, "no right to write"),
        ("commit", 409, "changed meanwhile"),
        ("create", 429, "patience"),
        ("commit", 500, "500"),
        ("upload", 403, "no right to write"),
        ("create", CUT, "try again later"),
        ("commit", CUT, "try again later"),
    ],
)
def test_refusals_and_cuts_are_told_and_nothing_is_committed(
    tmp_path: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch, step: str, fault: int | str, message: str
) -> None:
    for name, value in {"ENDPOINT": hub.url, "HF_HUB_OFFLINE": False, "HF_HUB_DISABLE_XET": True}.items():
        monkeypatch.setattr(f"huggingface_hub.constants.{name}", value)  # read when it was imported
    text = "---\nlicense: mit\n---\n"
    (tmp_path / "weights").write_text(text)
    files: Files = {"config.json": text, "model.safetensors": tmp_path / "weights", "README.md": text}
    hub.faults[step] = fault
    with pytest.raises(LssvwmError, match=message):
        push(files, own_repository("maze"))
    assert all(len(commits) == 1 for commits in hub.repositories.values())
    hub.faults.clear()
    sent = hub.requests["upload"]
    push(files, own_repository("maze"))
    assert set(hub.files(f"{USER}/maze")) == {"config.json", "model.safetensors", "README.md"}
    if step == "commit":
        assert hub.requests["upload"] == sent, "what had arrived is not sent again"
