"""The exceptions that users are meant to read, and text that is safe to show them."""


class LssvwmError(Exception):
    """A problem the user can act on: the message names what is wrong, where, and what was expected.

    The command line prints the message alone, without a traceback, and exits with code 1.
    """


class DamagedRecording(LssvwmError):
    """A recording that cannot be read; `prepare` skips its episode and keeps the reason."""


class UnreadableNow(LssvwmError):
    """The machine could not read a recording for the moment (permission, network, memory): nothing is wrong with it.

    It is never skipped: what needs it stays unfinished, and the same command takes it in later.
    """


def printable(text: str) -> str:
    """The text with what terminals, JSON and HDF5 cannot hold as escapes: control characters, bytes that are no UTF-8.

    Python gives bytes of file names that are no UTF-8 as lone surrogates, from U+DC80 on.
    """
    return "".join(character if character.isprintable() else _escape(ord(character)) for character in text)


def _escape(code: int) -> str:
    if 0xDC80 <= code <= 0xDCFF:
        code -= 0xDC00
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
