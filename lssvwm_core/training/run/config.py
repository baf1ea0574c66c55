"""The config of a training run: dataclasses, TOML files, and overrides from the command line."""

import dataclasses
import json
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tomli_w

from lssvwm_core.model.config import ModelConfig, with_current_names
from lssvwm_core.presets import PRESETS, Stage
from lssvwm_core.sampling import DEFAULT_STEPS, Euler, Sampler
from lssvwm_core.training.data.clips import ClipSampling
from lssvwm_datasets.errors import LssvwmError
from lssvwm_datasets.files import written_whole
from lssvwm_datasets.schema import read_toml


@dataclass(frozen=True)
class TrainConfig:
    """Every field can be set in a TOML file (`[train]`) or with `--set train.FIELD=VALUE`."""

    stages: tuple[Stage, ...]
    """Clip lengths in turn."""
    steps: int = 0
    """Where to end; 0: after the last stage. More steps than the stages have prolong the last one."""
    learning_rate: float = 1e-3
    warmup_steps: int = 200
    decay_share: float = 0.2
    """The last part of the steps, in which the learning rate falls to zero."""
    weight_decay: float = 0.01
    clip_norm: float = 1.0
    """Gradients are scaled down to this norm."""
    ema_decay: float = 0.999
    accumulate: int = 1
    """Batches whose gradients are summed before a step."""
    prefix_probability: float = 0.5
    """Of a clean prefix longer than half the clip: long-context training (paper: 0.5)."""
    activation_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, a third more time."""
    compile: bool = False
    """Compile the layers (torch.compile): slow first steps, faster ones from then on."""
    shard_model: bool = False
    """Share weights, gradients, EMA and optimiser out over the processes (FSDP2): for models too large for one GPU."""
    precision: str = "auto"
    """bf16, fp32, or auto: bf16 on CUDA, on CPUs with AMX and on AMD's with AVX512-BF16."""
    seed: int = 0
    log_every: int = 10
    checkpoint_every: int = 500
    keep_checkpoints: int = 2
    sample_every: int = 2000
    """Steps between sample videos (0: none)."""
    workers: int = 0
    """Processes that read clips (0: in the training process)."""
    track: tuple[str, ...] = ()
    """Experiment trackers beside metrics.jsonl: tensorboard, trackio, wandb."""

    def __post_init__(self) -> None:
        if not self.stages:
            raise ValueError("no stages; expected at least one, as { frames = 40, steps = 4000, batch_size = 8 }")
        if self.precision not in ("auto", "bf16", "fp32"):
            raise ValueError(f"precision is {self.precision!r}; expected auto, bf16 or fp32")
        for name in ("log_every", "checkpoint_every", "accumulate", "keep_checkpoints"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; expected at least 1")

    @property
    def total_steps(self) -> int:
        return self.steps or sum(stage.steps for stage in self.stages)

    def stage_ends(self) -> list[tuple[int, Stage]]:
        """(last step + 1, stage) of every stage that is reached; the last ends with the training."""
        ends, end = [], 0
        for stage in self.stages:
            if end < self.total_steps:
                end += stage.steps
                ends.append((end, stage))
        return [*ends[:-1], (self.total_steps, ends[-1][1])]


@dataclass(frozen=True)
class DistillConfig:
    """Of a run whose model is a student: it learns to make in fewer steps what its teacher makes."""

    teacher: str
    """Its name; the run keeps a copy."""
    teacher_steps: int
    """Denoising steps a chunk of the teacher; a multiple of the student's."""
    steps: int
    """Those of the student, which its world is sampled with."""

    def __post_init__(self) -> None:
        if self.steps < 1 or self.steps >= self.teacher_steps or self.teacher_steps % self.steps:
            raise ValueError(
                f"{self.steps} steps of the student for {self.teacher_steps} of the teacher; expected fewer, and a "
                "number that divides the teacher's"
            )


@dataclass(frozen=True)
class RunConfig:
    """What a run is: the data, the model, the training. Saved as `config.toml` in the run's folder."""

    preset: str
    data: str
    train: TrainConfig
    sampling: ClipSampling = field(default_factory=ClipSampling)
    model: dict[str, Any] = field(default_factory=dict)
    """Fields of the model that differ from the preset's."""
    distill: DistillConfig | None = None

    @property
    def sampler(self) -> Sampler:
        """How the world is sampled by default."""
        return Euler(self.distill.steps if self.distill else DEFAULT_STEPS)


def make_config(preset: str, data: Path, file: Path | None, overrides: Sequence[str]) -> RunConfig:
    """Defaults of the preset, then the TOML file, then `section.field=value` overrides.

    Raises: LssvwmError naming the file or override, the field, what was found and what is expected.
    """
    values: dict[str, dict[str, Any]] = {"train": {}, "sampling": {}, "model": {}}
    if file is not None:
        loaded = read_toml(file)
        preset = loaded.pop("preset", preset)
        for section, fields_ in loaded.items():
            if section not in values or not isinstance(fields_, dict):
                raise LssvwmError(
                    f"{file}: unknown section [{section}]; expected preset, [model], [sampling] or [train]"
                )
            values[section] |= fields_
    for override in overrides:
        section, name, value = parse_override(override)
        values[section][name] = value
    if preset not in PRESETS:
        raise LssvwmError(f"unknown preset {preset!r}; expected one of {', '.join(PRESETS)}")
    train = {"stages": PRESETS[preset].stages, "learning_rate": PRESETS[preset].learning_rate, **values["train"]}
    return _build(str(file or "--set"), preset, str(data), train, values["sampling"], values["model"])


def with_model(config: RunConfig, model: ModelConfig) -> RunConfig:
    """The config with the shape of this model; what the data gives stays the data's."""
    columns = ("action_names", "pose_names", "pose_kinds", "stream_names")
    given_by_data = ("latent_shape", *columns, "action_scaling", "odometry")
    fields = {name: value for name, value in dataclasses.asdict(model).items() if name not in given_by_data}
    return dataclasses.replace(config, model=json.loads(json.dumps(fields)))  # with lists, as TOML reads them


def with_distillation(config: RunConfig, model: ModelConfig, teacher: str, teacher_steps: int, steps: int) -> RunConfig:
    """The config of a student of this model. Raises: LssvwmError for steps that do not fit the teacher's."""
    try:
        distill = DistillConfig(teacher, teacher_steps, steps)
    except ValueError as error:
        raise LssvwmError(f"[distill] {error}") from error
    return dataclasses.replace(with_model(config, model), distill=distill)


def parse_override(text: str) -> tuple[str, str, Any]:
    """`section.field=value`, the value as in TOML (bare words are strings). Raises: LssvwmError."""
    key, equals, value = text.partition("=")
    section, dot, name = key.strip().partition(".")
    if not equals or not dot or section not in ("train", "sampling", "model"):
        raise LssvwmError(f"--set {text}: expected model.FIELD=VALUE, sampling.FIELD=VALUE or train.FIELD=VALUE")
    try:
        return section, name, tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        return section, name, value.strip()


def save_run_config(path: Path, config: RunConfig) -> None:
    values = {name: value for name, value in dataclasses.asdict(config).items() if value is not None}
    with written_whole(path) as partial:
        partial.write_text(tomli_w.dumps(values))


def load_run_config(path: Path) -> RunConfig:
    """Read a run's `config.toml`. Raises: LssvwmError."""
    values = read_toml(path)
    missing = {"preset", "data", "train"} - set(values)
    if missing:
        raise LssvwmError(f"{path}: no {', '.join(sorted(missing))}; is it the config of a run?")
    sections = [values.get(name, {}) for name in ("train", "sampling", "model")]
    config = _build(str(path), values["preset"], values["data"], *sections)
    if "distill" not in values:
        return config
    return dataclasses.replace(config, distill=_section(str(path), "distill", DistillConfig, values["distill"]))


def _build(
    where: str, preset: str, data: str, train: dict[str, Any], sampling: dict[str, Any], model: dict[str, Any]
) -> RunConfig:
    stages = train.get("stages", ())
    if not isinstance(stages, list | tuple):
        raise LssvwmError(f"{where}: [train] stages is {stages!r}, expected a list of tables")
    train = {**train, "stages": tuple(_section(where, "train.stages", Stage, stage) for stage in stages)}
    if "track" in train:
        train["track"] = tuple(train["track"])
    return RunConfig(
        preset=preset,
        data=data,
        train=_section(where, "train", TrainConfig, train),
        sampling=_section(where, "sampling", ClipSampling, sampling),
        model=with_current_names(model),
    )


def _section(where: str, name: str, section: Any, values: Any) -> Any:
    """Build a dataclass, checking names and types of its fields."""
    if isinstance(values, section):
        return values
    if not isinstance(values, dict):
        raise LssvwmError(f"{where}: [{name}] is {values!r}, expected a table")
    known = {field.name: field.type for field in dataclasses.fields(section)}
    for key, value in values.items():
        if key not in known:
            raise LssvwmError(f"{where}: [{name}] has no field {key!r}; expected some of {', '.join(known)}")
        expected = known[key]
        fits = (
            (expected is bool and isinstance(value, bool))
            or (expected is int and isinstance(value, int) and not isinstance(value, bool))
            or (expected is float and isinstance(value, int | float) and not isinstance(value, bool))
            or (expected is str and isinstance(value, str))
            or expected not in (bool, int, float, str)
        )
        if not fits:
            wanted = getattr(expected, "__name__", expected)
            raise LssvwmError(f"{where}: [{name}] {key} is {value!r}, expected {wanted}")
    try:
        return section(**values)
    except (TypeError, ValueError) as error:
        raise LssvwmError(f"{where}: [{name}] {error}") from error
