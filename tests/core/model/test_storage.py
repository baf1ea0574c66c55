"""Folders of models that come from anywhere: what they ask for is held against what they hold, before it is taken."""

import json
import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from lssvwm_core.model import storage
from lssvwm_core.model.autoencoder import Autoencoder, AutoencoderConfig, load_autoencoder, save_autoencoder
from lssvwm_core.model.tensors import read_header
from lssvwm_core.resolve import shipped_models
from lssvwm_core.world import load_model
from lssvwm_datasets.errors import LssvwmError

GOLDEN = Path(__file__).parents[2] / "golden"
HUGE = 10_000_000


@pytest.fixture
def world(tmp_path: Path) -> Path:
    """A world's folder in a run."""
    run = Path(shutil.copytree(GOLDEN / "runs/test", tmp_path / "run"))
    return run / "checkpoints/000040/model"


@pytest.fixture
def autoencoder(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    save_autoencoder(tmp_path / "ae", Autoencoder(AutoencoderConfig(latent_channels=4, widths=(16, 16))))
    return tmp_path / "ae"


def edit(folder: Path, section: str | None, **changes: Any) -> None:
    path = folder / "config.json"
    config = json.loads(path.read_text())
    (config if section is None else config[section]).update(changes)
    path.write_text(json.dumps(config))


BOMBS = [
    ("model", {"depth": HUGE}, "depth is 10000000; expected at most 256"),
    ("model", {"depth": 100}, r"does not fit its config: missing layers\.2\."),
    ("model", {"width": 8 * HUGE}, "does not fit its config"),
    ("model", {"width": 2**62, "headdim": 8}, "no model can be built as it says"),
    ("model", {"expand": HUGE}, "does not fit its config"),
    ("model", {"d_state": HUGE}, "does not fit its config"),
    ("model", {"state_width": HUGE}, "does not fit its config"),
    ("model", {"headdim": 32, "head_width": 32}, "does not fit its config"),
    ("model", {"mlp_ratio": 1e12}, "does not fit its config"),
    ("model", {"latent_shape": [4, 4 * HUGE, 4 * HUGE]}, "data: frames of .* but the model is for latents of"),
    ("model", {"frame_window": HUGE}, "frame_window is 10000000; expected at most 4096"),
    ("model", {"frame_window": HUGE, "chunk_sizes": [HUGE]}, "frame_window is 10000000"),
    ("model", {"chunk_sizes": [HUGE]}, r"chunk sizes \(10000000,\) must lie within 1..10"),
    ("model", {"action_names": ["a"] * 1000, "odometry": []}, "does not fit its config"),
    ("data", {"latent_shape": [4, HUGE, HUGE]}, r"latents of .*expected sides of 1 to 16384.* - at \$\.data"),
]
MALFORMED = [
    ("model", {"depth": "2"}, "Expected int, got str - at .*depth"),
    ("model", {"depth": 2.5}, "Expected int, got float - at .*depth"),
    ("model", {"width": -64}, "width is -64; expected at least 1"),
    ("model", {"latent_shape": [4, 4]}, "latent_shape"),
    ("model", {"block_sizes": [[1, "x"]]}, "block_sizes"),
    ("model", {"mixers": ["scan"] * 100_000}, "mixers are .{,400} 16 at most"),
    ("model", {"frame_window": 4096, "chunk_sizes": [*range(1, 4097)]}, "4096 chunk sizes; expected 1 to 16"),
    ("model", {"chunk_sizes": [1] * 100_000}, "100000 chunk sizes; expected 1 to 16"),
    ("model", {"chunk_sizes": [1] * 17}, "17 chunk sizes; expected 1 to 16"),
    ("model", {"mixers": ["scan", "loop"]}, "mixers are .*expected some of scan, attention, causal"),
    ("model", {"colour": 1}, "unknown fields colour"),
    ("data", {"frame_size": [0, 0]}, r"frames of \(0, 0\)"),
    ("data", {"fps": "fast"}, "Expected float, got str - at .*data.fps"),
    (None, {"model": 5}, "Expected object, got int - at .*model"),
    (None, {"data": []}, "data"),
    (None, {"autoencoder": 7}, "Expected str, got int - at .*autoencoder"),
    (None, {"kind": 3}, "describes 3, expected kind 'world-model'"),
]


@pytest.mark.parametrize(("section", "changes", "words"), [*BOMBS, *MALFORMED])
def test_a_config_that_asks_for_what_is_not_there_is_refused(world: Path, section, changes, words) -> None:
    edit(world, section, **changes)
    with pytest.raises(LssvwmError, match=words) as refusal:
        load_model(world)
    assert str(world) in str(refusal.value)


def test_no_memory_is_taken_for_what_a_config_asks(world: Path, autoencoder: Path) -> None:
    """In a process that may have 200 MB more than it has when all is imported."""
    cases: list[tuple[Path, str | None, Any]] = [(world, section, changes) for section, changes, _ in BOMBS]
    for changes in (
        {"encoder_blocks": HUGE},
        {"widths": [16 * HUGE]},
        {"latent_channels": HUGE},
        {"widths": [16] * 99},
    ):
        cases.append((autoencoder, None, changes))
    script = """
import json, resource, sys
from pathlib import Path
from lssvwm_core.model.autoencoder import load_autoencoder
from lssvwm_core.world import load_model
from lssvwm_datasets.errors import LssvwmError

taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (taken + 200 * 2**20,) * 2)
for folder, section, changes in json.loads(sys.argv[1]):
    path = Path(folder) / "config.json"
    kept = path.read_text()
    config = json.loads(kept)
    (config if section is None else config[section]).update(changes)
    path.write_text(json.dumps(config))
    try:
        (load_model if "model" in config else load_autoencoder)(Path(folder))
        print("taken:", changes)
    except LssvwmError as error:
        print("refused:", str(error)[:200])
    path.write_text(kept)
"""
    argument = json.dumps([(str(folder), section, changes) for folder, section, changes in cases])
    done = subprocess.run([sys.executable, "-c", script, argument], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert [line.partition(":")[0] for line in done.stdout.splitlines()] == ["refused"] * len(cases), done.stdout


def test_a_state_out_of_proportion_to_the_weights_is_refused(world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lssvwm_core.world.STATE_BYTES", 2**20)
    assert load_model(world)
    edit(world, "model", frame_window=4096)
    with pytest.raises(LssvwmError, match=r"config\.json: a state of .* frame_window or d_state is too large"):
        load_model(world)


def test_deep_and_endless_numbers_in_a_config_are_told(world: Path) -> None:
    (world / "config.json").write_text('{"kind":' * 200_000)
    with pytest.raises(LssvwmError, match=r"config\.json: not readable as JSON"):
        load_model(world)
    (world / "config.json").write_text('{"kind": "world-model", "model": {"mlp_ratio": Infinity}}')
    with pytest.raises(LssvwmError, match="expected finite numbers, found Infinity"):
        load_model(world)


# Where an autoencoder may lie


@pytest.mark.parametrize(
    "name",
    ["/etc", "..", "../../../../other", "../../../../../../../..", "../../../autoencoder/../../other", "a\0b", "link"],
)
def test_an_autoencoder_outside_of_the_worlds_run_is_refused(world: Path, tmp_path: Path, name: str) -> None:
    (tmp_path / "other").mkdir()
    (world / "link").symlink_to(tmp_path / "other")
    lonely = Path(shutil.copytree(world, tmp_path / "lonely", symlinks=True))
    for folder in (world, lonely):
        edit(folder, None, autoencoder=name)
        if folder == world and name == "..":
            continue  # within the run
        with pytest.raises(LssvwmError, match=r"its autoencoder is .*, outside of .*; copy that folder to"):
            load_model(folder)


def test_an_autoencoder_is_found_where_worlds_have_it(world: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert load_model(world)[2] == run / "autoencoder"
    (tmp_path / "alias").symlink_to(run)
    assert load_model(tmp_path / "alias/checkpoints/000040/model")[2] == run / "autoencoder"
    edit(Path(shutil.copytree(world, run / "teacher")), None, autoencoder="../autoencoder")
    assert load_model(run / "teacher")[2] == run / "autoencoder"
    edit(Path(shutil.copytree(world, tmp_path / "whole")), None, autoencoder="autoencoder")
    assert load_model(tmp_path / "whole")[2] == tmp_path / "whole/autoencoder"
    shipped = shipped_models()
    assert load_model(shipped["maze-world"])[2] == shipped["maze-autoencoder"].resolve()


def test_a_world_in_the_hubs_cache_is_links_to_blobs(world: Path, tmp_path: Path) -> None:
    blobs, snapshot = tmp_path / "models--me--maze/blobs", tmp_path / "models--me--maze/snapshots/1234"
    edit(world, None, autoencoder="autoencoder")
    for number, (source, name) in enumerate(
        [(world, "config.json"), (world, "model.safetensors")]
        + [(tmp_path / "run/autoencoder", f"autoencoder/{name}") for name in ("config.json", "model.safetensors")]
    ):
        blobs.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source / Path(name).name, blobs / str(number))
        (snapshot / name).parent.mkdir(parents=True, exist_ok=True)
        (snapshot / name).symlink_to(os.path.relpath(blobs / str(number), (snapshot / name).parent))
    _, header, folder = load_model(snapshot)
    assert storage.latents_sha256(folder) == header.autoencoder_sha256
    assert load_autoencoder(folder).latent_channels == 4


# What may stand in a file of weights


def rewritten(folder: Path, change: Any) -> None:
    path = folder / "model.safetensors"
    save_file({name: change(name, tensor).contiguous() for name, tensor in load_file(path).items()}, path)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_weights_of_another_precision_become_the_models(autoencoder: Path, dtype: torch.dtype) -> None:
    expected = {name: tensor.to(dtype).float() for name, tensor in load_file(autoencoder / "model.safetensors").items()}
    rewritten(autoencoder, lambda _, tensor: tensor.to(dtype))
    found = load_autoencoder(autoencoder).state_dict()
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())


@pytest.mark.parametrize(
    ("value", "dtype", "words"),
    [
        (torch.nan, torch.float32, "latent_std has numbers that are not finite"),
        (torch.inf, torch.float16, "latent_std has numbers that are not finite"),
        (-torch.inf, torch.bfloat16, "latent_std has numbers that are not finite"),
        (1e300, torch.float64, "latent_std has numbers that are not finite"),
        (1, torch.int64, "latent_std is torch.int64, expected torch.float32"),
        (1, torch.bool, "latent_std is torch.bool, expected torch.float32"),
        (1.0, torch.float8_e4m3fn, "latent_std is of type F8_E4M3, expected one of F16"),
    ],
)
def test_weights_that_are_no_usable_numbers_are_refused_by_name(autoencoder: Path, value, dtype, words) -> None:
    def change(name: str, tensor: torch.Tensor) -> torch.Tensor:
        return torch.full_like(tensor, value, dtype=dtype) if name == "latent_std" else tensor

    rewritten(autoencoder, change)
    with pytest.raises(LssvwmError, match=rf"model\.safetensors: .*{words}"):
        load_autoencoder(autoencoder)


def test_what_is_no_regular_file_is_refused_at_once(autoencoder: Path) -> None:
    """A pipe that nobody writes to would be waited for without end."""
    path = autoencoder / "model.safetensors"
    for make in (os.mkfifo, os.mkdir):
        path.unlink()
        make(path)
        for read in (load_autoencoder, storage.weights_sha256, storage.latents_sha256):
            with pytest.raises(LssvwmError, match="not a regular file"):
                read(autoencoder)
        path.rmdir() if path.is_dir() else None
    path.symlink_to(path.name)
    with pytest.raises(OSError, match="symbolic links"):
        load_autoencoder(autoencoder)


def test_trouble_of_the_machine_is_not_called_damage(autoencoder: Path) -> None:
    """Here: too many open files."""
    most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, most[1]))
    try:
        with pytest.raises(OSError, match="Too many open files"):
            read_header(autoencoder / "model.safetensors")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, most)


def test_files_are_readable_as_the_umask_says(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        save_autoencoder(tmp_path / "ae", Autoencoder(AutoencoderConfig(latent_channels=4, widths=(16, 16))))
    finally:
        os.umask(before)
    assert {path.name: oct(path.stat().st_mode & 0o777) for path in (tmp_path / "ae").iterdir()} == {
        "config.json": "0o640",
        "model.safetensors": "0o640",
    }
