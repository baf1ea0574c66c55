"""`lssvwm bench`: what things cost against frames, and how good frames are against denoising steps."""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lssvwm_cli.completion import presets, runs
from lssvwm_cli.console import progress, say, show_json

if TYPE_CHECKING:
    import torch

    from lssvwm_core.bench.costs import Point
    from lssvwm_core.bench.timing import BenchOptions

app = typer.Typer(
    help="Measure costs against frames (the paper's figure 8) and quality against steps; every ratio is of one run.",
    no_args_is_help=True,
)

Preset = Annotated[str, typer.Option(help="The model that is measured: tiny, small or base.", autocompletion=presets)]
Variants = Annotated[str, typer.Option(help="Models to compare, with commas. [default: ours and the baselines]")]
Set = Annotated[
    list[str] | None, typer.Option("--set", help="model.FIELD=VALUE, such as model.patch=1 for 16 tokens a frame.")
]
Frames = Annotated[str, typer.Option(help="Numbers of frames to measure at, with commas; multiples of the chunk, 5.")]
Repeats = Annotated[int, typer.Option(min=1, help="Measurements of each point; the median counts.")]
Limit = Annotated[float, typer.Option(help="Leave out sizes of which one measurement takes more seconds than this.")]
Compile = Annotated[bool, typer.Option("--compile/--no-compile", help="Compile the layers first (torch.compile).")]
Data = Annotated[str | None, typer.Option(help="Folder of shards, or a hub id. [default: data/maze]")]
Out = Annotated[Path, typer.Option(help="Folder of the figures, as JSON and as a plot.")]
Device = Annotated[str, typer.Option(help="auto, cpu or cuda.")]
Json = Annotated[bool, typer.Option("--json", help="Print the figures to stdout as JSON.")]

CLIPS = "100,200,400,800,1600,3200"
OUT = Path("bench")


@app.command()
def train(
    preset: Preset = "tiny",
    variants: Variants = "",
    frames: Frames = CLIPS,
    set_: Set = None,
    compile_: Compile = False,
    repeats: Repeats = 3,
    limit: Limit = 60.0,
    out: Out = OUT,
    device: Device = "auto",
    json: Json = False,
) -> None:
    """A training step on a clip of so many frames, beside a large matrix product."""
    from lssvwm_core.bench.timing import bench_train, matmul_speed
    from lssvwm_core.device import pick_device

    where = pick_device(device)
    options = _options(frames, preset, set_, repeats, limit, variants=variants, compile=compile_)
    _measure("train", bench_train(options, where), options, where, out, json, peak=lambda: matmul_speed(where))


@app.command()
def rollout(
    preset: Preset = "tiny",
    variants: Variants = "",
    frames: Frames = "100,300,1000,3000,10000",
    steps: Annotated[int, typer.Option(min=1, help="Denoising steps a chunk.")] = 8,
    set_: Set = None,
    compile_: Compile = False,
    repeats: Repeats = 3,
    limit: Limit = 60.0,
    out: Out = OUT,
    device: Device = "auto",
    json: Json = False,
) -> None:
    """A generated frame, and the state's bytes, after so many frames."""
    from lssvwm_core.bench.timing import bench_rollout
    from lssvwm_core.device import pick_device

    where = pick_device(device)
    options = _options(frames, preset, set_, repeats, limit, variants=variants, compile=compile_, steps=steps)
    _measure("rollout", bench_rollout(options, where), options, where, out, json)


@app.command()
def scan(
    preset: Preset = "tiny",
    frames: Frames = CLIPS,
    set_: Set = None,
    repeats: Repeats = 3,
    limit: Limit = 60.0,
    out: Out = OUT,
    device: Device = "auto",
    json: Json = False,
) -> None:
    """The scan alone over the tokens of so many frames, beside the recurrence as a loop."""
    from lssvwm_core.bench.timing import bench_scan
    from lssvwm_core.device import pick_device

    where, options = pick_device(device), _options(frames, preset, set_, repeats, limit)
    _measure("scan", bench_scan(options, where), options, where, out, json)


@app.command()
def attention(
    preset: Preset = "tiny",
    frames: Frames = "100,200,400,800",
    set_: Set = None,
    repeats: Repeats = 3,
    limit: Limit = 60.0,
    out: Out = OUT,
    device: Device = "auto",
    json: Json = False,
) -> None:
    """Frame-local attention by each of the ways to compute it."""
    from lssvwm_core.bench.timing import bench_attention
    from lssvwm_core.device import pick_device

    where, options = pick_device(device), _options(frames, preset, set_, repeats, limit)
    _measure("attention", bench_attention(options, where), options, where, out, json)


@app.command()
def data(
    data: Data = None,
    frames: Frames = "100,200,400,800",
    repeats: Repeats = 3,
    limit: Limit = 60.0,
    out: Out = OUT,
    json: Json = False,
) -> None:
    """Reading a random clip of so many frames from shards."""
    from lssvwm_core.bench.timing import bench_data
    from lssvwm_core.device import pick_device
    from lssvwm_core.resolve import resolve_data

    options = _options(frames, "tiny", None, repeats, limit)
    _measure("data", bench_data(options, resolve_data(data)), options, pick_device("cpu"), out, json)


@app.command()
def quality(
    checkpoint: Annotated[
        list[str] | None,
        typer.Option(help="A world; given again, another beside it. [default: the latest run]", autocompletion=runs),
    ] = None,
    data: Annotated[
        str | None, typer.Option(help="Held-out shards or recordings. [default: data/maze, else the samples]")
    ] = None,
    steps: Annotated[str, typer.Option(help="Denoising steps a chunk, with commas.")] = "1,2,4,8,16",
    shifts: Annotated[str, typer.Option(help="Schedules of the steps: 1 is even, 3 finer at high noise.")] = "1",
    context: Annotated[int, typer.Option(min=1, help="Frames seen first.")] = 100,
    frames: Annotated[int, typer.Option(min=1, help="Frames to generate, back along the context's poses.")] = 100,
    episodes: Annotated[int, typer.Option(min=1, help="Validation episodes, at most.")] = 4,
    chunk: Annotated[int | None, typer.Option(help="Frames generated together. [default: the model's first]")] = None,
    seed: Annotated[int, typer.Option(help="Seed of the rollouts.")] = 0,
    out: Out = OUT,
    device: Device = "auto",
    json: Json = False,
) -> None:
    """PSNR, SSIM, sharpness and speed of retrieval against denoising steps."""
    from lssvwm_core.bench.quality import QualityOptions, bench_quality, load_worlds, rollouts_of, write_quality
    from lssvwm_core.device import pick_device
    from lssvwm_core.resolve import resolve_data

    options = QualityOptions(
        _numbers("--steps", steps, int), _numbers("--shifts", shifts, float), context, frames, episodes, seed
    )
    worlds, rollouts = load_worlds(checkpoint or [None], pick_device(device), chunk), []
    with progress("Measuring quality", rollouts_of(options, len(worlds)), "rollouts") as update:
        for measured in bench_quality(worlds, resolve_data(data, samples=True), options):
            rollouts.append(measured)
            update(len(rollouts), f"{measured.world}, {measured.steps} steps: {measured.psnr:.2f} dB")
    figures, table = write_quality(out, worlds, rollouts, options)
    if json:
        show_json(figures)
        return
    say(table)
    say(f"{out / 'quality.json'}, .png")


def _options(
    frames: str, preset: str, overrides: list[str] | None, repeats: int, limit: float, variants: str = "", **more: Any
) -> "BenchOptions":
    """What a benchmark of costs is asked for. Raises: LssvwmError."""
    from lssvwm_core.bench.timing import COMPARED, BenchOptions
    from lssvwm_core.model.variants import VARIANTS
    from lssvwm_core.presets import PRESETS
    from lssvwm_datasets.errors import LssvwmError

    counts = _numbers("--frames", frames, int)
    if any(count % 5 for count in counts):
        raise LssvwmError(f"--frames {frames}: expected numbers of frames, multiples of the chunk, 5")
    names = tuple(filter(None, variants.split(","))) or COMPARED
    unknown = [name for name in names if name not in VARIANTS]
    if unknown or preset not in PRESETS:
        expected = f"--variants of {', '.join(VARIANTS)} and --preset of {', '.join(PRESETS)}"
        raise LssvwmError(f"{', '.join(unknown) or preset}: unknown; expected {expected}")
    options = BenchOptions(counts, preset, names, repeats, limit, model=_model_fields(overrides or []), **more)
    try:
        options.config()
    except (ValueError, TypeError) as error:
        raise LssvwmError(f"--set {' '.join(overrides or [])}: {error}") from error
    return options


def _measure(
    what: str,
    measured: "Iterable[Point]",
    options: "BenchOptions",
    device: "torch.device",
    out: Path,
    json: bool,
    peak: Any = None,
) -> None:
    """Measure, showing each point, and write the figures; `peak` gives the device's, measured last."""
    from dataclasses import asdict

    from lssvwm_core.bench.costs import plot, summary
    from lssvwm_datasets.files import write_json

    points = []
    for point in measured:
        points.append(point)
        size = f", {point.bytes:,} bytes" if point.bytes else ""
        say(f"{point.label:>41} {point.frames:>6} frames: {1000 * point.seconds:10.1f} ms{size}")
    figures = summary(what, points, asdict(options), device, peak() if peak else None)
    write_json(out / f"{what}.json", figures)
    plot(what, points, out / f"{what}.png")
    if json:
        show_json(figures)
        return
    for name, found in figures["ratios"].items():
        say(f"{name}: " + "  ".join(f"{ratio} = {value}" for ratio, value in found.items()))
    say(f"{out / what}.json, .png")


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


def _numbers(option: str, text: str, kind: type[int] | type[float]) -> tuple[Any, ...]:
    """Numbers with commas, ascending. Raises: LssvwmError."""
    from lssvwm_datasets.errors import LssvwmError

    try:
        numbers = sorted({kind(part) for part in text.split(",")})
    except ValueError:
        numbers = []
    if not numbers or not 0 < numbers[0] <= numbers[-1] < float("inf"):
        raise LssvwmError(f"{option} {text}: expected numbers above 0, with commas between")
    return tuple(numbers)
