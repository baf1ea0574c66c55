"""What reaches the terminal: any name, any encoding; and how commands end."""

import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from lssvwm_cli import console
from lssvwm_cli.app import run
from lssvwm_cli.ending import exit_code_of, tell_of_threads
from lssvwm_datasets.errors import LssvwmError
from lssvwm_datasets.sources import sample_recordings
from tests.conftest import CLI

HOSTILE = (
    "[/b]\x1b]0;title\x07\x1b[2J\x9b31m\u202egnp.\r\udcff"  # markup, escape sequences, bidi, a byte that is no UTF-8
)
ESCAPED = "[/b]\\x1b]0;title\\x07\\x1b[2J\\x9b31m\\u202egnp.\\x0d\\xff"


def unsafe(shown: str) -> set[str]:
    return {letter for letter in shown if not letter.isprintable()} - {"\n"}


def test_names_are_shown_as_text(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / HOSTILE
    shutil.copytree(sample_recordings() / "train", folder / "train")
    sheet = tmp_path / f"{HOSTILE}.png"
    assert run(["inspect", str(folder), "--sheet", str(sheet)]) == 0
    shown = capsys.readouterr()
    assert f"recordings in {tmp_path}/{ESCAPED}\n" in shown.out
    assert f"contact sheet: {tmp_path}/{ESCAPED}.png\n" in shown.err
    assert not unsafe(shown.out + shown.err)
    assert sheet.is_file()
    assert run(["inspect", str(folder), "--sheet", str(sheet), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["path"] == str(folder), "programs get exact names"


@pytest.mark.parametrize(
    "arguments", [["inspect", HOSTILE], ["rollout", "--checkpoint", HOSTILE], ["rollout", HOSTILE], [HOSTILE]]
)
def test_errors_are_one_line_that_is_safe(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(arguments) == (1 if len(arguments) == 3 or arguments[0] == "inspect" else 2)
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert not unsafe(error)
    assert ESCAPED[:30] in error


def test_tables_and_logs_are_safe(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    import logging

    monkeypatch.setenv("COLUMNS", "200")
    console.show_table(["name", HOSTILE], [[HOSTILE, 1], ["[bold]x[/]", "[red]"]])
    shown = capsys.readouterr().out
    assert ESCAPED in shown
    assert "[bold]x[/]" in shown
    record = logging.LogRecord("a", logging.WARNING, "a.py", 1, "found %s", (HOSTILE,), None)
    assert console.LogLine("%(message)s").format(record) == f"found {ESCAPED}"
    assert not unsafe(shown)


@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")
def test_a_progress_bar_takes_any_name() -> None:
    code = (
        "from lssvwm_cli.console import prepare_streams, progress\n"
        "prepare_streams()\n"
        f"with progress({HOSTILE!r}, 2, '[/b]') as update: update(1, {HOSTILE!r}); update(2, '×')\n"
    )
    master, slave = os.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "250", "PYTHONIOENCODING": "latin-1"}
    done = subprocess.Popen([sys.executable, "-c", code], stderr=slave, env=environment)
    os.close(slave)
    shown = b""
    try:
        while part := os.read(master, 65536):
            shown += part
    except OSError:  # Linux's end of a terminal
        pass
    os.close(master)
    assert done.wait() == 0
    assert b"Traceback" not in shown
    assert ESCAPED.encode() in shown
    assert b"\x1b]0;title" not in shown
    assert b"\x1b[2J" not in shown


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252", "utf-8"])
def test_any_encoding_will_do(encoding: str, tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONIOENCODING": encoding, "COLUMNS": "200"}
    cases = [(["--help"], 0)]
    if encoding == "ascii":  # what lacks most
        cases += [(["inspect", str(sample_recordings())], 0), (["inspect", "日×本"], 1)]
    for arguments, code in cases:
        done = subprocess.run([*CLI, *arguments], cwd=tmp_path, capture_output=True, env=environment, check=False)
        assert done.returncode == code, done.stderr
        shown = (done.stdout + done.stderr).decode(encoding)
        assert "Traceback" not in shown
        if arguments == ["--help"]:
            assert "recordings → latents" in shown if encoding == "utf-8" else "recordings -> latents" in shown


ENDINGS: dict[str, tuple[BaseException, int, str]] = {
    "an error of ours": (LssvwmError("a\nb"), 1, "error: a; b (see lssvwm info --help)\n"),
    "with a command to go on with": (LssvwmError("a: lssvwm train"), 1, "error: a: lssvwm train\n"),
    "the system's": (PermissionError(13, "Permission denied", "x\x1b"), 1, "error: x\\x1b: Permission denied; get "),
    "a full disk": (OSError(28, "No space left", "x"), 1, "error: x: No space left; make room, and give the same "),
    "two names": (
        OSError(18, "Cross-device link", "x", None, "y"),
        1,
        "error: x -> y: Cross-device link; when that is mended, ",
    ),
    "no such file": (
        FileNotFoundError("x"),
        1,
        "error: x: no such file; when that is mended, give the same command again\n",
    ),
    "memory": (MemoryError("Unable to allocate 9 GiB"), 1, "error: out of memory (Unable to allocate 9 GiB); try a "),
    "torch's memory": (RuntimeError("CUDA out of memory. Tried"), 1, "error: out of memory (CUDA out of memory. "),
    "a bug": (KeyError("a\nb"), 1, "error: this is a bug of lssvwm, please report it: KeyError: 'a"),
    "too deep": (RecursionError("maximum"), 1, "error: this is a bug of lssvwm, please report it: RecursionError: "),
    "end of input": (
        EOFError("Ran out of input"),
        1,
        "error: this is a bug of lssvwm, please report it: EOFError: Ran",
    ),
    "Ctrl-C": (KeyboardInterrupt(), 130, ""),
    "the reader has gone": (BrokenPipeError(32, "Broken pipe"), 141, ""),
}


@pytest.mark.parametrize("case", ENDINGS)
def test_every_error_is_one_line(
    case: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    error, code, line = ENDINGS[case]

    def fail() -> str:
        raise error

    monkeypatch.setattr("lssvwm_core.installation.describe", fail)
    monkeypatch.setattr(sys, "stdout", sys.stdout)  # which a broken pipe replaces
    assert run(["info"]) == code
    shown = capsys.readouterr().err.removeprefix("\n")  # Typer's, of an EOFError
    assert shown.startswith(line)
    assert shown.count("\n") == bool(line)
    if "bug" in line:
        assert "test_console.py:" in shown
        assert "LSSVWM_TRACEBACK=1" in shown


def test_a_traceback_for_those_who_ask(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("LSSVWM_TRACEBACK", "1")
    assert exit_code_of(lambda: {}["\x1b"]) == 1
    error = capsys.readouterr().err
    assert error.startswith("Traceback (most recent call last):\n")
    assert error.splitlines()[-1].startswith("error: this is a bug")
    assert not unsafe(error)


def test_a_thread_ends_in_a_line_as_well(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(threading, "excepthook", None)
    tell_of_threads()
    thread = threading.Thread(target=lambda: {}["a"])
    thread.start()
    thread.join()
    assert capsys.readouterr().err.startswith("error: this is a bug of lssvwm, please report it: KeyError: 'a'")


@pytest.mark.parametrize(
    ("redirect", "code", "message"),
    [
        ("| true", 141, ""),
        ("> /dev/full", 1, "error: [Errno 28] No space left on device; make room, and give the same command again\n"),
        (">&-", 0, ""),
        ("2>&-", 0, ""),
    ],
)
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux's /dev/full")
def test_stdout_may_be_gone_or_full(redirect: str, code: int, message: str) -> None:
    command = f'"{sys.executable}" -m lssvwm_cli.app --help {redirect}; exit ${{PIPESTATUS[0]}}'
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, encoding="utf-8", check=False)
    assert (done.returncode, done.stderr) == (code, message)


def test_jobs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lssvwm_datasets.machine.usable_cores", lambda: 7)
    assert console.core_count("auto") == 7
    assert console.core_count("3") == 3
    refused: Callable[[str], object] = console.core_count
    for jobs in ("0", "-1", "many", "²", ""):
        with pytest.raises(LssvwmError, match="expected auto or a number of processes"):
            refused(jobs)
