"""What a viewer may say: small JSON objects with a `do`, of the shapes below. Anything else means nothing."""

from collections.abc import Callable
from typing import Annotated, Any, NamedTuple

import msgspec

from lssvwm_core.play.game import MAX_SEED
from lssvwm_core.play.session import Session, Viewer

MAX_BYTES = 512  # of a message
MAX_STEPS = 32
MAX_STAMP = 1e15

Number = Annotated[int, msgspec.Meta(ge=0)]


class Message(msgspec.Struct, tag_field="do", forbid_unknown_fields=True, frozen=True):
    """What all messages have in common."""


class Seen(Message, tag="seen", frozen=True):
    """One more picture may be sent."""


class Key(Message, tag="key", frozen=True):
    """Hold an action, or none; the stamp comes back with the picture that the action leads to."""

    action: int | None
    stamp: Annotated[float, msgspec.Meta(ge=-MAX_STAMP, le=MAX_STAMP)]


class Set(Message, tag="set", frozen=True):
    """Change one of `SETTINGS`."""

    name: str
    value: bool | int


class Restart(Message, tag="restart", frozen=True):
    """See a recording from one of its frames on, and forget all else."""

    episode: Number
    frame: Number


class Save(Message, tag="save", frozen=True):
    """Keep this moment, in place of what the slot held."""

    slot: str


class Branch(Message, tag="branch", frozen=True):
    """Keep this moment in a slot that is not taken yet."""

    slot: str


class Load(Message, tag="load", frozen=True):
    """Go back to a saved moment."""

    slot: str


class Setting(NamedTuple):
    """What its value must be, and how it is changed; the change returns a notice, or nothing to say."""

    shape: Any
    change: Callable[[Session, Any], str | None]


SETTINGS = {
    "cut_memory": Setting(bool, lambda session, cut: setattr(session.game, "cut_memory", cut)),
    "actions_only": Setting(bool, lambda session, only: setattr(session.game, "actions_only", only)),
    "record": Setting(bool, lambda session, wanted: session.record(wanted)),
    "steps": Setting(
        Annotated[int, msgspec.Meta(ge=1, le=MAX_STEPS)], lambda session, steps: session.game.set_steps(steps)
    ),
    "seed": Setting(Annotated[int, msgspec.Meta(ge=0, le=MAX_SEED)], lambda session, seed: session.game.set_seed(seed)),
}
DECODER = msgspec.json.Decoder(Seen | Key | Set | Restart | Save | Branch | Load)


def parse(text: str) -> Message | None:
    """The message, or None for anything else."""
    try:
        message = DECODER.decode(text)
        if isinstance(message, Set):
            msgspec.convert(message.value, SETTINGS[message.name].shape, strict=True)
    except (msgspec.MsgspecError, ValueError, KeyError, RecursionError):
        return None
    return message


def obey(session: Session, viewer: Viewer, message: Message) -> None:
    """Do what a message asks."""
    game = session.game
    match message:
        case Key():
            session.press(viewer, message.action, message.stamp)
        case Set():
            session.submit(lambda: SETTINGS[message.name].change(session, message.value))
        case Restart():
            session.submit(lambda: _done(lambda: game.restart(message.episode, message.frame), "a new start"))
        case Save():
            session.submit(lambda: _done(lambda: game.save(message.slot), f"saved as {message.slot}"))
        case Branch():
            session.submit(lambda: _done(lambda: game.branch(message.slot), f"branched as {message.slot}"))
        case Load():
            session.submit(lambda: _done(lambda: game.load(message.slot), f"back at {message.slot}"))


def _done(action: Callable[[], None], notice: str) -> str:
    """What a command of the session is: something done, and the words for it."""
    action()
    return notice
