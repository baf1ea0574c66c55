"""`lssvwm bench`: what things cost against frames, and how good frames are against denoising steps."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from lssvwm_cli.console import progress, say, show_json


class Bench(StrEnum):
    TRAIN = "train"
    ROLLOUT = "rollout"
    SCAN = "scan"
    ATTENTION = "attention"
    DATA = "data"
    QUALITY = "quality"


FRAMES = {
    Bench.TRAIN: "100,200,400,800,1600,3200",
    Bench.ROLLOUT: "100,300,1000,3000,10000",
    Bench.SCAN: "100,200,400,800,1600,3200",
    Bench.ATTENTION: "100,200,400,800",
    Bench.DATA: "100,200,400,800",
}
OF_QUALITY = "Of bench quality"


def bench(
    what: Annotated[
        Bench,
        typer.Argument(help="What costs: a training step, a frame, the scan, attention, a clip read. Or quality."),
    ],
    preset: Annotated[str, typer.Option(help="tiny, small or base.")] = "tiny",
    variants: Annotated[
        str, typer.Option(help="Models to compare, with commas. [default: ours and the baselines]")
    ] = "",
    frames: Annotated[
        str, typer.Option(help="Where to measure, with commas. [default: 100 to 3200; rollouts 100 to 10000]")
    ] = "",
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="model.FIELD=VALUE, such as model.patch=1 for 16 tokens a frame.")
    ] = None,
    repeats: Annotated[int, typer.Option(min=1, help="Measurements of each point; the median counts.")] = 3,
    limit: Annotated[float, typer.Option(help="Leave out sizes that take more seconds than this.")] = 60.0,
    compile_: Annotated[
        bool, typer.Option("--compile/--no-compile", help="Compile the layers first, for bench train and rollout.")
    ] = False,
    steps: Annotated[str, typer.Option(help="Denoising steps a chunk. [default: 8; quality: 1,2,4,8,16]")] = "",
    data: Annotated[str | None, typer.Option(help="Shards, for bench data and quality. [default: data/maze]")] = None,
    checkpoint: Annotated[
        list[str] | None,
        typer.Option(help="A world; given again, another beside it. [default: latest]", rich_help_panel=OF_QUALITY),
    ] = None,
    context: Annotated[int, typer.Option(min=1, help="Frames seen first.", rich_help_panel=OF_QUALITY)] = 100,
    episodes: Annotated[int, typer.Option(min=1, help="Validation episodes.", rich_help_panel=OF_QUALITY)] = 4,
    shifts: Annotated[
        str, typer.Option(help="Schedules: 1 is even, 3 finer at high noise.", rich_help_panel=OF_QUALITY)
    ] = "1",
    chunk: Annotated[int | None, typer.Option(help="Frames generated together.", rich_help_panel=OF_QUALITY)] = None,
    seed: Annotated[int, typer.Option(help="Seed of the rollouts.", rich_help_panel=OF_QUALITY)] = 0,
    out: Annotated[Path, typer.Option(help="Folder of `<what>.json` and `<what>.png`.")] = Path("bench"),
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    json: Annotated[bool, typer.Option("--json", help="Print the figures to stdout as JSON.")] = False,
) -> None:
    """Measure costs against frames (the paper's figure 8), as JSON and a plot; every ratio is of one run.

    `quality` measures retrieval instead: PSNR, SSIM, sharpness and speed against denoising steps.
    """
    from dataclasses import asdict

    from lssvwm_core.bench import timing as core
    from lssvwm_core.bench.costs import plot, summary
    from lssvwm_core.device import pick_device
    from lssvwm_core.model.variants import VARIANTS
    from lssvwm_core.presets import PRESETS
    from lssvwm_core.resolve import resolve_data
    from lssvwm_datasets.errors import LssvwmError
    from lssvwm_datasets.files import write_json

    where = pick_device(device)
    if what is Bench.QUALITY:
        figures = _quality(
            checkpoint or [None],
            resolve_data(data, samples=True),
            where,
            chunk,
            out,
            {
                "steps": _numbers("--steps", steps or "1,2,4,8,16"),
                "shifts": _numbers("--shifts", shifts, float),
                "context": context,
                "frames": _number("--frames", frames or "100"),
                "episodes": episodes,
                "seed": seed,
            },
        )
        if json:
            show_json(figures)
        return
    counts = (frames or FRAMES[what]).split(",")
    if not all(count.strip().isdigit() and int(count) % 5 == 0 and int(count) for count in counts):
        raise LssvwmError(f"--frames {frames}: expected numbers of frames, multiples of the chunk, 5")
    names = tuple(filter(None, variants.split(","))) or core.COMPARED
    unknown = [name for name in names if name not in VARIANTS]
    if unknown or preset not in PRESETS:
        expected = f"--variants of {', '.join(VARIANTS)} and --preset of {', '.join(PRESETS)}"
        raise LssvwmError(f"{', '.join(unknown) or preset}: unknown; expected {expected}")
    options = core.BenchOptions(
        tuple(sorted(map(int, counts))),
        preset,
        names,
        repeats,
        limit,
        _number("--steps", steps or "8"),
        model=_model_fields(set_ or []),
        compile=compile_,
    )
    try:
        options.config()
    except (ValueError, TypeError) as error:
        raise LssvwmError(f"--set {' '.join(set_ or [])}: {error}") from error
    measured = {
        Bench.TRAIN: lambda: core.bench_train(options, where),
        Bench.ROLLOUT: lambda: core.bench_rollout(options, where),
        Bench.SCAN: lambda: core.bench_scan(options, where),
        Bench.ATTENTION: lambda: core.bench_attention(options, where),
        Bench.DATA: lambda: core.bench_data(options, resolve_data(data)),
    }
    points = []
    for point in measured[what]():
        points.append(point)
        size = f", {point.bytes:,} bytes" if point.bytes else ""
        say(f"{point.label:>41} {point.frames:>6} frames: {1000 * point.seconds:10.1f} ms{size}")
    peak = core.matmul_speed(where) if what is Bench.TRAIN else None
    figures = summary(what.value, points, asdict(options), where, peak)
    write_json(out / f"{what.value}.json", figures)
    plot(what.value, points, out / f"{what.value}.png")
    if json:
        show_json(figures)
        return
    for name, found in figures["ratios"].items():
        say(f"{name}: " + "  ".join(f"{ratio} = {value}" for ratio, value in found.items()))
    say(f"{out / what.value}.json, .png")


def _model_fields(overrides: list[str]) -> dict[str, Any]:
    """Raises: LssvwmError for overrides of anything but the model."""
    from lssvwm_core.training.run.config import parse_override
    from lssvwm_datasets.errors import LssvwmError

    fields = {}
    for section, name, value in map(parse_override, overrides):
        if section != "model":
            raise LssvwmError(f"--set {section}.{name}: bench sets fields of the model alone, as model.patch=1")
        fields[name] = value
    return fields


def _quality(
    checkpoints: list[str] | list[None], data: Path, device: Any, chunk: int | None, out: Path, wanted: dict[str, Any]
) -> dict[str, Any]:
    from dataclasses import asdict

    from lssvwm_core.bench.costs import machine
    from lssvwm_core.bench.quality import QualityOptions, bench_quality, plot, settings, summarise, table
    from lssvwm_core.resolve import resolve_world
    from lssvwm_core.training.run.folder import run_facts
    from lssvwm_core.world import load_world
    from lssvwm_datasets.files import write_json

    options, worlds = QualityOptions(**wanted), {}
    for checkpoint in checkpoints:
        folder = resolve_world(checkpoint)
        name = run_facts(folder).name
        worlds[str(checkpoint) if name in worlds else name] = load_world(folder, device).sampled_with(chunk=chunk)
    rollouts, total = [], options.episodes * len(worlds) * (1 + len(settings(options)))
    with progress("Measuring quality", total, "rollouts") as update:
        for rollout in bench_quality(worlds, data, options):
            rollouts.append(rollout)
            update(len(rollouts), f"{rollout.world}, {rollout.steps} steps: {rollout.psnr:.2f} dB")
    rows = summarise(rollouts)
    figures = {
        "bench": "quality",
        **machine(device),
        "options": asdict(options),
        "defaults": {name: world.steps for name, world in worlds.items()},
        "rows": [asdict(row) for row in rows],
        "rollouts": [asdict(rollout) for rollout in rollouts],
    }
    write_json(out / "quality.json", figures)
    plot(rows, out / "quality.png")
    say(table(rows))
    say(f"{out / 'quality.json'}, .png")
    return figures


def _numbers(option: str, text: str, kind: type[int] | type[float] = int) -> tuple[Any, ...]:
    """Numbers with commas, ascending. Raises: LssvwmError."""
    from lssvwm_datasets.errors import LssvwmError

    try:
        numbers = sorted({kind(part) for part in text.split(",")})
    except ValueError:
        numbers = []
    if not numbers or numbers[0] <= 0:
        raise LssvwmError(f"{option} {text}: expected numbers above 0, with commas between")
    return tuple(numbers)


def _number(option: str, text: str) -> int:
    from lssvwm_datasets.errors import LssvwmError

    numbers = _numbers(option, text)
    if len(numbers) > 1:
        raise LssvwmError(f"{option} {text}: expected one number")
    return int(numbers[0])
