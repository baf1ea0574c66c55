"""Options that several commands have: each is written once, and means the same everywhere."""

from pathlib import Path
from typing import Annotated

import typer

from lssvwm_cli.completion import episodes, runs

RUNNING = "Running"  # the panel of what concerns the machine, not the result

Checkpoint = Annotated[
    str | None,
    typer.Option(
        help="A run, a world's folder, a shipped name or a hub id. [default: the latest run, else the shipped world]",
        autocompletion=runs,
    ),
]
Start = Annotated[
    str | None,
    typer.Option("--data", help="Shards, recordings or a hub id to start from. [default: data/maze, else the samples]"),
]
Shards = Annotated[
    str | None,
    typer.Option("--data", help="Folder of shards, from lssvwm prepare, or a hub id. [default: data/maze]"),
]
HeldOut = Annotated[
    str | None,
    typer.Option("--data", help="Held-out shards or recordings, or a hub id. [default: data/maze, else the samples]"),
]
Episode = Annotated[
    int,
    typer.Option(min=0, help="Number of the validation episode to start from.", autocompletion=episodes),
]
Conditions = Annotated[
    str, typer.Option(help="What drives the world: pose,action or one of them. [default: all that the world takes]")
]
Steps = Annotated[int | None, typer.Option(min=1, help="Denoising steps for each chunk. [default: the world's]")]
Guidance = Annotated[
    float | None,
    typer.Option(
        min=0,
        help="How far to go beyond what the world would do, towards its memory; above 0 a frame costs half "
        "as much again. [default: the world's]",
    ),
]
Temperature = Annotated[
    float | None,
    typer.Option(
        min=0,
        max=1,
        help="The share of the noise that is left where the memory is certain: 0 shows what is likeliest there, 1 one "
        "of many. [default: the world's]",
    ),
]
Chunk = Annotated[int | None, typer.Option(help="Frames generated together. [default: the model's first]")]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", help="Change a setting, SECTION.FIELD=VALUE, such as model.depth=6; may be given again."),
]
Minutes = Annotated[float | None, typer.Option(help="Save and stop after so many minutes.")]
Resume = Annotated[bool, typer.Option(help="Continue the run if it is there already.")]
Batch = Annotated[int, typer.Option(min=1, help="Rollouts to compute together.", rich_help_panel=RUNNING)]
LpipsWeights = Annotated[
    Path | None,
    typer.Option(help="AlexNet's weights for LPIPS, alexnet-owt-7be5be79.pth. [default: from torch's hub cache]"),
]
Compile = Annotated[
    bool,
    typer.Option(
        "--compile/--no-compile",
        help="Compile the model: the start is slow, what follows is faster. Needs a C++ compiler.",
        rich_help_panel=RUNNING,
    ),
]
Jobs = Annotated[
    str, typer.Option(help="Processes that work side by side; auto takes one for each core.", rich_help_panel=RUNNING)
]
Threads = Annotated[int | None, typer.Option(min=1, help="CPU threads to use. [default: all]", rich_help_panel=RUNNING)]
Device = Annotated[str, typer.Option(help="auto, cpu or cuda.", rich_help_panel=RUNNING)]
Json = Annotated[bool, typer.Option("--json", help="Print the figures to stdout as JSON.", rich_help_panel=RUNNING)]
