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
    info,
    inspect,
    play,
    prepare,
    push_hub,
    record,
    rollout,
    train,
    train_autoencoder,
)
from lssvwm_cli.console import prepare_logging, prepare_streams, show
from lssvwm_cli.ending import exit_code_of, tell_of_threads

app = typer.Typer(
    name="lssvwm",
    help="Long-context state-space video world models: recordings → latents → training → rollouts.",
    no_args_is_help=True,
    rich_markup_mode="markdown",  # as rich markup, "[default: …]" would vanish
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("record", no_args_is_help=True)(record.record)
app.command("prepare")(prepare.prepare)
app.command("index")(prepare.index)
app.command("inspect")(inspect.inspect)
app.command("train-autoencoder")(train_autoencoder.train_autoencoder)
app.command("train")(train.train)
app.command("distill")(distill.distill)
app.command("rollout")(rollout.rollout)
app.command("play")(play.play)
app.command("eval")(evaluate.evaluate)
app.command("compare")(compare.compare)
app.add_typer(bench.app, name="bench")
app.command("push-hub")(push_hub.push_hub)
app.command("info")(info.info)


def _show_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        show(f"lssvwm {version('lssvwm')}")
        raise typer.Exit


@app.callback()
def _options(
    _version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Say which backends are chosen and why.")] = False,
) -> None:
    prepare_logging(verbose)


def run(arguments: Sequence[str]) -> int:
    """Run one command in this process; its exit code."""
    return exit_code_of(lambda: app(list(arguments), standalone_mode=False))


def main() -> None:
    """The command: every problem is one line on stderr, and the exit code says how it ended."""
    prepare_streams()
    tell_of_threads()
    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
