"""Help that says of every option what it is for, in sentences."""

from collections.abc import Iterator
from typing import Any

import typer

from lssvwm_cli.app import app
from lssvwm_cli.compare import compare
from lssvwm_core.model.variants import VARIANTS


def commands(command: Any, name: str = "lssvwm") -> Iterator[tuple[str, Any]]:
    yield name, command
    for part, below in getattr(command, "commands", {}).items():
        yield from commands(below, f"{name} {part}")


def test_every_command_and_option_is_explained_in_a_sentence() -> None:
    riddles = []
    for name, command in commands(typer.main.get_command(app)):
        texts = {name: command.help, **{f"{name} {option.name}": option.help for option in command.params}}
        for place, text in texts.items():
            sentence = (text or "").partition("[default")[0].strip()
            if not sentence.endswith((".", ")", "…")) or sentence.startswith("Of "):
                riddles.append(f"{place}: {text}")
    assert not riddles


def test_the_help_of_compare_names_every_variant() -> None:
    assert [name for name in VARIANTS if f"{name}," not in f"{compare.__doc__}".replace(".", ",")] == []
