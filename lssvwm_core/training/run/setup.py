"""What a training starts from: its run, its model, and data that fit the two."""

import shutil
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any

from accelerate.tracking import get_available_trackers

from lssvwm_core.model.config import ModelConfig
from lssvwm_core.model.storage import AUTOENCODER_FOLDER, weights_sha256
from lssvwm_core.model.world_model import WorldModel
from lssvwm_core.presets import preset
from lssvwm_core.training.data.odometry import Odometry
from lssvwm_core.training.run.config import RunConfig, TrainConfig, load_run_config
from lssvwm_core.training.run.folder import TEACHER_FOLDER, Run
from lssvwm_core.world import save_world
from lssvwm_datasets.errors import LssvwmError
from lssvwm_datasets.index import Statistics, read_index
from lssvwm_datasets.shards import ShardHeader, ShardSet

ActionScaling = tuple[tuple[float, float], ...]


def build_model(
    config: RunConfig, header: ShardHeader, action_scaling: ActionScaling = (), odometry: Odometry = ()
) -> WorldModel:
    """The model of a run: its preset for these latents, actions and poses. Raises: LssvwmError."""
    try:
        columns = {name: getattr(header, name) for name in ("action_names", "pose_names", "pose_kinds", "stream_names")}
        measured = {"action_scaling": action_scaling, "odometry": odometry}
        shape: dict[str, Any] = columns | measured | config.model
        model_config = preset(config.preset, header.latent_shape, **shape)
    except (ValueError, TypeError) as error:
        raise LssvwmError(f"[model] {error}") from error
    _check_stages(config.train, model_config)
    return WorldModel(model_config)


def open_run(folder: Path, config: RunConfig, resume: bool = True, adopt: bool = False) -> tuple[Run, RunConfig]:
    """The run to train: a new one, or the one that is there, continued.

    A run keeps its settings; how long to train, and whether compiled or sharded, may change. With `adopt` the settings
    of a run that is there are taken as they are, but for what it distils, else they must be those of `config`.
    Raises: LssvwmError.
    """
    run = Run(folder)
    if not run.config_file.exists():
        return run, config
    if not resume:
        raise LssvwmError(f"{folder}: there is a run already; continue it without --no-resume or choose another --name")
    saved = load_run_config(run.config_file)
    free = {name: getattr(config.train, name) for name in ("steps", "compile", "shard_model")}
    saved = replace(saved, train=replace(saved.train, **free))
    wanted = replace(config, train=replace(config.train, precision=saved.train.precision))
    differs = run.last is not None and wanted != saved and not adopt
    if differs or wanted.distill != saved.distill:
        raise LssvwmError(
            f"{folder}: was started with other settings ({_first_difference(saved, wanted)}); "
            "continue it with its own or choose another --name"
        )
    return run, saved


def action_scaling(shards: ShardSet) -> ActionScaling:
    """(mean, standard deviation) of each action column by the index; 0 and 1 for those that are 0 or 1 anyway."""
    statistics = read_index(shards.folder).action_statistics
    if not statistics:
        return ()
    rows = [statistics.get(name, Statistics(0.0, 1.0)) for name in shards.header.action_names]
    return tuple((row.mean, row.std or 1.0) for row in rows)


def check_same_data(header: ShardHeader, shards: ShardSet, owner: Path) -> None:
    """Raises: LssvwmError when shards have another autoencoder, action set or pose than a model was trained with."""
    for what, trained, found in (
        ("autoencoder", header.autoencoder_sha256[:12], shards.header.autoencoder_sha256[:12]),
        ("actions", header.action_names, shards.header.action_names),
        ("poses", header.pose_names, shards.header.pose_names),
        ("kinds of poses", header.pose_kinds, shards.header.pose_kinds),
        ("condition streams", header.stream_names, shards.header.stream_names),
        ("latent shape", header.latent_shape, shards.header.latent_shape),
    ):
        if trained != found:
            raise LssvwmError(
                f"{shards.folder}: {what} {found}; {owner} was trained with {trained}; prepare the data for it"
            )


def create_run(run: Run, shards: ShardSet, teacher: WorldModel | None = None) -> None:
    """Make the run's folder, with a copy of the autoencoder that lies beside the shards, and of the teacher if any."""
    autoencoder = shards.folder / AUTOENCODER_FOLDER
    if not autoencoder.is_dir() or weights_sha256(autoencoder) != shards.header.autoencoder_sha256:
        raise LssvwmError(f"{autoencoder}: not the autoencoder that made the shards ({shards.header.autoencoder})")
    run.checkpoints.mkdir(parents=True, exist_ok=True)
    shutil.copytree(autoencoder, run.folder / AUTOENCODER_FOLDER, dirs_exist_ok=True)
    if teacher is not None:
        save_world(run.folder / TEACHER_FOLDER, teacher, shards.header, f"../{AUTOENCODER_FOLDER}")


def _check_stages(config: TrainConfig, model: ModelConfig) -> None:
    for stage in config.stages:
        for chunk in model.chunk_sizes:
            if stage.frames % chunk or stage.frames < 2 * chunk:
                raise LssvwmError(
                    f"clips of {stage.frames} frames; expected a multiple of the chunk, {chunk}, and two at least"
                )


def check_trackers(wanted: tuple[str, ...]) -> None:
    installed = [str(tracker) for tracker in get_available_trackers()]
    missing = [tracker for tracker in wanted if tracker not in installed]
    if missing:
        raise LssvwmError(f"[train] track: {', '.join(missing)} is not installed; try: pip install {' '.join(missing)}")


def _first_difference(saved: Any, wanted: Any, where: str = "") -> str:
    for field in reversed(fields(saved)):  # what is distilled tells most
        was, is_, name = getattr(saved, field.name), getattr(wanted, field.name), f"{where}{field.name}"
        if was != is_:
            deeper = is_dataclass(was) and is_dataclass(is_)
            return _first_difference(was, is_, f"{name}.") if deeper else f"{name}: {was}, now {is_}"
    return "none"
