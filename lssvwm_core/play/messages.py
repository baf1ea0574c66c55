"""What a viewer may say: small JSON objects with a `do`, read strictly. Whatever is not one of them means nothing.

{"do": "seen"}                                              one more picture may be sent
{"do": "key", "action": 1, "stamp": 123.4}                  hold an action; the stamp comes back with its picture
{"do": "set", "name": "cut_memory", "value": true}          also: actions_only, record, steps, seed
{"do": "restart", "episode": 0, "frame": 100}
{"do": "save" | "branch" | "load", "slot": "by-the-door"}
"""

import json
from collections.abc import Callable
from typing import Any

from lssvwm_core.play.game import MAX_SEED
from lssvwm_core.play.session import Session, Viewer

MAX_BYTES = 512
MAX_STEPS = 32

Message = dict[str, Any]


def parse(text: str) -> Message | None:
    """The message, or None for anything else."""
    try:
        message = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return message if isinstance(message, dict) and isinstance(message.get("do"), str) else None


def obey(session: Session, viewer: Viewer, message: Message) -> None:
    """Do what a message asks; nothing where it does not make sense."""
    match message:
        case {"do": "key", "action": action, "stamp": int(stamp) | float(stamp)} if (
            _whole(action) and abs(stamp) < 1e15
        ):
            session.press(viewer, action, stamp)
        case {"do": "set", "name": "record", "value": bool(wanted)}:
            session.submit(lambda: session.record(wanted))
        case {"do": "set", "name": ("cut_memory" | "actions_only") as name, "value": bool(wanted)}:
            session.submit(lambda: _set(session.game, name, wanted))
        case {"do": "set", "name": "steps", "value": steps} if _whole(steps) and 1 <= steps <= MAX_STEPS:
            session.submit(lambda: _done(lambda: session.game.set_steps(steps), ""))
        case {"do": "set", "name": "seed", "value": seed} if _whole(seed) and 0 <= seed <= MAX_SEED:
            session.submit(lambda: _done(lambda: session.game.set_seed(seed), ""))
        case {"do": "restart", "episode": episode, "frame": frame} if _whole(episode) and _whole(frame):
            session.submit(lambda: _done(lambda: session.game.restart(episode, frame), "a new start"))
        case {"do": ("save" | "branch" | "load") as verb, "slot": str(slot)}:
            method: Callable[[str], None] = getattr(session.game, verb)
            done = {"save": f"saved as {slot}", "branch": f"branched as {slot}", "load": f"back at {slot}"}[verb]
            session.submit(lambda: _done(lambda: method(slot), done))


def _whole(value: object) -> bool:
    return type(value) is int  # True is an int, too


def _done(action: Callable[[], None], notice: str) -> str:
    action()
    return notice


def _set(target: object, name: str, value: object) -> str:
    setattr(target, name, value)
    return ""
