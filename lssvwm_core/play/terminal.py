"""Play in a terminal: the picture in half blocks, two pixels a character, and keys read raw."""

import contextlib
import os
import re
import select
import sys
import termios
import tty
from collections.abc import Iterator, Mapping

import numpy as np
from PIL import Image
from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from lssvwm_core.play.session import Picture, Session, Viewer
from lssvwm_datasets.errors import LssvwmError, printable

ARROWS = {"A": "ArrowUp", "B": "ArrowDown", "C": "ArrowRight", "D": "ArrowLeft"}  # the last byte of what they send
SIGNS = {"ArrowUp": "↑", "ArrowDown": "↓", "ArrowRight": "→", "ArrowLeft": "←"}
QUIT, CUT = ("x", "\x03", "\x1b"), "m"  # unless the environment has an action for them
STATUS_LINES = 4
WAIT = 0.05  # seconds between looks at the keyboard and at the mailbox


def play(session: Session, title: str) -> None:
    """Until x, Esc or Ctrl-C; `title` names the world. Raises: LssvwmError without a terminal."""
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise LssvwmError("--terminal needs a terminal; without it, lssvwm play serves a page for a browser")
    help = help_text(session.game.keys, session.game.moves)
    viewer = Viewer(lambda: None)
    console = Console()
    with raw_keys(sys.stdin.fileno()), Live(console=console, screen=True, auto_refresh=False) as live:
        session.join(viewer)
        while session.failure is None:
            key = read_key(sys.stdin.fileno(), WAIT)
            if (action := session.game.keys.get(key)) is not None:
                session.press(viewer, action)
                session.release(viewer)  # a terminal does not tell when keys are let go
            elif key in QUIT:
                break
            elif key == CUT:
                session.submit(lambda: _toggle_cut(session))
            if (picture := viewer.take()) is not None:
                live.update(Group(*draw(picture, title, help, console.width, console.height)), refresh=True)
        session.leave(viewer)
    if session.failure is not None:
        raise LssvwmError(f"the simulation failed: {session.failure}")


def draw(picture: Picture, title: str, help: str, width: int, height: int) -> list[Text]:
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
    known = "" if status["certainty"] is None else f"  place known {status['certainty']:.0%}"
    facts = (
        f"{title}  frame {status['frames']}  {status['fps']:.1f} fps  {status['milliseconds']:.0f} ms  "
        f"{status['steps']} steps  "
        f"state {status['state_bytes']:,} bytes  memory {'cut' if status['cut_memory'] else 'on'}{known}"
    )
    told = [(facts, "bold"), (help, "dim"), (status["notice"], "yellow")]
    return [*lines, *(Text(printable(text), style, no_wrap=True, overflow="ellipsis") for text, style in told)]


def help_text(keys: Mapping[str, int], names: tuple[str, ...]) -> str:
    """Which keys do what, in one line."""
    of_action = {action: [SIGNS.get(key, key) for key in keys if keys[key] == action] for action in keys.values()}
    actions = [f"{' '.join(keys)} {names[action]}" for action, keys in of_action.items()]
    own = ["Esc quit" if "x" in keys else "x quit", *(["m cut the memory"] if CUT not in keys else [])]
    return " · ".join([*own, *actions])


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
    """The latest key pressed, by the name that an environment gives it; empty when none came in time."""
    if not select.select([descriptor], [], [], seconds)[0]:
        return ""
    text = os.read(descriptor, 1024).decode(errors="ignore")
    if arrow := re.search(r"\x1b[\[O]([ABCD])$", text):
        return ARROWS[arrow[1]]
    return text[-1:].lower()


def _toggle_cut(session: Session) -> None:
    session.game.cut_memory = not session.game.cut_memory
