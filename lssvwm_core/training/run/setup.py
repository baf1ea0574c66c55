"""What a training starts from: its run, its model, and data that fit the two."""

import logging
import shutil
from collections.abc import Mapping
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import torch
from accelerate.tracking import get_available_trackers
from accelerate.utils import LoggerType

from lssvwm_core.hub.client import repository_of
from lssvwm_core.model.config import ModelConfig
from lssvwm_core.model.storage import AUTOENCODER_FOLDER, CONFIG_FILE, latents_sha256, weights_file
from lssvwm_core.model.world_model import WorldModel
from lssvwm_core.presets import carries, preset
from lssvwm_core.training.data.action_scaling import action_scaling
from lssvwm_core.training.data.odometry import odometry_fields
from lssvwm_core.training.data.recall_lengths import fit_recall_lengths
from lssvwm_core.training.run.config import RunConfig, TrainConfig, load_run_config
from lssvwm_core.training.run.folder import MODEL_FOLDER, ORIGIN_FILE, TEACHER_FOLDER, Run
from lssvwm_core.world import load_model, save_world
from lssvwm_datasets.errors import LssvwmError
from lssvwm_datasets.files import write_json, written_whole
from lssvwm_datasets.shards import ShardHeader, ShardSet

logger = logging.getLogger(__name__)

ODOMETRY = ("odometry", "odometry_pairs")  # fields of the model


def model_config(config: RunConfig, header: ShardHeader, measured: Mapping[str, Any] | None = None) -> ModelConfig:
    """The shape of a run's model: its preset for these latents, actions and poses.

    Args:
        measured: fields that were measured on the data; what the run's config says stands above them.

    Raises: LssvwmError.
    """
    try:
        columns = {name: getattr(header, name) for name in ("action_names", "pose_names", "pose_kinds", "stream_names")}
        shape = preset(config.preset, header.latent_shape, **{**columns, **(measured or {}), **config.model})
    except (ValueError, TypeError) as error:
        raise LssvwmError(f"[model] {error}") from error
    _check_stages(config.train, shape)
    return shape


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


def check_same_data(header: ShardHeader, shards: ShardSet, owner: Path) -> None:
    """Check that shards have the autoencoder, actions and poses that a model was trained with. Raises: LssvwmError."""
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
    if not autoencoder.is_dir() or latents_sha256(autoencoder) != shards.header.autoencoder_sha256:
        raise LssvwmError(f"{autoencoder}: not the autoencoder that made the shards ({shards.header.autoencoder})")
    run.checkpoints.mkdir(parents=True, exist_ok=True)
    for name in (CONFIG_FILE, weights_file(autoencoder).name):
        with written_whole(run.folder / AUTOENCODER_FOLDER / name) as partial:
            shutil.copyfile(autoencoder / name, partial)
    if teacher is not None:
        save_world(run.folder / TEACHER_FOLDER, teacher, shards.header, f"../{AUTOENCODER_FOLDER}")


def _check_stages(config: TrainConfig, model: ModelConfig) -> None:
    for stage in config.stages:
        for chunk in model.chunk_sizes:
            if stage.frames % chunk or stage.frames < 2 * chunk:
                raise LssvwmError(
                    f"clips of {stage.frames} frames; expected a multiple of the chunk, {chunk}, and two at least"
                )


def starting_model(
    run: Run, config: RunConfig, shards: ShardSet, init_from: Path | None, student_from: Path | None = None
) -> tuple[WorldModel, WorldModel | None]:
    """The model of a run, with the weights of `init_from` where it begins with them, and the teacher it begins with.

    A student begins with its teacher's weights, or with those of `student_from`.

    What is measured on the data (scaling of actions, odometry, length scales of the memory by least squares) is taken
    from the weights that know it, else measured.
    """
    origin = init_from if run.last is None else run.last / MODEL_FOLDER
    if origin is None and config.distill:
        raise LssvwmError(f"{run.folder}: distils {config.distill.teacher}; start it with: lssvwm distill")
    if origin is None and config.train.few:
        raise LssvwmError(f"{run.folder}: train.few adapts a world, and there is none yet; name one with --init-from")
    if origin is None:
        initial = None
        measured: dict[str, Any] = {"action_scaling": action_scaling(shards), **odometry_fields(shards)}
    else:
        initial, header, _ = load_model(origin)
        check_same_data(header, shards, origin)
        measured = {name: getattr(initial.config, name) for name in ("action_scaling", *ODOMETRY)}
        if initial.config.recall:
            measured["recall_lengths"] = initial.config.recall_lengths
        if run.last is not None:
            measured["recall"] = initial.config.recall  # today's preset may have what that of the run's start had not
            measured["patch"] = initial.config.patch
        if run.last is None and not config.distill and not initial.config.odometry:
            measured |= odometry_fields(shards)  # no weights depend on it
    shape = model_config(config, shards.header, measured)
    if shape.recall and not {"recall_lengths"} & {*measured, *config.model}:
        shape = replace(shape, recall_lengths=fit_recall_lengths(shards, shape))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.train.seed)
        model = WorldModel(shape)
    channels = shape.latent_shape[0]
    if run.last is None and not carries(shape.width, channels, shape.patch):
        logger.warning(
            "a token holds %d numbers of the latents, more than model.width=%d can carry: such a world shows what it "
            "remembers, but makes mush of what it has not seen; choose a smaller model.patch or a larger model.width",
            channels * shape.patch**2,
            shape.width,
        )
    if initial is None or run.last is not None:
        return model, None
    given: dict[str, Any] = {name: getattr(shape, name) for name in ODOMETRY}
    if not initial.config.recall:  # a memory can be added to a world that has none
        given |= {name: getattr(shape, name) for name in ("recall", "recall_lengths", "recall_ridge")}
    if not _is_of_shape(initial.config, given, shape):
        raise LssvwmError(f"{init_from}: its model differs from this run's; give the same preset and --set model.…")
    model.load_state_dict(model.state_dict() | initial.state_dict())
    if student_from is not None:
        student, header, _ = load_model(student_from)
        check_same_data(header, shards, student_from)
        if not _is_of_shape(student.config, given, shape):
            raise LssvwmError(f"{student_from}: its model differs from that of the teacher, {init_from}")
        model.load_state_dict(model.state_dict() | student.state_dict())
    if init_from is not None and (base_model := repository_of(init_from)):
        write_json(run.folder / ORIGIN_FILE, {"base_model": base_model})
    return model, initial if config.distill else None


def _is_of_shape(config: ModelConfig, given: dict[str, Any], shape: ModelConfig) -> bool:
    """Whether weights of a model are those of this shape, to which `given` is given anew.

    How many frames a memory by least squares keeps is no matter of weights.
    """
    if config.recall and shape.recall:
        given = {**given, "recall": shape.recall}
    return replace(config, **given) == shape


def check_trackers(wanted: tuple[str, ...]) -> None:
    """Check names of trackers. Raises: LssvwmError for one that is not known or not installed."""
    known, installed = [kind.value for kind in LoggerType if kind != LoggerType.ALL], get_available_trackers()
    for name in wanted:
        if name not in known:
            raise LssvwmError(f'[train] track: unknown {name!r}; expected some of {", ".join(known)}, as ["wandb"]')
        if name not in map(str, installed):
            raise LssvwmError(f"[train] track: {name} is not installed; try: pip install {name}")


def _first_difference(saved: Any, wanted: Any, where: str = "") -> str:
    for field in reversed(fields(saved)):  # what is distilled tells most
        was, is_, name = getattr(saved, field.name), getattr(wanted, field.name), f"{where}{field.name}"
        if was != is_:
            deeper = is_dataclass(was) and is_dataclass(is_)
            return _first_difference(was, is_, f"{name}.") if deeper else f"{name}: {was}, now {is_}"
    return "none"
