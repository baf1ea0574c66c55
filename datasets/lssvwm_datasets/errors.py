"""The one exception that users are meant to read."""


class LssvwmError(Exception):
    """A problem the user can act on: the message names what is wrong, where, and what was expected.

    The command line prints the message alone, without a traceback, and exits with code 1.
    """


class DamagedRecording(LssvwmError):
    """A recording that cannot be read; `prepare` skips its episode and keeps the reason."""
