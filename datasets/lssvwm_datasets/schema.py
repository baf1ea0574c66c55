"""Files whose content is data of a known shape: read once, checked once, told in words when they are anything else.

A shape is a dataclass (or any type that msgspec knows); numbers are what they say, finite, and never taken for text.
"""

import json
import math
import tomllib
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from lssvwm_datasets.errors import LssvwmError

T = TypeVar("T")
MOST_BYTES = 64 * 2**20  # of a text file that is read whole


def read_json(path: Path, shape: type[T], advice: str = "") -> T:
    """The content of a JSON file as `shape`; unknown fields are ignored, as a later version may have more.

    Args:
        advice: what to do about a file that is damaged, for the message.

    Raises: FileNotFoundError; LssvwmError naming the file, the place in it, what was found and what was expected.
    """
    return parse_json(str(path), read_text(path, advice), shape, advice)


def parse_json(where: str, text: str, shape: type[T], advice: str = "") -> T:
    """JSON text that lies within another file as `shape`; `where` names the place. Raises: LssvwmError."""
    try:
        content = json.loads(text, parse_constant=_refuse_constant)
    except RecursionError as error:
        raise LssvwmError(_message(where, "not readable as JSON: nested too deep", advice)) from error
    except ValueError as error:
        raise LssvwmError(_message(where, f"not readable as JSON: {error}", advice)) from error
    return convert(where, content, shape, advice)


def read_toml(path: Path, advice: str = "") -> dict[str, Any]:
    """The content of a TOML file. Raises: LssvwmError when it is missing or not TOML; the message has the line."""
    try:
        return tomllib.loads(read_text(path, advice))
    except FileNotFoundError as error:
        raise LssvwmError(f"{path}: no such file") from error
    except (ValueError, RecursionError) as error:
        raise LssvwmError(_message(path, f"not readable as TOML: {error or 'nested too deep'}", advice)) from error


def read_text(path: Path, advice: str = "") -> str:
    """A UTF-8 text file, whatever the locale. Raises: FileNotFoundError; LssvwmError for what is no such file."""
    if not path.exists():
        raise FileNotFoundError(path)
    if not path.is_file():
        raise LssvwmError(_message(path, "not a regular file", advice))
    with path.open("rb") as file:
        content = file.read(MOST_BYTES + 1)
    if len(content) > MOST_BYTES:
        raise LssvwmError(_message(path, f"larger than {MOST_BYTES >> 20} MiB, so not what it should be", advice))
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise LssvwmError(_message(path, f"not UTF-8 text (byte {error.start})", advice)) from error


def convert(where: str, content: Any, shape: type[T], advice: str = "") -> T:
    """Parsed JSON or TOML as `shape`; lists become tuples where the shape says so, but no text becomes a number.

    Raises: LssvwmError; `where` is the file, or whatever the content came from.
    """
    try:
        checked = msgspec.convert(content, shape, strict=True)
        _check_finite(checked if isinstance(checked, float) else content)
    except (msgspec.ValidationError, ValueError, TypeError) as error:
        raise LssvwmError(_message(where, str(error).replace("`", ""), advice)) from error
    except RecursionError as error:
        raise LssvwmError(_message(where, "nested too deep", advice)) from error
    return checked


def _check_finite(content: Any) -> None:
    if isinstance(content, float) and not math.isfinite(content):
        raise ValueError(f"expected finite numbers, found {content}")
    for item in content.values() if isinstance(content, dict) else content if isinstance(content, list) else ():
        _check_finite(item)


def _refuse_constant(name: str) -> None:
    raise ValueError(f"expected finite numbers, found {name}")


def _message(where: object, problem: str, advice: str) -> str:
    return f"{where}: {problem}" + (f"; {advice}" if advice else "")
