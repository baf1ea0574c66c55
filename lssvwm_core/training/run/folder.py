"""A run's folder, and what it tells of a world's training.

runs/<name>/  config.toml  metrics.jsonl  samples/*.mp4  autoencoder/
    checkpoints/000500/model/{config.json, model.safetensors}      EMA weights: a world, ready for the hub
    checkpoints/000500/training_state/{raw.safetensors, optimizer.pt, progress.json}
"""

from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

import tomli_w

from lssvwm_core.presets import PRESETS, Stage
from lssvwm_datasets.errors import LssvwmError
from lssvwm_datasets.schema import convert, read_json, read_toml

RUNS = Path("runs")
RUN_CONFIG_FILE, RECIPE_FILE = "config.toml", "recipe.toml"
ORIGIN_FILE = "origin.json"  # of a run that began with the weights of a world on the hub
MODEL_FOLDER, STATE_FOLDER = "model", "training_state"
TEACHER_FOLDER = "teacher"  # of a run that distils: a copy, as the teacher's own run may drop its checkpoint


@dataclass(frozen=True)
class Run:
    folder: Path

    @property
    def config_file(self) -> Path:
        return self.folder / RUN_CONFIG_FILE

    @property
    def metrics_file(self) -> Path:
        return self.folder / "metrics.jsonl"

    @property
    def checkpoints(self) -> Path:
        return self.folder / "checkpoints"

    @property
    def samples(self) -> Path:
        return self.folder / "samples"

    def sample(self, step: int) -> Path:
        """The video of what the world of a step makes."""
        return self.samples / f"{step:06d}.mp4"

    def checkpoint(self, step: int) -> Path:
        return self.checkpoints / f"{step:06d}"

    def saved(self) -> list[Path]:
        """The folders of the checkpoints that are there, by their step; a folder appears when it is complete."""
        if not self.checkpoints.is_dir():
            return []
        named = [path for path in self.checkpoints.iterdir() if path.name.isascii() and path.name.isdigit()]
        return sorted((path for path in named if (path / MODEL_FOLDER).is_dir()), key=lambda path: int(path.name))

    @property
    def last(self) -> Path | None:
        """The folder of the last checkpoint, None before the first."""
        return next(reversed(self.saved()), None)

    @property
    def world(self) -> Path:
        """The world (EMA weights) of the last checkpoint. Raises: LssvwmError when there is none yet."""
        if self.last is None:
            raise LssvwmError(
                f"{self.folder}: no checkpoint yet; train it with: lssvwm train --name {self.folder.name}"
            )
        return self.last / MODEL_FOLDER


def run_of(path: Path) -> Run | None:
    """The run that lies at a path, or of which it names the last checkpoint: `runs/<name>/checkpoints/last[/model]`."""
    if path.parts[-3:] == ("checkpoints", "last", MODEL_FOLDER):
        path = path.parent
    folder = path.parents[1] if path.parts[-2:] == ("checkpoints", "last") else path
    return Run(folder) if (folder / "checkpoints").is_dir() else None


@dataclass(frozen=True)
class _Training:
    stages: tuple[Stage, ...] = ()
    steps: int = 0


@dataclass(frozen=True)
class _Recipe:
    """What a run's config and a world's recipe say of the clips."""

    preset: str = ""
    train: _Training = _Training()


def trained_frames(world: Path) -> int | None:
    """The longest clips that a world was trained on, from its run's config or its recipe; None where neither is."""
    checkpoint = world.resolve().parent
    in_run = checkpoint.parents[1] / RUN_CONFIG_FILE if checkpoint.name.isdigit() else None
    file = next((path for path in (in_run, world / RECIPE_FILE) if path is not None and path.is_file()), None)
    if file is None:
        return None
    recipe = convert(str(file), read_toml(file), _Recipe)
    stages = recipe.train.stages or (PRESETS[recipe.preset].stages if recipe.preset in PRESETS else ())
    steps = int(checkpoint.name) if file == in_run else recipe.train.steps or sum(stage.steps for stage in stages)
    starts = accumulate((stage.steps for stage in stages), initial=0)
    return max((stage.frames for start, stage in zip(starts, stages, strict=False) if start < steps), default=None)


@dataclass(frozen=True)
class RunFacts:
    """What the model card tells of a world's training, where it is known."""

    name: str
    config: str | None  # the run's config.toml, without the path of its data
    data: Path | None  # its shards
    step: int | None
    sample: Path | None
    base_model: str | None = None  # the world on the hub whose weights it began with
    folder: Path | None = None  # its run

    @property
    def title(self) -> str:
        return self.name if self.step is None else f"{self.name}, step {self.step}"


def run_facts(world: Path) -> RunFacts:
    """The facts of a world, from its run where it lies in one (`runs/<name>/checkpoints/<step>/model`).

    A world from the hub lies in the hub's cache, `models--<user>--<name>/snapshots/<revision>`.
    """
    checkpoint = world.resolve().parent
    run = checkpoint.parent.parent
    if not (checkpoint.name.isdigit() and (run / RUN_CONFIG_FILE).is_file()):
        name = world.parent.parent.name.rpartition("--")[2] if world.parent.name == "snapshots" else world.name
        return RunFacts(name, None, None, None, None)
    samples = sorted((run / "samples").glob("*.mp4"))
    config = read_toml(run / RUN_CONFIG_FILE)
    data = Path(convert(f"{run / RUN_CONFIG_FILE}: data", config.pop("data", ""), str))
    origin = read_json(run / ORIGIN_FILE, dict[str, str]) if (run / ORIGIN_FILE).is_file() else {}
    last = samples[-1] if samples else None
    return RunFacts(run.name, tomli_w.dumps(config), data, int(checkpoint.name), last, origin.get("base_model"), run)
