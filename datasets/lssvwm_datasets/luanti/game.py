"""Luanti itself, without a screen: it runs in a virtual X server whose picture is read from memory.

Two mods that ship with the package (`mods/`) make it a camera: a command puts the eyes somewhere, squares below the
picture tell when it shows that. Nothing of it runs in real time: a picture stands until the next command.
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
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from lssvwm_datasets.errors import LssvwmError

FIELD_OF_VIEW = 70.0  # degrees, up and down as across: Minecraft's
MARGIN = 8  # rows of the window above the picture, and below it, where the squares are
COLOURS = 64  # that a square can have
SQUARE = 8  # pixels a side
PATIENCE = 600.0  # seconds for anything that the game is asked: on a busy machine much takes a minute
POLL = 0.001  # seconds
FPS_MAX = 120  # pictures a second: a look takes three, and more are drawn in vain while the game's server works
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

    def look(self, eyes: tuple[float, float, float], pitch: float, yaw: float) -> NDArray[np.uint8]:
        """The picture (H, W, 3) from `eyes` (x, y, z nodes), in Luanti's angles: degrees, pitch down, yaw left of z."""
        self._look(eyes, pitch, yaw)
        shown = self._colour(1)
        self._wait(lambda: self._colour(1) != shown, "next picture")  # the server's square is one ahead
        return self._picture()

    def load(self, eyes: tuple[float, float, float]) -> None:
        """Wait until all that can be seen from a place has come, looking around with a wide view."""
        deadline = time.monotonic() + PATIENCE
        for turn in range(10**6):
            self._look(eyes, 0.0, turn * 90.0, wide=True)
            until = time.monotonic() + 0.3
            while time.monotonic() < until:
                if self._colour(2) == COLOURS - 1:
                    return
                time.sleep(POLL)
            if time.monotonic() > deadline:
                raise LssvwmError(f"Luanti: what is around {eyes} did not come within {PATIENCE:.0f} seconds")

    def _look(self, eyes: tuple[float, float, float], pitch: float, yaw: float, wide: bool = False) -> None:
        self._command("look", (*eyes, exact_radians(pitch), exact_radians(yaw % 360), int(wide)))
        self._wait(lambda: self._colour(0) == self._number % COLOURS, "picture")

    def _command(self, verb: str, values: tuple[float, ...]) -> None:
        self._number += 1
        unfinished = self._world / "command.new"
        unfinished.write_text(" ".join(map(str, (self._number, verb, *values))), encoding="utf-8")
        unfinished.rename(self._world / "command")

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

    def _picture(self) -> NDArray[np.uint8]:
        stride, first = self._stride, self._first + MARGIN * self._stride
        rows = np.frombuffer(self._screen[first : first + self.pixels * stride], np.uint8)
        return np.ascontiguousarray(rows.reshape(self.pixels, -1, 4)[:, : self.pixels, 2::-1])  # BGRX

    def _colour(self, square: int) -> int:
        """The colour of a square below the picture: the server's (0), the client's counter (1) or its gate (2)."""
        row = self.pixels + 2 * MARGIN - SQUARE // 2
        place = self._first + row * self._stride + 4 * (SQUARE * square + SQUARE // 2)
        blue, green, red = ((level + 42) // 85 for level in self._screen[place : place + 3])
        return red + 4 * green + 16 * blue

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


def exact_radians(degrees: float) -> float:
    """Radians from which the game, in single precision, gets exactly these degrees, where there are such.

    It turns the camera by the difference, and only between whole degrees is there no rounding in that: a view is then
    the same wherever the camera came from.
    """
    wanted = np.float32(degrees)
    near = np.float32(math.radians(degrees))
    candidates = [near, np.nextafter(near, np.float32(7)), np.nextafter(near, np.float32(-7))]
    return float(min(candidates, key=lambda radians: abs(radians * RADIANS_TO_DEGREES - wanted)))


def settings(seed: int, pixels: int, view: int) -> str:
    """The game's settings: nothing moves, nothing is drawn over the world, everything in view is sent."""
    chosen: dict[str, Any] = {
        "screen_w": pixels,
        "screen_h": pixels + 2 * MARGIN,
        "autosave_screensize": False,
        "fps_max": FPS_MAX,
        "fps_max_unfocused": FPS_MAX,
        "fov": round(_asked_field_of_view(pixels), 3),
        "viewing_range": view,
        "max_block_send_distance": math.ceil(view / 16) + 2,
        "block_send_optimize_distance": math.ceil(view / 16) + 2,
        "max_simultaneous_block_sends_per_client": 10_000,
        "full_block_send_enable_min_time_from_building": 0,
        "server_side_occlusion_culling": False,
        "client_mapblock_limit": -1,
        "client_unload_unused_data_timeout": 10**6,
        "server_unload_unused_data_timeout": 10**6,
        "max_packets_per_iteration": 10_000,
        "dedicated_server_step": 0.01,
        "emergequeue_limit_total": 10**6,
        "emergequeue_limit_generate": 10**6,
        "emergequeue_limit_diskonly": 10**6,
        "bind_address": "127.0.0.1",
        "fixed_map_seed": seed,
        "mg_name": "v7",
        "static_spawnpoint": "(0,10000,0)",  # blocks around the player do not disturb the order of generation
        "liquid_update": 10**6,
        "liquid_loop_max": 1,
        "time_speed": 0,
        "world_start_time": 12000,
        "creative_mode": True,
        "enable_damage": False,
        "free_move": True,
        "noclip": True,
        "enable_client_modding": True,
        "csm_restriction_flags": 0,
        "enable_sound": False,
        "enable_shaders": False,
        "enable_clouds": False,
        "enable_particles": False,
        "enable_3d_clouds": False,
        "enable_waving_leaves": False,
        "enable_waving_plants": False,
        "enable_waving_water": False,
        "enable_minimap": False,
        "view_bobbing_amount": 0,
        "fall_bobbing_amount": 0,
        "camera_smoothing": 0,
        "cinematic": False,
        "node_highlighting": "none",
        "opaque_water": True,
        "leaves_style": "opaque",
        "smooth_lighting": True,
        "mip_map": True,
        "transparency_sorting_distance": 0,
        "hud_scaling": 1,
        "display_density_factor": 1,
        "recent_chat_messages": 0,
        "show_debug": False,
        "show_nametag_backgrounds": False,
    }
    return "".join(f"{name} = {str(value).lower()}\n" for name, value in chosen.items())


def _asked_field_of_view(pixels: int) -> float:
    """Degrees to ask for: the game widens them for narrow windows, and the margins are cut away."""
    height = pixels + 2 * MARGIN
    wide = 2 * math.degrees(math.atan(math.tan(math.radians(FIELD_OF_VIEW / 2)) * height / pixels))
    return wide / min(1.4, max(1.0, math.sqrt(1.6 * height / pixels)))


def _program(*names: str) -> str | None:
    path = os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/games", "/usr/local/games"))
    return next((found for name in names if (found := shutil.which(name, path=path))), None)


def _die_with_parent() -> None:
    """In a new process: end when the recorder does, even by kill -9 (Linux's prctl)."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)
