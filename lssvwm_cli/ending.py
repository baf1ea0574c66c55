"""How a command ends: its exit code, and one line for whatever went wrong.

0: done. 1: an error. 2: the command was called with options that it does not have. 130: Ctrl-C. 141: nobody reads
stdout any more, as in `| head`.
"""

import errno
import os
import sys
import threading
from collections.abc import Callable

import typer

from lssvwm_cli.console import TRACEBACK, say_error
from lssvwm_datasets.errors import LssvwmError

INTERRUPTED, READER_GONE = 130, 141  # 128 + the signal's number
COMMANDS = ("lssvwm ", "pip install ")  # how a message names a command to go on with
AGAIN = "when that is mended, give the same command again"
NEXT_STEPS = {
    errno.ENOENT: "look at the name, and give the same command again",
    errno.ENOSPC: "make room, and give the same command again",
    errno.EDQUOT: "make room, and give the same command again",
    errno.EACCES: "get the right to it, or choose another place, and give the same command again",
    errno.EPERM: "get the right to it, or choose another place, and give the same command again",
    errno.EROFS: "choose another place, and give the same command again",
    errno.EMFILE: "let more files be open (ulimit -n), or take fewer --jobs, and give the same command again",
}


def exit_code_of(command: Callable[[], object], name: str = "lssvwm") -> int:
    """Run a command, Typer's with `standalone_mode=False`; its exit code, after one line about its error if any.

    `name` is how the user called it; the line ends with what to do next.
    """
    try:
        code = command()
        sys.stdout.flush()
        return code if isinstance(code, int) else 0
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        return _reader_gone()
    except SystemExit as end:
        if isinstance(end.__context__, BrokenPipeError):  # Typer and Rich exit by themselves then
            return _reader_gone()
        raise
    except typer.Abort as error:  # Typer's word for EOFError
        return _tell(error.__cause__ or error, name)
    except Exception as error:
        return _tell(error, name)


def tell_of_threads() -> None:
    """From now on a thread that an error ends says so in a line, too."""

    def tell(failed: threading.ExceptHookArgs) -> None:
        if failed.exc_value is not None:
            _tell(failed.exc_value, "lssvwm")

    threading.excepthook = tell


def _reader_gone() -> int:
    sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 - Python would try again at its end
    return READER_GONE


def _tell(error: BaseException, name: str) -> int:
    try:
        if words := _words(error, name):
            say_error(words, error)
        sys.stdout.flush()
    except OSError:
        _reader_gone()
    return int(getattr(error, "exit_code", 1))


def _words(error: BaseException, name: str) -> str:
    """What the user should know about an error, and do next."""
    if hasattr(error, "format_message"):  # of Click, about options; without a message, help has been shown
        message, context = " ".join(error.format_message().split()), getattr(error, "ctx", None)
        return f"{message} (see {context.command_path} --help)" if message and context is not None else message
    if isinstance(error, LssvwmError):
        return _with_next_step(str(error), name)
    if isinstance(error, OSError):
        return f"{_words_of_the_system(error)}; {NEXT_STEPS.get(error.errno or 0, AGAIN)}"
    if _is_out_of_memory(error):
        return f"out of memory ({error}); try a smaller batch, fewer frames or fewer processes"
    return (
        f"this is a bug of lssvwm, please report it: {type(error).__name__}: {str(error).partition(chr(10))[0]} "
        f"({_place(error)}); the same command with {TRACEBACK}=1 before it shows more"
    )


def _with_next_step(message: str, name: str) -> str:
    """The message; where it names no command to go on with, the help of the one that failed is named."""
    return message if any(word in message for word in COMMANDS) else f"{message} (see {name} --help)"


def _words_of_the_system(error: OSError) -> str:
    if isinstance(error, FileNotFoundError) and error.errno is None:
        return f"{error}: no such file"
    if error.filename is None or error.strerror is None:
        return str(error)
    names = [name for name in (error.filename, error.filename2) if name is not None]
    return " -> ".join(name if isinstance(name, str) else repr(name) for name in names) + f": {error.strerror}"


def _is_out_of_memory(error: BaseException) -> bool:
    """Also torch's, whose types are not known before torch is imported."""
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and any(part in str(error) for part in ("out of memory", "t allocate memory"))
    )


def _place(error: BaseException) -> str:
    """The file and line that raised it."""
    place, step = "", error.__traceback__
    while step is not None:
        place, step = f"{step.tb_frame.f_code.co_filename}:{step.tb_lineno}", step.tb_next
    return place
