"""A run's folder and its checkpoints.

runs/<name>/  config.toml  metrics.jsonl  samples/*.mp4  autoencoder/
    checkpoints/000500/model/{config.json, model.safetensors}      EMA weights: a world, ready for the hub
    checkpoints/000500/training_state/{raw.safetensors, optimizer.pt, progress.json}
    checkpoints/last -> 000500
"""

import json
import os
import shutil
from dataclasses import asdict, dataclass
from itertools import accumulate
from pathlib import Path

import safetensors
import torch
from safetensors.torch import load_file, save_file

from lssvwm_core.config import STAGES, read_toml
from lssvwm_core.model import storage
from lssvwm_core.model.storage import AUTOENCODER_FOLDER
from lssvwm_core.model.world_model import WorldModel
from lssvwm_core.world import save_world
from lssvwm_datasets.errors import LssvwmError
from lssvwm_datasets.shards import ShardHeader

RUNS = Path("runs")
CONFIG_FILE, RECIPE_FILE = "config.toml", "recipe.toml"
MODEL_FOLDER, STATE_FOLDER = "model", "training_state"
AUTOENCODER_FROM_CHECKPOINT = f"../../../{AUTOENCODER_FOLDER}"  # one copy a run


@dataclass(frozen=True)
class Run:
    folder: Path

    @property
    def config_file(self) -> Path:
        return self.folder / CONFIG_FILE

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


def latest_run(root: Path = RUNS) -> Run | None:
    """The run with the newest checkpoint, None when there is none."""
    links = [link for link in root.glob("*/checkpoints/last") if link.exists()]
    newest = max(links, key=lambda link: link.resolve().stat().st_mtime, default=None)
    return Run(newest.parent.parent) if newest else None


def resolve_world(name: str | None) -> Path:
    """The folder of a world: a run or its name, a world's folder, a shipped name or a hub id.

    None: the latest run's, else the small world that ships with the package. Raises: LssvwmError.
    """
    if name is None:
        run = latest_run()
        shipped = [path for path in storage.shipped_models().values() if "world" in path.name]
        if run is None and not shipped:
            raise LssvwmError(
                "no trained world: none ships with this build and runs/ has none; train one: lssvwm train"
            )
        return run.world if run else shipped[0]
    for folder in (Path(name), RUNS / name):
        if (folder / "checkpoints").is_dir():
            return Run(folder).world
        if (folder / MODEL_FOLDER / storage.CONFIG_FILE).is_file():
            return folder / MODEL_FOLDER
    return storage.resolve_model(name)


def trained_frames(world: Path) -> int | None:
    """The longest clips that a world was trained on, from its run's config or its recipe; None where neither is."""
    checkpoint = world.resolve().parent
    in_run = checkpoint.parents[1] / CONFIG_FILE if checkpoint.name.isdigit() else None
    file = next((path for path in (in_run, world / RECIPE_FILE) if path is not None and path.is_file()), None)
    if file is None:
        return None
    values = read_toml(file)
    train = values.get("train", {})
    stages = train.get("stages") or [asdict(stage) for stage in STAGES.get(values.get("preset", ""), ())]
    step = int(checkpoint.name) if file == in_run else train.get("steps") or sum(stage["steps"] for stage in stages)
    starts = accumulate((stage["steps"] for stage in stages), initial=0)
    return max((stage["frames"] for start, stage in zip(starts, stages, strict=False) if start < step), default=None)


def save_checkpoint(
    run: Run,
    step: int,
    model: WorldModel,
    average: WorldModel,
    optimizer: torch.optim.Optimizer,
    header: ShardHeader,
    keep: int,
) -> Path:
    """Write a checkpoint whole, point `last` to it, and remove all but the newest `keep`."""
    final = run.checkpoints / f"{step:06d}"
    partial = run.checkpoints / f".{step:06d}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    save_world(partial / MODEL_FOLDER, average, header, AUTOENCODER_FROM_CHECKPOINT)
    state = partial / STATE_FOLDER
    state.mkdir()
    save_file({name: tensor.contiguous() for name, tensor in model.state_dict().items()}, state / "raw.safetensors")
    torch.save(optimizer.state_dict(), state / "optimizer.pt")
    (state / "progress.json").write_text(json.dumps({"step": step}))
    shutil.rmtree(final, ignore_errors=True)
    os.replace(partial, final)
    link = run.checkpoints / ".last"
    link.unlink(missing_ok=True)
    link.symlink_to(final.name)
    os.replace(link, run.checkpoints / "last")
    complete = sorted(path for path in run.checkpoints.iterdir() if path.name.isdigit())
    for old in complete[:-keep]:
        shutil.rmtree(old)
    return final


def load_checkpoint(checkpoint: Path, model: WorldModel, average: WorldModel, optimizer: torch.optim.Optimizer) -> int:
    """Restore everything and return the step. Raises: LssvwmError when a file is missing or damaged."""
    state = checkpoint / STATE_FOLDER
    storage.load_weights(checkpoint / MODEL_FOLDER, average)
    try:
        model.load_state_dict(load_file(state / "raw.safetensors"))
        optimizer.load_state_dict(torch.load(state / "optimizer.pt", weights_only=True))
        step = int(json.loads((state / "progress.json").read_text())["step"])
    except (OSError, ValueError, RuntimeError, KeyError, EOFError, safetensors.SafetensorError) as error:
        raise LssvwmError(
            f"{checkpoint}: damaged checkpoint ({error}); point {checkpoint.parent / 'last'} to an earlier one, "
            "or start anew with another --name"
        ) from error
    return step


def drop_metrics_after(path: Path, step: int) -> None:
    """Forget the lines of steps that are about to be done again."""
    if path.exists():
        lines = path.read_text().splitlines()
        kept = [line for line in lines if line.endswith("}") and json.loads(line)["step"] <= step]
        path.write_text("".join(f"{line}\n" for line in kept))
