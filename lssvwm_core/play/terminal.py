"""Play in a terminal: the picture in half blocks, two pixels a character, and keys read raw."""

import contextlib
import os
import select
import sys
import termios
import threading
import tty
from collections.abc import Iterator

import numpy as np
from PIL import Image
from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from lssvwm_core.play.session import Picture, Session, Viewer
from lssvwm_datasets.errors import LssvwmError

KEYS = {
    "w": "forward",
    "a": "left",
    "d": "right",
    "q": "forward_left",
    "e": "forward_right",
    "\x1b[A": "forward",
    "\x1b[D": "left",
    "\x1b[C": "right",
    "\x1b[B": "noop",
    "s": "noop",
}
QUIT, CUT = ("x", "\x03", "\x1b"), "m"
STATUS_LINES = 4
WAIT = 0.05  # seconds between looks at the keyboard and at the mailbox


def play(session: Session, title: str) -> None:
    """Until x, Esc or Ctrl-C; `title` names the world. Raises: LssvwmError without a terminal."""
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise LssvwmError("--terminal needs a terminal; without it, lssvwm play serves a page for a browser")
    names = session.game.world.header.action_names
    news = threading.Event()
    viewer = Viewer(news.set)
    console = Console()
    with raw_keys(sys.stdin.fileno()), Live(console=console, screen=True, auto_refresh=False) as live:
        session.join(viewer)
        while session.failure is None:
            key = read_key(sys.stdin.fileno(), WAIT)
            if key in QUIT:
                break
            if key == CUT:
                session.submit(lambda: _toggle_cut(session))
            action = KEYS.get(key, names[int(key) - 1] if key.isdigit() and 0 < int(key) <= len(names) else None)
            if action in names:
                session.press(viewer, names.index(action))
                session.release(viewer)  # a terminal does not tell when keys are let go
            if (picture := viewer.take()) is not None:
                live.update(Group(*draw(picture, title, names, console.width, console.height)), refresh=True)
        session.leave(viewer)
    if session.failure is not None:
        raise LssvwmError(f"the simulation failed: {session.failure}")


def draw(picture: Picture, title: str, names: tuple[str, ...], width: int, height: int) -> list[Text]:
    """The picture, as large as it fits into width × height characters, and what is to be known below it."""
    rows, columns = picture.frame.shape[:2]
    scale = min(width / columns, 2 * (height - STATUS_LINES) / rows)
    size = max(1, round(columns * scale)), max(2, round(rows * scale) // 2 * 2)
    pixels = np.asarray(Image.fromarray(picture.frame).resize(size, Image.Resampling.BOX))
    lines = []
    for top, bottom in zip(pixels[::2].tolist(), pixels[1::2].tolist(), strict=True):
        line = Text(no_wrap=True)
        for above, below in zip(top, bottom, strict=True):
            line.append("▀", f"rgb({above[0]},{above[1]},{above[2]}) on rgb({below[0]},{below[1]},{below[2]})")
        lines.append(line)
    status = picture.status
    keys = "WASD or arrows, Q E: forward and turn" if "forward" in names else f"1-{len(names)}: {' '.join(names)}"
    facts = (
        f"{title}  frame {status['frames']}  {status['fps']:.1f} fps  {status['milliseconds']:.0f} ms  "
        f"{status['steps']} steps  "
        f"state {status['state_bytes']:,} bytes  memory {'cut' if status['cut_memory'] else 'on'}"
    )
    help = f"{keys} · m: cut the memory · x: quit"
    return [*lines, Text(facts, "bold"), Text(help, "dim"), Text(status["notice"], "yellow")]


@contextlib.contextmanager
def raw_keys(descriptor: int) -> Iterator[None]:
    """Keys arrive at once and are not echoed."""
    before = termios.tcgetattr(descriptor)
    try:
        tty.setcbreak(descriptor)
        yield
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)


def read_key(descriptor: int, seconds: float) -> str:
    """The latest key pressed, an arrow as its escape sequence; empty when none came in time."""
    if not select.select([descriptor], [], [], seconds)[0]:
        return ""
    text = os.read(descriptor, 1024).decode(errors="ignore")
    return text[text.rfind("\x1b") :] if "\x1b" in text else text[-1:].lower()


def _toggle_cut(session: Session) -> str:
    session.game.cut_memory = not session.game.cut_memory
    return ""
