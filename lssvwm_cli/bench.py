"""`lssvwm bench`: what a training step, a generated frame, a scan and a batch cost against frames."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from lssvwm_cli.console import say, show_json


class Bench(StrEnum):
    TRAIN = "train"
    ROLLOUT = "rollout"
    SCAN = "scan"
    DATA = "data"


FRAMES = {
    Bench.TRAIN: "100,200,400,800,1600,3200",
    Bench.ROLLOUT: "100,300,1000,3000,10000",
    Bench.SCAN: "100,200,400,800,1600,3200",
    Bench.DATA: "100,200,400,800",
}


def bench(
    what: Annotated[Bench, typer.Argument(help="A training step, a generated frame, the scan, a clip read.")],
    preset: Annotated[str, typer.Option(help="tiny, small or base.")] = "tiny",
    variants: Annotated[
        str, typer.Option(help="Models to compare, with commas. [default: ours and the baselines]")
    ] = "",
    frames: Annotated[
        str, typer.Option(help="Where to measure, with commas. [default: 100 to 3200; rollouts 100 to 10000]")
    ] = "",
    repeats: Annotated[int, typer.Option(min=1, help="Measurements of each point; the median counts.")] = 3,
    limit: Annotated[float, typer.Option(help="Leave out sizes that take more seconds than this.")] = 60.0,
    steps: Annotated[int, typer.Option(min=1, help="Denoising steps a chunk.")] = 8,
    data: Annotated[Path, typer.Option(help="Shards, for bench data.")] = Path("data/maze"),
    out: Annotated[Path, typer.Option(help="Folder of <what>.json and <what>.png.")] = Path("bench"),
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    json: Annotated[bool, typer.Option("--json", help="Print the figures to stdout as JSON.")] = False,
) -> None:
    """Measure costs against frames (the paper's figure 8), as JSON and a plot; every ratio is of one run."""
    from dataclasses import asdict

    from lssvwm_core.bench import timing as core
    from lssvwm_core.bench.costs import plot, summary
    from lssvwm_core.device import pick_device
    from lssvwm_core.model.config import PRESETS
    from lssvwm_core.model.variants import VARIANTS
    from lssvwm_datasets.errors import LssvwmError
    from lssvwm_datasets.files import write_json

    counts = (frames or FRAMES[what]).split(",")
    if not all(count.strip().isdigit() and int(count) % 5 == 0 and int(count) for count in counts):
        raise LssvwmError(f"--frames {frames}: expected numbers of frames, multiples of the chunk, 5")
    names = tuple(filter(None, variants.split(","))) or core.COMPARED
    unknown = [name for name in names if name not in VARIANTS]
    if unknown or preset not in PRESETS:
        expected = f"--variants of {', '.join(VARIANTS)} and --preset of {', '.join(PRESETS)}"
        raise LssvwmError(f"{', '.join(unknown) or preset}: unknown; expected {expected}")
    where = pick_device(device)
    options = core.BenchOptions(tuple(sorted(map(int, counts))), preset, names, repeats, limit, steps)
    measured = {
        Bench.TRAIN: lambda: core.bench_train(options, where),
        Bench.ROLLOUT: lambda: core.bench_rollout(options, where),
        Bench.SCAN: lambda: core.bench_scan(options, where),
        Bench.DATA: lambda: core.bench_data(options, data),
    }
    points = []
    for point in measured[what]():
        points.append(point)
        size = f", {point.bytes:,} bytes" if point.bytes else ""
        say(f"{point.name:>22} {point.frames:>6} frames: {1000 * point.seconds:10.1f} ms{size}")
    figures = summary(what.value, points, asdict(options), where)
    write_json(out / f"{what.value}.json", figures)
    plot(what.value, points, out / f"{what.value}.png")
    if json:
        show_json(figures)
        return
    for name, found in figures["ratios"].items():
        say(f"{name}: " + "  ".join(f"{ratio} = {value}" for ratio, value in found.items()))
    say(f"{out / what.value}.json, .png")
