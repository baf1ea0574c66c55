"""The `lssvwm` command."""

import logging
import sys
from importlib.metadata import version
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
from lssvwm_datasets.errors import LssvwmError

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
app.command("bench")(bench.bench)
app.command("push-hub")(push_hub.push_hub)
app.command("info")(info.info)


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"lssvwm {version('lssvwm')}")
        raise typer.Exit


@app.callback()
def _options(
    _version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Say which backends are chosen and why.")] = False,
) -> None:
    logging.basicConfig(level=logging.INFO if verbose else logging.WARNING, format="%(message)s", stream=sys.stderr)


def main() -> None:
    """Run the command; problems the user can act on are one message and exit code 1."""
    try:
        app()
    except LssvwmError as error:
        sys.exit(f"error: {error}")
    except OSError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
