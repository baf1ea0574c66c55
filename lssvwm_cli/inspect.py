"""`lssvwm inspect`: look into recordings, shards and videos."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lssvwm_cli.console import say, show, show_json, show_table
from lssvwm_cli.options import Json

if TYPE_CHECKING:
    from lssvwm_core.inspection.motion import Agreement


def inspect(
    path: Annotated[Path, typer.Argument(help="Recordings, shards or a video file.")] = Path("data/maze"),
    sheet: Annotated[Path, typer.Option(help="Where to write the contact sheet.")] = Path("contact-sheet.png"),
    actions: Annotated[
        bool,
        typer.Option(
            "--actions", help="Draw the recorded turns over the frames they led to, and check their sign and alignment."
        ),
    ] = False,
    verify: Annotated[bool, typer.Option("--verify", help="Compare the bytes of every shard with the index.")] = False,
    json: Json = False,
) -> None:
    """Show what recordings, shards or a video hold; write a contact sheet with the action that led to each frame."""
    from dataclasses import asdict

    from lssvwm_core.inspection.contents import inspect_path, is_video
    from lssvwm_core.video import save_picture
    from lssvwm_datasets.errors import LssvwmError

    if actions and is_video(path):
        raise LssvwmError(f"{path}: a video alone has no actions; give --actions recordings or shards")
    if verify:
        _verify(path)
    inspection = inspect_path(path)
    if actions:
        from lssvwm_core.inspection.action_check import check_actions

        agreement, inspection.sheet = check_actions(path)
        inspection.details["turns"] = agreement and agreement.figures()
        say(describe(agreement))
    if inspection.sheet is not None:
        save_picture(inspection.sheet, sheet)
        say(f"contact sheet: {sheet}")
    inspection.sheet = None
    if json:
        show_json({key: value for key, value in asdict(inspection).items() if key != "sheet"})
        return
    inspection.details.pop("turns", None)
    show(f"{inspection.kind} in {inspection.path}")
    show("  ".join(f"{key} {value}" for key, value in inspection.details.items()))
    columns = next(iter(inspection.splits.values()))
    show_table(["split", *columns], [[split, *figures.values()] for split, figures in inspection.splits.items()])
    if inspection.action_counts:
        total = max(1, sum(inspection.action_counts.values()))
        rows = (
            (name, count, f"{count / total:.1%}", "█" * round(40 * count / total))
            for name, count in inspection.action_counts.items()
        )
        show_table(["action", "count", "share", ""], rows)
    for entry in inspection.skipped:
        show(f"skipped {entry['id']}: {entry['reason']}")


def _verify(folder: Path) -> None:
    from lssvwm_core.prepare.index import damaged_shards
    from lssvwm_datasets.errors import LssvwmError

    checked = list(damaged_shards(folder))
    damaged = [(name, problem) for name, problem in checked if problem]
    for name, problem in damaged:
        say(f"{folder / name}: {problem}")
    if damaged:
        raise LssvwmError(f"{folder}: {len(damaged)} of {len(checked)} shards are not as the index tells")
    say(f"{len(checked)} shards have the checksums that the index lists")


def describe(agreement: "Agreement | None") -> str:
    """The verdict on turns in a line."""
    if agreement is None:
        return "turns: no column is known as a turn (yaw, or left and right)"
    figures = ", ".join(f"{value:.2f} at {lag:+d}" for lag, value in agreement.correlation.items())
    verdict = "WARNING: " * agreement.warning + agreement.conclusion
    return f"turns: {verdict} (correlation with the motion seen by frames of delay: {figures}; {agreement.turns} turns)"
