"""A run's folder, and what it tells of a world's training.

runs/<name>/  config.toml  metrics.jsonl  samples/*.mp4  autoencoder/
    checkpoints/000500/model/{config.json, model.safetensors}      EMA weights: a world, ready for the hub
    checkpoints/000500/training_state/{raw.safetensors, optimizer.pt, progress.json}
    checkpoints/last -> 000500
"""

from dataclasses import asdict, dataclass
from itertools import accumulate
from pathlib import Path

import tomli_w

from lssvwm_core.presets import PRESETS
from lssvwm_datasets.errors import LssvwmError
from lssvwm_datasets.schema import read_toml

RUNS = Path("runs")
RUN_CONFIG_FILE, RECIPE_FILE = "config.toml", "recipe.toml"
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
    def last(self) -> Path | None:
        """The folder of the last checkpoint, None before the first."""
        link = self.checkpoints / "last"
        return link.resolve() if link.exists() else None

    @property
    def world(self) -> Path:
        """The world (EMA weights) of the last checkpoint. Raises: LssvwmError when there is none yet."""
        if self.last is None:
            raise LssvwmError(
                f"{self.folder}: no checkpoint yet; train it with: lssvwm train --name {self.folder.name}"
            )
        return self.last / MODEL_FOLDER


def trained_frames(world: Path) -> int | None:
    """The longest clips that a world was trained on, from its run's config or its recipe; None where neither is."""
    checkpoint = world.resolve().parent
    in_run = checkpoint.parents[1] / RUN_CONFIG_FILE if checkpoint.name.isdigit() else None
    file = next((path for path in (in_run, world / RECIPE_FILE) if path is not None and path.is_file()), None)
    if file is None:
        return None
    values = read_toml(file)
    train = values.get("train", {})
    preset = PRESETS.get(values.get("preset", ""))
    stages = train.get("stages") or [asdict(stage) for stage in (preset.stages if preset else ())]
    step = int(checkpoint.name) if file == in_run else train.get("steps") or sum(stage["steps"] for stage in stages)
    starts = accumulate((stage["steps"] for stage in stages), initial=0)
    return max((stage["frames"] for start, stage in zip(starts, stages, strict=False) if start < step), default=None)


@dataclass(frozen=True)
class RunFacts:
    """What the model card tells of a world's training, where it is known."""

    name: str
    config: str | None  # the run's config.toml, without the path of its data
    data: Path | None  # its shards
    step: int | None
    sample: Path | None

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
    data = Path(config.pop("data"))
    return RunFacts(run.name, tomli_w.dumps(config), data, int(checkpoint.name), samples[-1] if samples else None)
