"""Writes the two pages of the manual that are made from the code: commands.md and config.md. `make reference` runs it.

A test compares the pages with what the code says now, so that they cannot drift.
"""

import ast
import dataclasses
import inspect
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import typer

DOCS = Path(__file__).parent
MADE = "<!-- Made by docs/reference.py: change the code, then `make reference`. -->\n\n"


def pages() -> dict[str, str]:
    """{file in docs/: what it should hold}."""
    return {"commands.md": commands_page(), "config.md": config_page()}


def commands_page() -> str:
    from lssvwm_cli import options
    from lssvwm_cli.app import app

    root: Any = typer.main.get_command(app)
    known = dict(_commands(root))
    shared = {get_args(kind)[1].help for kind in vars(options).values() if get_origin(kind) is Annotated}
    text = [
        "# Commands",
        f"`lssvwm` alone says what can be done now; `lssvwm COMMAND --help` shows what stands here.\n{ENVIRONMENT}",
    ]
    groups: dict[str, list[str]] = {}
    for name, command in root.commands.items():
        groups.setdefault(command.rich_help_panel, []).append(name)
    for group, names in groups.items():
        rows = [[f"[`{name}`](#lssvwm-{name})", _first_sentence(root.commands[name].help)] for name in names]
        text.append(_table([group, ""], rows))
    text.append("## Of every command")
    text.append(_table(["option", "what it is for"], [_option_row(option) for option in _options(root)]))
    text.append("## Options that many commands have")
    explained = {option.help: _names(option) for command in known.values() for option in _options(command)}
    rows = [[names, _prose(told)] for told, names in explained.items() if told in shared]
    text.append(_table(["option", "what it is for"], sorted(rows)))
    for name, command in known.items():
        text += _command(name, command, shared)
    return MADE + "\n\n".join(text) + "\n"


ENVIRONMENT = """\
`lssvwm --install-completion` lets your shell complete commands, options, presets, runs, formats and episodes.

Beside other work on the same cores set `OMP_NUM_THREADS=1`: threads that wait for a busy core make everything many
times slower. `LSSVWM_TRACEBACK=1` shows where an error comes from."""


def _commands(command: Any, name: str = "lssvwm") -> Iterator[tuple[str, Any]]:
    """Every command below this one, by what is typed, in the order of the help."""
    for part, below in command.commands.items():
        yield f"{name} {part}", below
        if hasattr(below, "commands"):
            yield from _commands(below, f"{name} {part}")


def _options(command: Any) -> list[Any]:
    return [parameter for parameter in command.params if parameter.param_type_name == "option"]


def _command(name: str, command: Any, shared: set[str]) -> list[str]:
    text = [f"## {name}", inspect.cleandoc(command.help)]
    if hasattr(command, "commands"):
        return text
    arguments = [parameter for parameter in command.params if parameter.param_type_name == "argument"]
    words = [_word(argument) for argument in arguments]
    text.append(f"```text\n{' '.join([name, '[OPTIONS]', *words])}\n```")
    own = [option for option in _options(command) if option.help not in shared]
    rows = [[f"`{word}`", _prose(argument.help)] for word, argument in zip(words, arguments, strict=True)]
    rows += map(_option_row, own)
    if rows:
        text.append(_table(["argument or option", "what it is for"], rows))
    also = [f"`{option.opts[0]}`{_default(option)}" for option in _options(command) if option.help in shared]
    if also:
        text.append(f"[As many commands](#options-that-many-commands-have): {', '.join(also)}.")
    return text


def _word(argument: Any) -> str:
    """How the usage writes an argument: in brackets where it may be left out."""
    word = str(argument.metavar or argument.name.upper())
    return word if argument.required or word.startswith("[") else f"[{word}]"


def _option_row(option: Any) -> list[str]:
    return [_names(option), _prose(option.help) + _default(option)]


def _names(option: Any) -> str:
    return ", ".join(f"`{name}`" for name in (*option.opts, *option.secondary_opts))


def _default(option: Any) -> str:
    """What holds where the help does not say it."""
    said = option.default is False or option.default == "" or "[default" in (option.help or "")
    if said or not isinstance(option.default, bool | int | float | str | Path):
        return ""
    return f" [{'yes' if option.default is True else option.default}]"


def _prose(text: str | None) -> str:
    """The help as Markdown of one cell of a table."""
    return " ".join((text or "").replace("[default: ", "[").replace("|", "\\|").replace("<", "&lt;").split())


def _first_sentence(text: str) -> str:
    return " ".join(inspect.cleandoc(text).partition("\n\n")[0].split())


def _table(headings: list[str], rows: Any) -> str:
    lines = [headings, ["---"] * len(headings), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def config_page() -> str:
    from lssvwm_core.presets import PRESETS, Stage
    from lssvwm_core.training.run.config import GIVEN_BY_DATA, SECTIONS, SETTABLE

    text = [
        "# Settings of a training",
        "A run's `config.toml` has these sections. Each field can be set in a TOML file (`train --config FILE`)\n"
        "or with `--set SECTION.FIELD=VALUE`, which may be given again. Fields that the shards give are left out.",
    ]
    for section in SETTABLE:
        of = SECTIONS[section]
        notes = _field_notes(of)
        hints = get_type_hints(of, include_extras=True)
        rows = [
            [f"`{field.name}`", _type(hints[field.name]), _value(field), _prose(notes.get(field.name))]
            for field in dataclasses.fields(of)
            if field.name not in GIVEN_BY_DATA
        ]
        text += [f"## [{section}]", _table(["field", "type", "default", "what it is"], rows)]
    notes = _field_notes(Stage)
    rows = [[f"`{field.name}`", _prose(notes.get(field.name))] for field in dataclasses.fields(Stage)]
    text += ["## A stage", _table(["field", "what it is"], rows)]
    columns = ["preset", "stages: frames × clips × steps", "learning rate", "model"]
    rows = []
    for name, preset in PRESETS.items():
        stages = ", ".join(f"{stage.frames} × {stage.batch_size} × {stage.steps:,}" for stage in preset.stages)
        fields = {"patch": preset.patch, **preset.model}
        model = ", ".join(f"`{field} = {_toml(value)}`" for field, value in fields.items())
        rows.append([f"`{name}`", stages, f"{preset.learning_rate:g}", model])
    text += ["## Presets", _table(columns, rows)]
    return MADE + "\n\n".join(text) + "\n"


def _field_notes(of: type) -> dict[str, str]:
    """What stands below each field of a dataclass."""
    (body,) = (
        node for node in ast.walk(ast.parse(textwrap.dedent(inspect.getsource(of)))) if isinstance(node, ast.ClassDef)
    )
    notes = {}
    for field, note in zip(body.body, body.body[1:], strict=False):
        if isinstance(field, ast.AnnAssign) and isinstance(note, ast.Expr) and isinstance(note.value, ast.Constant):
            notes[ast.unparse(field.target)] = str(note.value.value)
    return notes


def _type(hint: Any) -> str:
    if get_origin(hint) is Annotated:
        return _type(get_args(hint)[0])
    if get_origin(hint) is tuple:
        return "list of " + _type(get_args(hint)[0])
    return {"int": "whole number", "float": "number", "str": "text", "bool": "true or false"}.get(
        getattr(hint, "__name__", ""), getattr(hint, "__name__", str(hint)).lower()
    )


def _value(field: Any) -> str:
    return "the preset's" if field.default is dataclasses.MISSING else f"`{_toml(field.default)}`"


def _toml(value: Any) -> str:
    if isinstance(value, tuple):
        return f"[{', '.join(map(_toml, value))}]"
    if isinstance(value, bool):
        return str(value).lower()
    return f'"{value}"' if isinstance(value, str) else f"{value:g}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    for file, content in pages().items():
        (DOCS / file).write_text(content, encoding="utf-8")
        print(DOCS / file)
