"""The `lssvwm` command."""

import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from lssvwm_cli import (
    bench,
    compare,
    distill,
    evaluate,
    export,
    info,
    inspect,
    plan,
    play,
    prepare,
    probe,
    push_hub,
    record,
    rollout,
    train,
    train_autoencoder,
    train_reward,
    train_sight,
)
from lssvwm_cli.console import prepare_logging, prepare_streams, show
from lssvwm_cli.ending import exit_code_of, tell_of_threads
from lssvwm_cli.greeting import greeting

app = typer.Typer(
    name="lssvwm",
    help="Long-context state-space video world models: recordings → latents → training → rollouts.",
    invoke_without_command=True,
    rich_markup_mode="markdown",  # as rich markup, "[default: …]" would vanish
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
DATA, WORLDS, MEASURING, SHARING = "Data", "Worlds", "Measuring", "Sharing"  # the groups of `lssvwm --help`, in order

app.command("record", no_args_is_help=True, rich_help_panel=DATA)(record.record)
app.command("prepare", rich_help_panel=DATA)(prepare.prepare)
app.command("index", rich_help_panel=DATA)(prepare.index)
app.command("inspect", rich_help_panel=DATA)(inspect.inspect)
app.command("train-autoencoder", rich_help_panel=DATA)(train_autoencoder.train_autoencoder)
app.command("export", rich_help_panel=DATA)(export.export)
app.command("train", rich_help_panel=WORLDS)(train.train)
app.command("train-reward", rich_help_panel=WORLDS)(train_reward.train_reward)
app.command("train-sight", rich_help_panel=WORLDS)(train_sight.train_sight)
app.command("distill", rich_help_panel=WORLDS)(distill.distill)
app.command("rollout", rich_help_panel=WORLDS)(rollout.rollout)
app.command("play", rich_help_panel=WORLDS)(play.play)
app.command("eval", rich_help_panel=MEASURING)(evaluate.evaluate)
app.command("probe", rich_help_panel=MEASURING)(probe.probe)
app.command("plan", rich_help_panel=MEASURING)(plan.plan)
app.command("compare", rich_help_panel=MEASURING)(compare.compare)
app.add_typer(bench.app, name="bench", rich_help_panel=MEASURING)
app.command("push-hub", rich_help_panel=SHARING)(push_hub.push_hub)
app.command("info", rich_help_panel=SHARING)(info.info)


def _show_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        show(f"lssvwm {version('lssvwm')}")
        raise typer.Exit


@app.callback()
def _options(
    context: typer.Context,
    _version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Say which backends are chosen and why.")] = False,
) -> None:
    prepare_logging(verbose)
    if context.invoked_subcommand is None:
        show(greeting())


def run(arguments: Sequence[str]) -> int:
    """Run one command in this process; its exit code."""
    known = {*(command.name for command in app.registered_commands), *(group.name for group in app.registered_groups)}
    command = next((f"lssvwm {argument}" for argument in arguments if argument in known), "lssvwm")
    return exit_code_of(lambda: app(list(arguments), standalone_mode=False), command)


def main() -> None:
    """The command: every problem is one line on stderr, and the exit code says how it ended."""
    prepare_streams()
    tell_of_threads()
    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
