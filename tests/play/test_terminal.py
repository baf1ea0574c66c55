"""The terminal's picture and keys, and the command in a terminal of its own."""

import contextlib
import os
import pty
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
from rich.style import Style

from lssvwm_core.place import Place
from lssvwm_core.play.session import Picture
from lssvwm_core.play.terminal import draw, help_text, raw_keys, read_key
from tests.conftest import CLI, lssvwm

STATUS = {
    "frames": 3,
    "fps": 4.0,
    "milliseconds": 99.0,
    "state_bytes": 1000,
    "steps": 4,
    "cut_memory": True,
    "certainty": 0.25,
    "notice": "well",
}


def test_two_pixels_a_character() -> None:
    frame = np.zeros((4, 6, 3), np.uint8)
    frame[0, 0], frame[1, 0] = (255, 0, 0), (0, 0, 255)
    *lines, facts, _, notice = draw(Picture(frame, b"", STATUS, Place(None)), "maze-world", "x quit", 6, 40)
    assert [line.plain for line in lines] == ["▀" * 6] * 2
    assert Style.parse(str(lines[0].spans[0].style)) == Style.parse("rgb(255,0,0) on rgb(0,0,255)")
    assert "maze-world  frame 3" in facts.plain
    assert "4 steps" in facts.plain
    assert "memory cut" in facts.plain
    assert "place known 25%" in facts.plain
    assert notice.plain == "well"


@pytest.mark.parametrize("size", [(80, 24), (20, 6), (300, 100)])
def test_the_picture_fits(size: tuple[int, int]) -> None:
    lines = draw(Picture(np.zeros((64, 64, 3), np.uint8), b"", STATUS, Place(None)), "maze-world", "x quit", *size)
    assert len(lines) <= size[1]
    assert all(len(line.plain) <= size[0] for line in lines[:-3])


def test_keys_come_at_once_and_the_latest_counts() -> None:
    master, slave = pty.openpty()
    with raw_keys(slave):
        assert read_key(slave, 0.01) == ""
        os.write(master, b"wA")
        assert read_key(slave, 1) == "a"
        for sent, key in ((b"w\x1b[D", "ArrowLeft"), (b"\x1bOA", "ArrowUp"), (b"\x1b[Bq", "q"), (b"\x1b", "\x1b")):
            os.write(master, sent)
            assert read_key(slave, 1) == key
    os.close(master)
    os.close(slave)


def test_the_help_is_of_the_environments_keys() -> None:
    told = help_text({"w": 1, "ArrowUp": 1, "1": 0}, ("wait", "walk"))
    assert told == "x quit · m cut the memory · w ↑ walk · 1 wait"
    assert help_text({"x": 0, "m": 1}, ("wait", "walk")) == "Esc quit · x wait · m walk"


def test_playing_in_a_terminal(workspace: Path) -> None:
    master, slave = pty.openpty()
    command = [*CLI, "play", "test", "--terminal", "--context", "20", "--steps", "1"]
    player = subprocess.Popen(command, cwd=workspace, stdin=slave, stdout=slave, stderr=subprocess.PIPE)
    os.close(slave)
    seen, deadline = b"", time.monotonic() + 60
    while b"frame 2" not in seen and time.monotonic() < deadline:
        seen += os.read(master, 4096)
    os.write(master, b"x")
    with contextlib.suppress(OSError):  # Linux tells thus that the other end is closed
        while os.read(master, 4096):
            pass
    assert player.wait(30) == 0
    assert b"frame 2" in seen
    os.close(master)


def test_without_a_terminal_it_says_so(workspace: Path) -> None:
    assert "needs a terminal" in lssvwm(workspace, "play", "test", "--terminal", fails=True).stderr
