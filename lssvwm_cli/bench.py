"""`lssvwm bench`: what things cost against frames, and how good frames are against denoising steps."""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lssvwm_cli.compiling import keep_what_is_compiled
from lssvwm_cli.console import progress, say, show_json
from lssvwm_cli.options import Checkpoint, Chunk, Compile, Device, HeldOut, Json, Shards

if TYPE_CHECKING:
    import torch

    from lssvwm_core.bench.costs import Point

CLIPS, ROLLOUTS, SHORT = "100,200,400,800,1600,3200", "100,300,1000,3000,10000", "100,200,400,800"

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Measure costs against frames (the paper's figure 8), or quality against denoising steps; JSON and a plot.",
)

Frames = Annotated[str, typer.Option(help="Numbers of frames to measure at, with commas between.")]
Preset = Annotated[str, typer.Option(help="The model's preset: tiny, small or base.")]
Variants = Annotated[
    str, typer.Option(help="Models to compare, with commas between. [default: ours and four baselines]")
]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", help="A field of the model, as model.FIELD=VALUE: model.patch=1 gives 16 tokens a frame."),
]
Repeats = Annotated[int, typer.Option(min=1, help="Measurements of each size; their median counts.")]
Limit = Annotated[float, typer.Option(help="Leave out sizes that take more seconds than this.")]
Out = Annotated[Path, typer.Option(help="Folder to write the JSON file and the plot to.")]


@app.command()
def train(
    frames: Frames = CLIPS,
    preset: Preset = "tiny",
    variants: Variants = "",
    set_: Set = None,
    compile_: Compile = False,
    repeats: Repeats = 3,
    limit: Limit = 60.0,
    out: Out = Path("bench"),
    device: Device = "auto",
    json: Json = False,
) -> None:
    """Time a training step on clips of several lengths, and say how much of the device's speed it reaches."""
    from lssvwm_core.bench.subject import COMPARED, Subject
    from lssvwm_core.bench.timing import Timing, matmul_speed
    from lssvwm_core.bench.train import bench_train
    from lssvwm_core.device import pick_device
    from lssvwm_core.process import keep_freed_memory

    keep_freed_memory()
    if compile_:
        keep_what_is_compiled()
    where, counts, names = pick_device(device), _numbers("--frames", frames), _names(variants) or COMPARED
    model = _model_fields(set_)
    points = bench_train(Subject(preset, model), names, counts, Timing(repeats, limit), where, compile_)
    options = {"frames": counts, "preset": preset, "variants": names, "model": model, "compile": compile_}
    options |= {"repeats": repeats, "limit": limit}
    _tell(_all(points), options, where, out / "train", json, peak=matmul_speed(where))


@app.command()
def rollout(
    frames: Frames = ROLLOUTS,
    preset: Preset = "tiny",
    variants: Variants = "",
    steps: Annotated[int, typer.Option(min=1, help="Denoising steps for each chunk.")] = 8,
    set_: Set = None,
    compile_: Compile = False,
    repeats: Repeats = 3,
    limit: Limit = 60.0,
    out: Out = Path("bench"),
    device: Device = "auto",
    json: Json = False,
) -> None:
    """Time a generated frame after several numbers of frames, and measure the state that is carried along."""
    from lssvwm_core.bench.rollout import bench_rollout
    from lssvwm_core.bench.subject import COMPARED, Subject
    from lssvwm_core.bench.timing import Timing
    from lssvwm_core.device import pick_device

    if compile_:
        keep_what_is_compiled()
    where, counts, names = pick_device(device), _numbers("--frames", frames), _names(variants) or COMPARED
    model = _model_fields(set_)
    points = bench_rollout(Subject(preset, model), names, counts, Timing(repeats, limit), where, steps, compile_)
    options = {"frames": counts, "preset": preset, "variants": names, "steps": steps, "model": model}
    options |= {"compile": compile_, "repeats": repeats, "limit": limit}
    _tell(_all(points), options, where, out / "rollout", json)


@app.command()
def scan(
    frames: Frames = CLIPS,
    preset: Preset = "tiny",
    set_: Set = None,
    repeats: Repeats = 3,
    limit: Limit = 60.0,
    out: Out = Path("bench"),
    device: Device = "auto",
    json: Json = False,
) -> None:
    """Time the state-space scan alone, forward and backward, beside the recurrence as a loop."""
    from lssvwm_core.bench.scan import bench_scan
    from lssvwm_core.bench.subject import Subject
    from lssvwm_core.bench.timing import Timing
    from lssvwm_core.device import pick_device

    where, counts, model = pick_device(device), _numbers("--frames", frames), _model_fields(set_)
    points = bench_scan(Subject(preset, model), counts, Timing(repeats, limit), where)
    options = {"frames": counts, "preset": preset, "model": model, "repeats": repeats, "limit": limit}
    _tell(_all(points), options, where, out / "scan", json)


@app.command()
def attention(
    frames: Frames = SHORT,
    preset: Preset = "tiny",
    set_: Set = None,
    repeats: Repeats = 3,
    limit: Limit = 60.0,
    out: Out = Path("bench"),
    device: Device = "auto",
    json: Json = False,
) -> None:
    """Time frame-local attention, computed in several ways beside each other."""
    from lssvwm_core.bench.attention import bench_attention
    from lssvwm_core.bench.subject import Subject
    from lssvwm_core.bench.timing import Timing
    from lssvwm_core.device import pick_device

    where, counts, model = pick_device(device), _numbers("--frames", frames), _model_fields(set_)
    points = bench_attention(Subject(preset, model), counts, Timing(repeats, limit), where)
    options = {"frames": counts, "preset": preset, "model": model, "repeats": repeats, "limit": limit}
    _tell(_all(points), options, where, out / "attention", json)


@app.command()
def data(
    frames: Frames = SHORT,
    data: Shards = None,
    repeats: Repeats = 3,
    limit: Limit = 60.0,
    out: Out = Path("bench"),
    json: Json = False,
) -> None:
    """Time reading one random clip from shards, for clips of several lengths."""
    from lssvwm_core.bench.data import bench_data
    from lssvwm_core.bench.timing import Timing
    from lssvwm_core.device import pick_device
    from lssvwm_core.resolve import resolve_data

    folder, counts = resolve_data(data), _numbers("--frames", frames)
    options = {"frames": counts, "data": str(folder), "repeats": repeats, "limit": limit}
    _tell(_all(bench_data(folder, counts, Timing(repeats, limit))), options, pick_device("cpu"), out / "data", json)


@app.command()
def quality(
    checkpoint: Annotated[
        list[str] | None,
        typer.Option(help="A world; given again, another beside it. [default: the latest run, else the shipped world]"),
    ] = None,
    data: HeldOut = None,
    steps: Annotated[str, typer.Option(help="Denoising steps for each chunk, with commas between.")] = "1,2,4,8,16",
    shifts: Annotated[
        str, typer.Option(help="Schedules of noise levels, with commas: 1 is even, 3 finer at high noise.")
    ] = "1",
    context: Annotated[int, typer.Option(min=1, help="Frames that the world sees first.")] = 100,
    frames: Annotated[int, typer.Option(min=1, help="Frames to generate.")] = 100,
    episodes: Annotated[int, typer.Option(min=1, help="Validation episodes to measure at most.")] = 4,
    chunk: Chunk = None,
    seed: Annotated[int, typer.Option(help="Seed of the rollouts.")] = 0,
    out: Out = Path("bench"),
    device: Device = "auto",
    json: Json = False,
) -> None:
    """Measure PSNR, SSIM, sharpness and speed of rollouts on retrieval, against denoising steps."""
    from lssvwm_core.bench import quality as core
    from lssvwm_core.device import pick_device
    from lssvwm_core.resolve import resolve_data, resolve_world
    from lssvwm_core.training.run.folder import run_facts
    from lssvwm_core.world import load_world
    from lssvwm_datasets.files import write_json

    options = core.QualityOptions(
        _numbers("--steps", steps), _numbers("--shifts", shifts, float), context, frames, episodes, seed
    )
    source, where, worlds = resolve_data(data, samples=True), pick_device(device), {}
    names: list[str | None] = [*checkpoint] if checkpoint else [None]
    for named in names:
        folder = resolve_world(named)
        name = run_facts(folder).name
        worlds[str(named) if name in worlds else name] = load_world(folder, where).sampled_with(chunk=chunk)
    rollouts, total = [], options.episodes * len(worlds) * (1 + len(core.settings(options)))
    with progress("Measuring quality", total, "rollouts") as update:
        for rollout in core.bench_quality(worlds, source, options):
            rollouts.append(rollout)
            update(len(rollouts), f"{rollout.world}, {rollout.steps} steps: {rollout.psnr:.2f} dB")
    figures, rows = core.figures(worlds, rollouts, options, where), core.summarise(rollouts)
    write_json(out / "quality.json", figures)
    core.plot(rows, out / "quality.png")
    say(core.table(rows))
    say(f"{out / 'quality'}.json, .png")
    if json:
        show_json(figures)


@app.command()
def env(
    checkpoint: Checkpoint = None,
    data: HeldOut = None,
    batch: Annotated[int, typer.Option(min=1, help="Worlds to step one by one, and in one pass.")] = 16,
    chunk: Annotated[
        int | None, typer.Option(help="Frames that an action leads to. [default: the fewest that the world knows]")
    ] = None,
    repeats: Annotated[int, typer.Option(min=1, help="Measurements of each way; their median counts.")] = 10,
    out: Out = Path("bench"),
    device: Device = "auto",
    json: Json = False,
) -> None:
    """Measure steps per second of the gymnasium environment: worlds one by one against as many in one pass."""
    from dataclasses import asdict

    from lssvwm_core.bench.env import bench_env
    from lssvwm_core.process import keep_freed_memory
    from lssvwm_core.resolve import resolve_data
    from lssvwm_core.world import load_world
    from lssvwm_datasets.files import write_json

    keep_freed_memory()
    world = load_world(checkpoint, device)
    source = resolve_data(data, world.header.dataset, samples=True)
    speed = bench_env(world, source, batch, repeats, chunk)
    figures = asdict(speed) | {"times_faster": speed.times_faster, "device": str(world.device), "steps": world.steps}
    write_json(out / "env.json", figures)
    if json:
        show_json(figures)
        return
    say(f"{batch} worlds one by one: {speed.one_by_one:.1f} steps/s")
    say(f"{batch} worlds in one pass: {speed.together:.1f} steps/s, {speed.times_faster:.1f} times as many")
    say(f"{out / 'env.json'}")


def _all(points: "Iterable[Point]") -> "list[Point]":
    """Say each point as it is measured."""
    found = []
    for point in points:
        found.append(point)
        size = f", {point.bytes:,} bytes" if point.bytes else ""
        say(f"{point.label:>41} {point.frames:>6} frames: {1000 * point.seconds:10.1f} ms{size}")
    return found


def _tell(
    points: "list[Point]",
    options: dict[str, Any],
    device: "torch.device",
    out: Path,
    json: bool,
    peak: float | None = None,
) -> None:
    """Write OUT.json, then draw OUT.png, and say the ratios."""
    from lssvwm_core.bench.costs import plot, summary
    from lssvwm_datasets.files import write_json

    figures = summary(out.name, points, options, device, peak)
    write_json(out.with_name(f"{out.name}.json"), figures)
    plot(out.name, points, out.with_name(f"{out.name}.png"))
    if json:
        show_json(figures)
        return
    for name, found in figures["ratios"].items():
        say(f"{name}: " + "  ".join(f"{ratio} = {value}" for ratio, value in found.items()))
    say(f"{out}.json, .png")


def _model_fields(overrides: list[str] | None) -> dict[str, Any]:
    """Raises: LssvwmError for overrides of anything but the model."""
    from lssvwm_core.training.run.config import parse_override
    from lssvwm_datasets.errors import LssvwmError

    fields = {}
    for section, name, value in map(parse_override, overrides or []):
        if section != "model":
            raise LssvwmError(f"--set {section}.{name}: bench sets fields of the model alone, as model.patch=1")
        fields[name] = value
    return fields


def _names(text: str) -> tuple[str, ...]:
    return tuple(filter(None, text.split(",")))


def _numbers(option: str, text: str, kind: type[int] | type[float] = int) -> tuple[Any, ...]:
    """Numbers with commas between, ascending. Raises: LssvwmError."""
    import math

    from lssvwm_datasets.errors import LssvwmError

    try:
        numbers = sorted({kind(part) for part in text.split(",")})
    except ValueError:
        numbers = []
    if not numbers or not all(0 < number < math.inf for number in numbers):
        raise LssvwmError(f"{option} {text}: expected numbers above 0, with commas between")
    return tuple(numbers)
