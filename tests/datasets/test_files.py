"""Files appear whole or not at all."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from lssvwm_datasets.errors import LssvwmError
from lssvwm_datasets.files import PatientFile, remove_partial_files, sha256_of, write_json, write_text, written_whole


def test_the_final_name_is_there_only_when_the_file_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.h5"
    with written_whole(path) as partial:
        partial.write_text("half")
        assert partial.parent == path.parent, "a rename must not cross file systems"
        assert partial.name.startswith(".")
        assert partial.suffix == ".h5"
        assert not path.exists()
        partial.write_text("whole")
    assert path.read_text() == "whole"
    assert list(path.parent.iterdir()) == [path]


def test_an_exception_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_json(path, 1)

    def fail() -> None:
        with written_whole(path) as partial:
            partial.write_text("half")
            assert path.read_text() == "1\n"
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert path.read_text() == "1\n"
    assert list(tmp_path.iterdir()) == [path]


def test_others_may_read_what_a_writer_made_private(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        with written_whole(tmp_path / "a") as partial:
            partial.touch(mode=0o600)
        assert (tmp_path / "a").stat().st_mode & 0o777 == 0o644
    finally:
        os.umask(before)


def test_a_killed_writer_leaves_no_final_file(tmp_path: Path) -> None:
    code = (
        "import os, pathlib, sys; from lssvwm_datasets.files import written_whole\n"
        "with written_whole(pathlib.Path(sys.argv[1])) as partial:\n"
        "    partial.write_text('half'); os.kill(os.getpid(), 9)"
    )
    killed = subprocess.run([sys.executable, "-c", code, str(tmp_path / "below" / "a.txt")], check=False)
    assert killed.returncode == -9
    assert not (tmp_path / "below" / "a.txt").exists()
    kept = tmp_path / "below" / "kept.txt"
    kept.touch()
    assert len(list(kept.parent.iterdir())) == 2
    remove_partial_files(tmp_path)
    assert list(kept.parent.iterdir()) == [kept]


def test_what_a_killed_writer_left_goes_with_the_next_write(tmp_path: Path) -> None:
    path = tmp_path / "a [b] ×.txt"
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    left, living = (tmp_path / f".a [b] ×.{pid}.partial.txt" for pid in (ended.pid, os.getppid()))
    others = [tmp_path / f".{name}.partial{suffix}" for name, suffix in ((f"a.{ended.pid}", ".txt"), ("a [b] ×.x", ""))]
    for file in (left, living, *others):
        file.touch()
    folders = [file.with_name(file.name + ".folder") for file in (left, living)]
    for folder in folders:
        folder.mkdir()
        (folder / ".tmpAbC").touch()
    write_text(path, "×\n")
    assert path.read_bytes() == "×\n".encode()
    assert set(tmp_path.iterdir()) == {path, living, *others, folders[1]}


@pytest.mark.parametrize(
    "name", ["a" * 251 + ".txt", "×" * 127, "a." + "b" * 253, "\udcff" * 255, "a:b", "-a", " ", "a\nb", "\"'", "[*]?"]
)
def test_any_name_will_do(name: str, tmp_path: Path) -> None:
    with written_whole(tmp_path / name) as partial:
        assert partial.name.startswith(".")
        partial.write_text("whole", encoding="utf-8")
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_the_checksum_is_that_of_the_content(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")  # the example of FIPS 180-2
    assert sha256_of(tmp_path / "a") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_a_patient_file_takes_what_comes_after_its_first_error(tmp_path: Path) -> None:
    whole = PatientFile(tmp_path / "a", "w+")
    assert whole.write(b"12345") == 5
    whole.check()
    whole.close()
    assert (tmp_path / "a").read_bytes() == b"12345"
    if Path("/dev/full").exists():
        full = PatientFile("/dev/full", "w")
        assert [full.write(b"12345"), full.write(memoryview(b"123"))] == [5, 3]
        assert full.truncate(9) == 9
        full.close()
        with pytest.raises(OSError, match="No space left"):
            full.check()


@pytest.mark.parametrize("text", ["name\udcff", "first = 1\ndata = 'name\udcff/x'\n", "\udce4"])
def test_a_text_with_a_name_that_is_not_utf8_is_refused_in_words(text: str, tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text("before", encoding="utf-8")
    with pytest.raises(LssvwmError, match=r"config.toml: cannot hold a name that is not UTF-8: .*; rename"):
        write_text(path, text)
    assert [file.read_text(encoding="utf-8") for file in tmp_path.iterdir()] == ["before"]
