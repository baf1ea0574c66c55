"""Luanti itself, without a screen: it runs in a virtual X server whose picture is read from memory.

Two mods that ship with the package (`mods/`) make it a camera: a command puts the eyes somewhere, squares around the
picture tell where the picture before was taken from. The game draws without pause, and a new command goes out with
every picture: none is drawn in vain, and none is taken for another's, however late commands and pictures come.
"""

import contextlib
import ctypes
import math
import mmap
import os
import shutil
import signal
import socket
import struct
import subprocess
import tempfile
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from lssvwm_datasets.errors import LssvwmError
from lssvwm_datasets.luanti.settings import MARGIN, settings

COLOURS = 64  # that a square can have
SQUARE = 6  # pixels a side
NUMBERS = COLOURS**2  # of pictures, before they begin anew
NODE, UNIT, MIDDLE = 4096, 2000, 2048  # steps of a place, and of a direction, as the client's mod writes them
PERIOD = COLOURS**3 / NODE  # nodes, after which places begin anew
NEAR = 4 / NODE  # nodes: what float32 does to a place
ALONG = 1.5 / UNIT  # of a unit vector
ANEW = 0.3  # radians between directions from which the game looks anew at what is in view (it does from 0.2)
FORGOTTEN = 8  # pictures after which a view that was asked for does not come any more
PATIENCE = 600.0  # seconds for anything that the game is asked: on a busy machine much takes a minute
POLL = 0.001  # seconds
RADIANS_TO_DEGREES = np.float32(180) / np.float32(math.pi)  # the engine's
PROGRAMS = ("minetest", "luanti")
GAME = "minetest_game"


def check() -> None:
    """Check that all that it needs is installed. Raises: LssvwmError where Luanti, its game or the X server is not."""
    missing = [name for name, found in (("Luanti", _program(*PROGRAMS)), ("Xvfb", _program("Xvfb"))) if not found]
    if missing:
        raise LssvwmError(
            f"{' and '.join(missing)}: not installed; on Debian and Ubuntu: apt-get install minetest xvfb"
        )


def version() -> str:
    """What the game says of itself, `Minetest 5.6.1`."""
    told = subprocess.run([str(_program(*PROGRAMS)), "--version"], capture_output=True, text=True, check=False)
    return " ".join(told.stdout.split()[:2])


@dataclass(frozen=True)
class View:
    """Where a picture is taken from, in Luanti's terms.

    Attributes:
        eyes: x, y, z, nodes.
        pitch: downwards, degrees.
        yaw: left of z, degrees.
    """

    eyes: tuple[float, float, float]
    pitch: float
    yaw: float

    @property
    def direction(self) -> NDArray[np.float64]:
        """(3,) the unit vector ahead."""
        pitch, yaw = math.radians(self.pitch), math.radians(self.yaw)
        return np.array([-math.sin(yaw) * math.cos(pitch), -math.sin(pitch), math.cos(yaw) * math.cos(pitch)])

    def behind(self) -> Self:
        """What the other way shows."""
        return replace(self, pitch=-self.pitch, yaw=self.yaw + 180)


@dataclass(frozen=True)
class _Frame:
    """What the game drew.

    Attributes:
        number: of the picture, modulo `NUMBERS`.
        picture: (H, W, 3).
        wide: whether the picture before this one was of the wide view that is for loading.
        loaded: while it is: whether all within view had come.
        place: (3,) x, y, z of the eyes in the picture before this one, nodes, modulo `PERIOD`.
        direction: (3,) where it looked, nearly a unit vector.
    """

    number: int
    picture: NDArray[np.uint8]
    wide: bool
    loaded: bool
    place: NDArray[np.float64]
    direction: NDArray[np.float64]

    def is_at(self, eyes: tuple[float, float, float]) -> bool:
        off = (self.place - eyes + PERIOD / 2) % PERIOD - PERIOD / 2
        return bool(np.abs(off).max() < NEAR)

    def tells(self, view: View) -> bool:
        """Whether the picture before was of this view."""
        along = np.abs(self.direction - view.direction).max() < ALONG
        return bool(along) and not self.wide and self.is_at(view.eyes)


class Game:
    """A world of Luanti and its camera. A context manager.

    Args:
        seed: of the world.
        pixels: height and width of its pictures.
        view: how far it can be seen, in nodes.

    Raises: LssvwmError when the game ends, or does not answer.
    """

    def __init__(self, seed: int, pixels: int, view: int) -> None:
        self.pixels, self.view = pixels, view
        self._number = 0
        self._open = contextlib.ExitStack()
        self._processes: list[subprocess.Popen[bytes]] = []
        try:
            self.folder = Path(self._open.enter_context(tempfile.TemporaryDirectory(prefix="lssvwm-luanti-")))
            self._world = self.folder / "world"
            self._start(seed)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        for process in reversed(self._processes):
            process.kill()
            process.wait()
        self._open.close()

    def ask(self, verb: str, *values: int) -> bytes:
        """The answer to a command of the server's mod."""
        reply = self._world / "reply"
        self._command(verb, values)
        head = b"%d\n" % self._number
        self._wait(lambda: reply.exists() and reply.read_bytes().startswith(head), f"answer to {verb}")
        return reply.read_bytes()[len(head) :]

    def look(self, views: Sequence[View]) -> NDArray[np.uint8]:
        """(N, H, W, 3) the pictures of views, quickest where each looks in another direction than the one before.

        A picture counts only where the one before it was of another direction: else the game may not have looked anew
        at what is in view. What does not count, or was not read in time, is asked for again.
        """
        found: dict[int, NDArray[np.uint8]] = {}
        waiting, asked = deque(enumerate(views)), deque[tuple[int, View]](maxlen=FORGOTTEN)
        waiting.extendleft([(-1, views[0].behind())] * 2)  # twice: directions go ahead of places
        deadline, quiet, frame = time.monotonic() + PATIENCE, 0, self._next_frame(None)
        while len(found) < len(views):
            if not waiting and quiet > FORGOTTEN:
                missing = [(number, view) for number, view in enumerate(views) if number not in found]
                waiting.append((-1, missing[0][1].behind()))
                waiting.extend(item for number, view in missing for item in ((-1, view.behind()), (number, view)))
            if waiting and self._is_free():
                asked.append(waiting.popleft())
                following = waiting[0] if waiting else asked[-1]
                self._ask_for(asked[-1][1].eyes, following[1])
                quiet = 0
            before, frame = frame, self._next_frame(frame)
            number = _view_in(before, frame, asked)
            if number >= 0:
                found.setdefault(number, before.picture)
                deadline = time.monotonic() + PATIENCE
            if time.monotonic() > deadline:
                lacking = next(view for number, view in enumerate(views) if number not in found)
                raise LssvwmError(f"Luanti: no picture of {lacking} within {PATIENCE:.0f} seconds")
            quiet += 1
        return np.stack([found[number] for number in range(len(views))])

    def load(self, eyes: tuple[float, float, float]) -> None:
        """Wait until all that can be seen from a place has come, looking around with a wide view."""
        deadline = time.monotonic() + PATIENCE
        frame = None
        for turn in range(10**6):
            view = View(eyes, 0.0, turn * 90.0)
            self._ask_for(eyes, view, wide=True)
            until = time.monotonic() + 0.3
            while time.monotonic() < until:
                frame = self._next_frame(frame)
                if frame.loaded and frame.is_at(eyes):
                    return
            if time.monotonic() > deadline:
                raise LssvwmError(f"Luanti: what is around {eyes} did not come within {PATIENCE:.0f} seconds")

    def _ask_for(self, eyes: tuple[float, float, float], ahead: View, wide: bool = False) -> None:
        """Put the eyes somewhere and turn them. The game moves at once and turns in the picture after that."""
        self._command("look", (*eyes, exact_radians(ahead.pitch), exact_radians(ahead.yaw % 360), int(wide)))

    def _next_frame(self, last: _Frame | None) -> _Frame:
        """The newest picture that is whole, and not the last one."""
        frame = None

        def comes() -> bool:
            nonlocal frame
            if last is not None and self._number_shown() == last.number:
                return False
            frame = self._frame()
            return frame is not None

        self._wait(comes, "next picture")
        assert frame is not None
        return frame

    def _command(self, verb: str, values: tuple[float, ...]) -> None:
        self._wait(self._is_free, "next command")
        self._number += 1
        unfinished = self._world / "command.new"
        unfinished.write_text(" ".join(map(str, (self._number, verb, *values))), encoding="utf-8")
        unfinished.rename(self._world / "command")

    def _is_free(self) -> bool:
        """Whether the game has taken the last command."""
        return not (self._world / "command").exists()

    def _wait(self, done: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + PATIENCE
        while not done():
            if any(process.poll() is not None for process in self._processes):
                raise LssvwmError(f"Luanti ended before its {what} came; its last words:\n{self._last_words()}")
            if time.monotonic() > deadline:
                raise LssvwmError(
                    f"Luanti: no {what} within {PATIENCE:.0f} seconds; its last words:\n{self._last_words()}"
                )
            time.sleep(POLL)

    def _last_words(self) -> str:
        log = self.folder / "log"
        return "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-5:]) if log.exists() else ""

    def _number_shown(self) -> int:
        """The number of the picture that is being drawn, or was drawn last."""
        first = self._first + (self.pixels + 2 * MARGIN - SQUARE // 2) * self._stride
        return _number(np.frombuffer(self._screen[first : first + self._stride], np.uint8), 0, 2)

    def _frame(self) -> _Frame | None:
        """What is on the screen; None where that is not one picture, but parts of two."""
        height = self.pixels + 2 * MARGIN
        screen = np.frombuffer(self._screen[self._first : self._first + height * self._stride], np.uint8)
        rows = screen.reshape(height, -1)
        top, bottom = rows[SQUARE // 2], rows[height - SQUARE // 2]
        number = _number(bottom, 0, 2)
        if _number(top, 0, 2) != number:
            return None
        picture = rows[MARGIN:-MARGIN].reshape(self.pixels, -1, 4)[:, : self.pixels, 2::-1]  # BGRX
        width = _number(bottom, 2, 1)
        place = np.array([_number(bottom, 3 + 3 * axis, 3) / NODE for axis in range(3)])
        direction = np.array([(_number(top, 2 + 2 * axis, 2) - MIDDLE) / UNIT for axis in range(3)])
        return _Frame(number, np.ascontiguousarray(picture), width > 0, width == COLOURS - 1, place, direction)

    def _start(self, seed: int) -> None:
        mods = resources.files("lssvwm_datasets") / "luanti" / "mods"
        with resources.as_file(mods) as source:
            shutil.copytree(source / "server", self._world / "worldmods" / "lssvwm_server")
            client = self.folder / "home" / ".minetest" / "clientmods"
            shutil.copytree(source / "client", client / "lssvwm_client")
        (client / "mods.conf").write_text("load_mod_lssvwm_client = true\n", encoding="utf-8")
        world = f"gameid = {GAME}\nload_mod_lssvwm_server = true\nbackend = sqlite3\n"
        (self._world / "world.mt").write_text(world, encoding="utf-8")
        (self.folder / "settings").write_text(settings(seed, self.pixels, self.view), encoding="utf-8")
        display = self._start_display()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        environment = os.environ | {
            "DISPLAY": f":{display}",
            "HOME": str(self.folder / "home"),
            "LIBGL_ALWAYS_SOFTWARE": "1",
            "GALLIUM_DRIVER": "llvmpipe",
            "LP_NUM_THREADS": "0",  # one thread a process
            "vblank_mode": "0",
            "ALSOFT_DRIVERS": "null",
        }
        program = [str(_program(*PROGRAMS)), "--go", "--name", "camera", "--port", str(port), "--gameid", GAME]
        files = ["--world", str(self._world), "--config", str(self.folder / "settings")]
        self._run([*program, *files], environment)
        reply = self._world / "reply"
        self._wait(lambda: reply.exists() and reply.read_bytes() == b"joined\n", "start")

    def _start_display(self) -> int:
        """The number of a new X display, its picture in `_screen` (rows, columns, BGRX)."""
        read, write = os.pipe()
        size = f"{self.pixels}x{self.pixels + 2 * MARGIN}x24"
        command = [str(_program("Xvfb")), "-displayfd", str(write), "-screen", "0", size, "-fbdir", str(self.folder)]
        command += ["-nolisten", "tcp", "-noreset", "-nocursor", "+extension", "GLX"]
        try:
            self._run(command, dict(os.environ), (write,))
        finally:
            os.close(write)
        with os.fdopen(read) as told:
            line = told.readline()  # up to its end: closed before, it would end the server
        if not line.strip():
            raise LssvwmError(f"Xvfb did not start:\n{self._last_words()}")
        file = self._open.enter_context((self.folder / "Xvfb_screen0").open("rb"))
        memory = self._open.enter_context(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
        header = struct.unpack(">25I", memory[:100])  # XWD
        self._screen, self._stride, self._first = memory, header[12], header[0] + 12 * header[19]
        return int(line)

    def _run(self, command: list[str], environment: dict[str, str], kept: tuple[int, ...] = ()) -> None:
        with (self.folder / "log").open("ab") as log:
            self._processes.append(
                subprocess.Popen(
                    command,
                    env=environment,
                    cwd=self.folder,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    pass_fds=kept,
                    start_new_session=True,  # Ctrl-C is for the recorder
                    preexec_fn=_die_with_parent,
                )
            )


def _view_in(picture: _Frame, following: _Frame, asked: Sequence[tuple[int, View]]) -> int:
    """The number of the view that a picture is of, as the next one tells; -1 where it is of none, or does not count."""
    follows = following.number == (picture.number + 1) % NUMBERS
    if not follows or _angle(following.direction, picture.direction) <= ANEW:
        return -1
    return next((number for number, view in reversed(asked) if following.tells(view)), -1)


def _number(row: NDArray[np.uint8], first: int, count: int) -> int:
    """What so many squares tell in a row of pixels (BGRX), from the left, each a digit, the smallest first."""
    number = 0
    for place in range(first + count - 1, first - 1, -1):
        pixel = 4 * (SQUARE * place + SQUARE // 2)
        blue, green, red = ((level + 42) // 85 for level in row[pixel : pixel + 3].tolist())
        number = COLOURS * number + red + 4 * green + 16 * blue
    return number


def _angle(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    """Radians between two directions."""
    cosine = one @ other / max(float(np.linalg.norm(one) * np.linalg.norm(other)), 1e-9)
    return math.acos(min(1.0, max(-1.0, float(cosine))))


def exact_radians(degrees: float) -> float:
    """Radians from which the game, in single precision, gets exactly these degrees, where there are such.

    It turns the camera by the difference, and only between whole degrees is there no rounding in that: a view is then
    the same wherever the camera came from.
    """
    wanted = np.float32(degrees)
    near = np.float32(math.radians(degrees))
    candidates = [near, np.nextafter(near, np.float32(7)), np.nextafter(near, np.float32(-7))]
    return float(min(candidates, key=lambda radians: abs(radians * RADIANS_TO_DEGREES - wanted)))


def _program(*names: str) -> str | None:
    path = os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/games", "/usr/local/games"))
    return next((found for name in names if (found := shutil.which(name, path=path))), None)


def _die_with_parent() -> None:
    """In a new process: end when the recorder does, even by kill -9 (Linux's prctl)."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)
