"""Recordings to shards: alignment kept, kill -9 and continue, damage named."""

import errno
import json
import re
import shutil
import signal
import subprocess
import time
from dataclasses import replace
from importlib import resources
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import h5py
import numpy as np
import pytest
import torch

from lssvwm_core.model.autoencoder import Autoencoder, AutoencoderConfig, load_autoencoder, save_autoencoder
from lssvwm_core.model.storage import weights_sha256
from lssvwm_core.prepare.estimate import look_at_lengths, require_space
from lssvwm_core.prepare.index import write_index
from lssvwm_core.prepare.plan import ShardJob, copy_autoencoder, part_of, plan_shards
from lssvwm_core.prepare.quality import measure_reconstruction
from lssvwm_core.prepare.write import write_shards
from lssvwm_datasets.errors import LssvwmError
from lssvwm_datasets.index import read_index
from lssvwm_datasets.shards import open_shards
from lssvwm_datasets.sources import find_recordings, format_names, sample_recordings
from tests.conftest import CLI, PREPARE, lssvwm
from tests.faults.faults import Fault, FaultEnvironment

try:
    import resource
except ImportError:
    resource = None


SHIPPED = Path(str(resources.files("lssvwm_core") / "weights/maze-autoencoder"))


@pytest.fixture
def folder(workspace: Path, tmp_path: Path) -> Path:
    """A user's folder with the autoencoder and a copy of the sample recordings."""
    shutil.copytree(workspace / "autoencoder", tmp_path / "autoencoder")
    shutil.copytree(sample_recordings(), tmp_path / "recordings/maze")
    return tmp_path


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.is_file()}


def test_shards_hold_what_the_recordings_hold(workspace: Path) -> None:
    recordings = find_recordings(sample_recordings(), "maze")
    autoencoder = load_autoencoder(workspace / "autoencoder")
    for split in ("train", "validation"):
        shards = open_shards(workspace / "data/maze", split)
        originals = [next(recording.episodes()) for recording in recordings if recording.split == split]
        assert [episode.id for episode in shards.episodes] == [episode.id for episode in originals]
        for stored, original in zip(shards.episodes, originals, strict=True):
            np.testing.assert_array_equal(shards.read(stored, "actions"), original.actions)
            np.testing.assert_array_equal(shards.read(stored, "poses"), original.poses)
            np.testing.assert_array_equal(shards.layout(stored), original.layout)
            frames = shards.read(stored, "frames")
            assert (frames is not None) == (split == "validation")
            with torch.inference_mode():
                latents = autoencoder.encode(torch.from_numpy(next(iter(original.frames))[7:9]))
            np.testing.assert_allclose(shards.read(stored, "latents", 7, 9), latents, atol=0.01)


def test_killed_and_continued_writes_the_same_bytes(workspace: Path, folder: Path) -> None:
    process = subprocess.Popen([*CLI, *PREPARE], cwd=folder, stderr=subprocess.DEVNULL)
    while not list((folder / "data/maze").glob("*.h5")):
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (folder / "data/maze/dataset.json").exists()
    lssvwm(folder, *PREPARE, "--jobs", "2")
    assert contents(folder / "data/maze") == contents(workspace / "data/maze")


def planned(folder: Path, **options: Any) -> list[ShardJob]:
    """The plan of `PREPARE` in `folder`, to be carried out in this process."""
    out = folder / "data/maze"
    recordings = find_recordings(folder / "recordings/maze", "maze")
    jobs = plan_shards(recordings, out, copy_autoencoder(folder / "autoencoder", out), shard_size=1, **options)
    psnr = measure_reconstruction(recordings, folder / "autoencoder").psnr
    return [replace(job, reconstruction_psnr=psnr) for job in jobs]


def test_parts_joined_are_one_whole_run(workspace: Path, folder: Path) -> None:
    """Parts of a job array may be more than there are shards, and run in any order."""
    jobs, out = planned(folder), folder / "data/maze"
    with pytest.raises(LssvwmError, match="no shards"):
        write_index(out)
    parts = [part_of(jobs, f"{number}/5") for number in range(1, 6)]
    assert [len(part) for part in parts] == [1, 1, 1, 1, 0]
    for part in (parts[3], parts[0], parts[2]):
        list(write_shards(part, 1))
    with pytest.raises(LssvwmError, match=r"1 of 4 shards are missing: train-00001-of-00003\.h5"):
        write_index(out)
    error = lssvwm(folder, *PREPARE, "--part", "2/5").stderr
    assert "1 of 4 shards" in error
    assert "lssvwm index data/maze" in error
    assert not (out / "dataset.json").exists()
    assert "4 episodes, 2504 frames in 4 shards" in lssvwm(folder, "index", "data/maze").stderr
    assert contents(out) == contents(workspace / "data/maze")


def test_other_weights_at_the_same_place_are_another_autoencoder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also for a process that has written shards before."""
    monkeypatch.chdir(folder)
    for seed in (1, 2):
        torch.manual_seed(seed)
        autoencoder = Autoencoder(AutoencoderConfig("other", latent_channels=8, widths=(16, 16, 16), decoder_blocks=1))
        save_autoencoder(folder / "autoencoder", autoencoder)
        [*_, job] = planned(Path())
        [written] = write_shards([job], 1)
        with h5py.File(written.job.path) as file, torch.inference_mode():
            latents = load_autoencoder(Path("autoencoder")).encode(torch.from_numpy(file["frames"][:2]))
            np.testing.assert_allclose(file["latents"][:2], latents, atol=0.01)
        shutil.rmtree("data")


def test_a_missing_split_is_missed_too(folder: Path) -> None:
    jobs = planned(folder)
    list(write_shards(jobs[:-1], 1))
    with pytest.raises(LssvwmError, match=r"1 of 4 shards are missing: validation-00000-of-00001\.h5"):
        write_index(folder / "data/maze")


def test_parts_leave_the_unfinished_files_of_others_alone(folder: Path) -> None:
    jobs = planned(folder)
    own, other = (folder / f"data/maze/.train-0000{k}-of-00003.1.partial.h5" for k in (0, 1))
    for partial in (own, other):
        partial.touch()
    list(write_shards(jobs[:1], 1))
    assert (own.exists(), other.exists()) == (False, True)


def test_a_ray_cluster_writes_the_same_bytes(workspace: Path, folder: Path) -> None:
    pytest.importorskip("ray")
    (folder / "data/maze").mkdir(parents=True)
    first = "validation-00000-of-00001.h5"
    shutil.copy(workspace / "data/maze" / first, folder / "data/maze")  # done by an earlier run
    written = (folder / "data/maze" / first).stat().st_mtime_ns
    lssvwm(folder, *PREPARE, "--jobs", "2", "--executor", "ray", own_process=True)
    assert contents(folder / "data/maze") == contents(workspace / "data/maze")
    assert (folder / "data/maze" / first).stat().st_mtime_ns == written


def test_a_dry_run_tells_what_a_run_does(workspace: Path, folder: Path) -> None:
    estimate = json.loads(lssvwm(folder, *PREPARE, "--dry-run", "--json").stdout)
    assert not (folder / "data").exists()
    assert estimate["splits"]["train"] == {"recordings": 3, "frames": 1503}
    assert (estimate["frames"], estimate["frames_are"], estimate["shards"]) == (2504, "exact", 4)
    assert estimate["seconds"] > 0
    size = sum(path.stat().st_size for path in (workspace / "data/maze").glob("*.h5"))
    assert estimate["bytes"] == pytest.approx(size, rel=0.02)


def test_lengths_not_looked_at_are_estimated_by_size() -> None:
    recordings = find_recordings(sample_recordings(), "maze")
    lengths = look_at_lengths(recordings, seconds=0)
    assert lengths.looked_at == 1
    assert not lengths.exact
    assert sum(lengths.frames.values()) == pytest.approx(2504, rel=0.2)


def test_a_disk_that_is_too_small_is_told_before(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    jobs, thrifty = planned(folder), planned(folder, keep_frames="none")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=5_000_000))
    with pytest.raises(LssvwmError, match=r"need about 1\d\.\d MB, 5\.0 MB are free"):
        next(write_shards(jobs, 1))
    assert not list((folder / "data/maze").glob("*.h5"))
    require_space(folder, thrifty)


@pytest.mark.skipif(resource is None, reason="needs limits of POSIX")
def test_a_full_disk_leaves_a_state_to_go_on_from(workspace: Path, folder: Path) -> None:
    """A limit on the size of files stands in for the disk: train shards have 0.6 MB, the validation shard 14 MB."""
    limited = subprocess.run(
        [*CLI, *PREPARE, "--jobs", "2"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (2_000_000, 2_000_000)),
    )
    assert limited.returncode == 1, limited.stderr
    assert "the disk is full" in limited.stderr
    assert "Traceback" not in limited.stderr
    kept = [path.name for path in (folder / "data/maze").glob("*.h5")]
    assert f"{len(kept)} of 4 shards are finished" in limited.stderr
    assert "validation-00000-of-00001.h5" not in kept
    assert not list((folder / "data/maze").glob(".*"))
    lssvwm(folder, *PREPARE)
    assert contents(folder / "data/maze") == contents(workspace / "data/maze")


def test_a_flipped_byte_does_not_go_unseen(workspace: Path, folder: Path) -> None:
    shutil.copytree(workspace / "data/maze", folder / "data/maze")
    assert "4 shards have the checksums" in lssvwm(folder, "inspect", "data/maze", "--verify").stderr
    shard = folder / "data/maze/train-00001-of-00003.h5"
    with h5py.File(shard) as file:
        place = file["latents"].id.get_chunk_info(2).byte_offset + 1000
    damaged = bytearray(shard.read_bytes())
    damaged[place] ^= 1
    shard.write_bytes(damaged)
    error = lssvwm(folder, "inspect", "data/maze", "--verify", fails=True).stderr
    assert error.count("have changed") == 1
    assert "train-00001-of-00003.h5" in error
    shards = open_shards(folder / "data/maze", "train")
    shards.read(shards.episodes[1], "latents", 0, 128)
    with pytest.raises(LssvwmError, match=r"train-00001-of-00003\.h5: damaged shard"):
        shards.read(shards.episodes[1], "latents", 128, 130)


@pytest.mark.parametrize("encoder_of", ["", "0" * 64])
def test_killed_while_the_autoencoder_was_copied_goes_on(folder: Path, encoder_of: str) -> None:
    """Also with another one than was to be copied then."""
    copy = folder / "data/maze/autoencoder"
    copy.mkdir(parents=True)
    config = json.loads((folder / "autoencoder/config.json").read_text())
    (copy / "config.json").write_text(json.dumps(config | {"encoder_of": encoder_of}))
    lssvwm(folder, *PREPARE, "--split", "validation")
    assert read_index(folder / "data/maze").header.autoencoder_sha256 == weights_sha256(folder / "autoencoder")
    assert (copy / "config.json").read_bytes() == (folder / "autoencoder/config.json").read_bytes()


def test_damaged_recordings_are_named_or_with_strict_refused(folder: Path) -> None:
    damaged = folder / "recordings/maze/train/0500001-500.npz"
    damaged.write_bytes(damaged.read_bytes()[:100_000])
    error = lssvwm(folder, *PREPARE, "--strict", "--out", "strict", fails=True).stderr
    assert "0500001-500.npz" in error
    assert not (folder / "strict/dataset.json").exists()
    done = lssvwm(folder, *PREPARE)
    assert "skipped train/0500001-500" in done.stderr
    index = json.loads((folder / "data/maze/dataset.json").read_text())
    assert [entry["id"] for entry in index["skipped"]] == ["train/0500001-500"]
    assert index["episodes"] == 3
    assert not list((folder / "data/maze").glob(".*"))


@pytest.mark.parametrize("jobs", ["1", "2"])
def test_recordings_that_cannot_be_read_for_now_leave_their_shards_for_a_later_call(
    fault_environment: FaultEnvironment, workspace: Path, folder: Path, jobs: str
) -> None:
    out, late = folder / "data/maze", "train-00001-of-00003.h5"
    faulty = fault_environment(read=Fault(errno.EIO, "0500001-500.npz"))
    error = lssvwm(folder, *PREPARE, "--jobs", jobs, fails=True, environment=faulty).stderr
    assert "0500001-500.npz: cannot be read for now (Input/output error)" in error
    assert "1 of 4 shards are unfinished" in error
    finished = {path.name: path.stat().st_mtime_ns for path in out.glob("*.h5")}
    assert sorted(finished) == [
        name for name in sorted(contents(workspace / "data/maze")) if name not in (late, "dataset.json")
    ]
    assert not list(out.glob(".*"))
    assert not (out / "dataset.json").exists()
    assert (
        "4 episodes, 2504 frames in 4 shards, 0 recordings skipped" in lssvwm(folder, *PREPARE, "--jobs", jobs).stderr
    )
    assert (out / late).read_bytes() == (workspace / "data/maze" / late).read_bytes()
    assert {name: (out / name).stat().st_mtime_ns for name in finished} == finished


def test_all_troubles_of_a_shard_are_told_at_once(fault_environment: FaultEnvironment, folder: Path) -> None:
    faulty = fault_environment(open=Fault(errno.EACCES, "/train/"))
    error = lssvwm(folder, *PREPARE, "--shard-size", "16", fails=True, environment=faulty).stderr
    for number in range(3):
        assert f"050000{number}-500.npz: cannot be read for now (Permission denied)" in error
    assert "1 of 2 shards are unfinished" in error


def test_an_autoencoder_that_loses_the_pictures_is_refused_before_anything_is_written(folder: Path) -> None:
    command = [part for part in PREPARE if part != "--accept-quality"]
    error = lssvwm(folder, *command, fails=True).stderr
    assert re.search(
        r"autoencoder reconstructs these recordings at \d+\.\d\d dB PSNR \(64 frames of 4 recordings\)", error
    )
    assert "lssvwm train-autoencoder recordings/maze" in error
    assert "--accept-quality" in error
    assert not (folder / "data").exists()
    refused = float(re.search(r"at (\d+\.\d\d) dB", error)[1])
    assert json.loads(lssvwm(folder, *command, "--dry-run", "--json").stdout)["reconstruction_psnr"] == refused
    done = lssvwm(folder, *PREPARE, "--split", "validation").stderr
    index = read_index(folder / "data/maze")
    assert f"reconstructed at {index.reconstruction_psnr:.2f} dB" in done
    assert index.reconstruction_psnr < 28


def test_the_sample_that_is_measured_is_spread_over_the_recordings() -> None:
    recordings = find_recordings(sample_recordings(), "maze")
    whole = measure_reconstruction(recordings, SHIPPED)
    assert (whole.frames, whole.recordings) == (64, 4)
    assert whole.psnr > 30
    assert measure_reconstruction(recordings, SHIPPED) == whole
    alone = measure_reconstruction(recordings[:1], SHIPPED)
    assert (alone.frames, alone.recordings) == (64, 1)
    damaged = replace(recordings[1], path=Path("missing.npz"))
    assert measure_reconstruction([recordings[0], damaged], SHIPPED).recordings == 1
    with pytest.raises(LssvwmError, match="none of 1 recordings"):
        measure_reconstruction([damaged], SHIPPED)


def test_shards_of_other_recordings_are_never_mixed(folder: Path) -> None:
    lssvwm(folder, *PREPARE, "--split", "validation")
    (folder / "recordings/maze/eval/1500000-1000.npz").unlink()
    shutil.copy(folder / "recordings/maze/train/0500000-500.npz", folder / "recordings/maze/eval/1500000-1000.npz")
    error = lssvwm(folder, *PREPARE, "--split", "validation", fails=True).stderr
    assert "made from other recordings" in error
    assert "choose another --out" in error


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["prepare", "maze", "nowhere"], "nowhere: no such folder"),
        (["prepare", "mazes"], f"'mazes' is neither a format ({', '.join(format_names())}) nor a folder"),
        (["prepare", "maze", "--autoencoder", "missing"], "missing: no such model"),
        (["prepare", "maze", "--keep-frames", "some"], "expected one of validation, all, none"),
        (["prepare", "maze", "--split", "test"], "expected one of train, validation"),
        (["prepare", "maze", "--jobs", "many"], "expected auto or a number"),
        (["prepare", "maze", "--part", "5/4"], "expected i/n"),
        (["prepare", "maze", "--executor", "slurm"], "expected one of processes, ray"),
    ],
)
def test_bad_input_is_told(folder: Path, arguments: list[str], message: str) -> None:
    if "--autoencoder" not in arguments:
        arguments = [*arguments, "--autoencoder", "autoencoder"]
    assert message in lssvwm(folder, *arguments, fails=True).stderr
    assert not (folder / "data/maze/dataset.json").exists()
