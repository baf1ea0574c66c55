"""Every format from files to shards, as a user runs it; every damage is told and costs no other recording."""

import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import Result
from typer.testing import CliRunner

from lssvwm_cli.app import app
from lssvwm_core.model.autoencoder import Autoencoder, AutoencoderConfig, save_autoencoder
from lssvwm_datasets.errors import DamagedRecording, LssvwmError
from lssvwm_datasets.shards import ShardSet, open_shards
from lssvwm_datasets.sources import SPLITS, Recording, all_formats, find_recordings
from tests.datasets.layouts import GREY, LAYOUTS, NAMES, Expected, write_all


@pytest.fixture(scope="module")
def autoencoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("autoencoder")
    save_autoencoder(folder, Autoencoder(AutoencoderConfig("small", 8, widths=(16, 16, 16), decoder_blocks=1)))
    return folder


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Path, dict[str, Expected]]]:
    """The recordings of a format, written once."""
    made: dict[str, tuple[Path, dict[str, Expected]]] = {}

    def of(format: str) -> tuple[Path, dict[str, Expected]]:
        if format not in made:
            root = tmp_path_factory.mktemp(format)
            made[format] = root, write_all(format, root)
        return made[format]

    return of


@pytest.fixture
def prepare(autoencoder: Path, tmp_path: Path) -> Callable[..., Result]:
    """`lssvwm prepare` with every frame kept, into `out` of the test's folder."""

    def run(*arguments: str) -> Result:
        folders = ("--autoencoder", str(autoencoder), "--out", str(tmp_path / "out"))
        return CliRunner().invoke(
            app, ["prepare", *arguments, *folders, "--keep-frames", "all", "--jobs", "1", "--accept-quality"]
        )

    return run


def shards_of(folder: Path) -> list[ShardSet]:
    index = json.loads((folder / "dataset.json").read_text())
    return [open_shards(folder, split) for split in SPLITS if any(s["split"] == split for s in index["shards"])]


def check_shards(folder: Path, expected: dict[str, Expected]) -> None:
    """The shards hold exactly the expected episodes, each action with the frame it led to."""
    found = {}
    for shards in shards_of(folder):
        for stored in shards.episodes:
            found[stored.id] = shards.read(stored, "frames"), shards.read(stored, "actions")
    assert sorted(found) == sorted(expected)
    for id, (frames, actions) in found.items():
        np.testing.assert_allclose(frames.mean(axis=(1, 2, 3)), expected[id].levels, atol=GREY / 2 - 0.5, err_msg=id)
        np.testing.assert_allclose(actions, expected[id].actions, rtol=1e-5, err_msg=id)


def test_every_format_has_a_layout_here() -> None:
    assert set(LAYOUTS) == set(all_formats())


@pytest.mark.parametrize("format", LAYOUTS)
@pytest.mark.parametrize("named", ["by name", "found out"])
def test_prepare(
    written: Callable[[str], tuple[Path, dict[str, Expected]]],
    prepare: Callable[..., Result],
    tmp_path: Path,
    format: str,
    named: str,
) -> None:
    source, expected = written(format)
    names = [format.partition("-")[0]] if named == "by name" else []
    done = prepare(*names, str(source), "--size", "64")
    assert done.exception is None, done.output
    assert f"found {format}: " in done.output
    check_shards(tmp_path / "out", expected)
    index = json.loads((tmp_path / "out/dataset.json").read_text())
    assert (index["dataset"], index["frame_size"]) == (format, [64, 64])
    assert len(index["action_units"]) == len(index["action_names"])
    assert index["source_alignment"]
    assert (index["skipped"], index["notes"]) == ([], [])


def test_splits_keep_sessions_together(written: Callable[[str], tuple[Path, dict[str, Expected]]]) -> None:
    source, _ = written("vpt")
    splits = {recording.id: recording.split for recording in find_recordings(source)}
    assert splits[f"7.x/{NAMES['vpt'][1]}"] == splits[f"7.x/{NAMES['vpt'][2]}"]


def test_several_formats_in_a_folder_are_named(
    written: Callable[[str], tuple[Path, dict[str, Expected]]], tmp_path: Path
) -> None:
    for format in ("maze", "vpt", "teco-dmlab"):
        shutil.copytree(written(format)[0], tmp_path / "all", dirs_exist_ok=True)
    with pytest.raises(LssvwmError, match=r"several formats: maze \(.+\), vpt \(.+\), teco-dmlab \(.+\); name"):
        find_recordings(tmp_path / "all")
    assert len(find_recordings(tmp_path / "all", "vpt")) == 3
    assert len(find_recordings(tmp_path / "all", "teco")) == 6  # the maze's are npz files too, and will be refused


def test_nothing_known_in_a_folder_is_told_with_what_was_looked_for(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").touch()
    np.savez(tmp_path / "b.npz", pictures=np.zeros(3))
    with pytest.raises(LssvwmError, match=r"no recordings found; expected.*maze: .*minerl: .*vpt: .*teco.*worldmem: "):
        find_recordings(tmp_path)


@pytest.mark.parametrize("format", LAYOUTS)
def test_one_file_is_a_source_too_and_recordings_travel(
    written: Callable[[str], tuple[Path, dict[str, Expected]]], format: str
) -> None:
    source, _ = written(format)
    first = find_recordings(source)[0]
    assert pickle.loads(pickle.dumps(first)).id == first.id, "processes send each other recordings"
    for file in () if format == "lerobot" else first.files:  # LeRobot's files hold parts of many episodes
        (alone,) = find_recordings(file)
        assert (alone.path, alone.format.name) == (first.path, format)


def read(recording: Recording) -> tuple[bytes, bytes] | str:
    """All of a recording's frames and actions, or the reason why not."""
    try:
        episodes = list(recording.episodes())  # damage may change time stamps: then there are several
        frames = b"".join(part.tobytes() for episode in episodes for part in episode.frames)
        return frames, b"".join(episode.actions.tobytes() for episode in episodes)
    except DamagedRecording as error:
        return str(error)


def flip_bits(content: bytes, rng: np.random.Generator) -> bytes:
    damaged = bytearray(content)
    for place in rng.integers(len(damaged), size=20):
        damaged[place] ^= 1 << rng.integers(8)
    return bytes(damaged)


DAMAGE: dict[str, Callable[[bytes, np.random.Generator], bytes]] = {
    "bits flipped": flip_bits,
    "truncated": lambda content, rng: content[: rng.integers(1, len(content))],
    "overwritten": lambda content, rng: rng.bytes(len(content)),
    "doubled": lambda content, rng: content[: len(content) // 2] + content,
    "empty": lambda content, rng: b"",
}


@pytest.mark.parametrize("format", LAYOUTS)
def test_damaged_files_are_told_and_cost_nothing_else(
    written: Callable[[str], tuple[Path, dict[str, Expected]]], tmp_path: Path, format: str
) -> None:
    source = tmp_path / "source"
    shutil.copytree(written(format)[0], source)
    first, *others = find_recordings(source, format)
    whole = [read(recording) for recording in (first, *others)]
    rng = np.random.default_rng(0)
    told = 0
    for path in first.files:
        content = path.read_bytes()
        for damage in DAMAGE.values():
            for _ in range(3):
                path.write_bytes(damage(content, rng))
                found = read(find_recordings(source, format)[0])
                if isinstance(found, str):
                    assert any(str(file.with_suffix("")) in found for file in first.files)
                    told += 1
        path.unlink()
        assert [read(recording) for recording in find_recordings(source, format)][-2:] == whole[1:]
        path.write_bytes(content)
    assert told >= 8
    assert [read(recording) for recording in find_recordings(source, format)] == whole


@pytest.mark.parametrize("format", ["minerl", "teco-minecraft", "vpt"])
def test_prepare_names_what_it_skips_and_keeps_the_rest(
    written: Callable[[str], tuple[Path, dict[str, Expected]]],
    prepare: Callable[..., Result],
    tmp_path: Path,
    format: str,
) -> None:
    source = tmp_path / "source"
    shutil.copytree(written(format)[0], source)
    damaged = find_recordings(source, format)[1]
    video = next(path for path in damaged.files if path.suffix == ".mp4")
    middle = video.read_bytes().index(b"mdat") + 720  # past the settings that x264 writes first
    video.write_bytes(video.read_bytes()[:middle] + b"\xa5" * 300 + video.read_bytes()[middle + 300 :])
    done = prepare(str(source), "--size", "64")
    assert done.exception is None, done.output
    assert f"skipped {damaged.id}: " in done.output
    expected = {id: one for id, one in written(format)[1].items() if id != damaged.id}
    check_shards(tmp_path / "out", expected)


def test_a_skip_list_is_kept_and_changes_the_plan(
    written: Callable[[str], tuple[Path, dict[str, Expected]]], prepare: Callable[..., Result], tmp_path: Path
) -> None:
    source, _ = written("teco-dmlab")
    (tmp_path / "names.txt").write_text("\n000001\n")
    assert "skipped train/1/000001" in prepare(str(source), "--skip-list", str(tmp_path / "names.txt")).output
    assert "made from other recordings" in str(prepare(str(source)).exception)
    assert "cannot be read" in str(prepare(str(source), "--skip-list", "missing.txt").exception)


@pytest.mark.parametrize("offset", [-1, 1, 2, 100])
def test_an_action_offset_is_kept_in_the_shards(
    written: Callable[[str], tuple[Path, dict[str, Expected]]],
    prepare: Callable[..., Result],
    tmp_path: Path,
    offset: int,
) -> None:
    source, expected = written("teco-dmlab")
    assert prepare(str(source), "--action-offset", str(offset)).exception is None
    shifted = {}
    for id, one in expected.items():
        rows = np.arange(len(one.actions)) - offset
        known = (rows > 0) & (rows < len(rows)) & (np.arange(len(rows)) > 0)
        actions = np.where(known[:, None], one.actions[rows.clip(0, len(rows) - 1)], 0)
        shifted[id] = Expected(one.levels, actions)
    check_shards(tmp_path / "out", shifted)
    for shards in shards_of(tmp_path / "out"):
        assert f"taken {offset} frames later" in shards.header.source_alignment


@pytest.mark.parametrize("size", ["0", "64x", "1x2x3", "big", "-4", "99999"])
def test_a_size_that_is_none_is_told(
    written: Callable[[str], tuple[Path, dict[str, Expected]]], prepare: Callable[..., Result], size: str
) -> None:
    done = prepare(str(written("teco-dmlab")[0]), f"--size={size}")
    assert "expected pixels: a number, or height x width" in str(done.exception)
