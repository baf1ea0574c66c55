"""The config of a run: dataclasses, TOML files, and overrides from the command line.

Every value is checked once, where it is read, by the type that its field declares; what several fields must be together
is checked when the section is made.
"""

import dataclasses
import math
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_type_hints

import tomli_w
from msgspec import Meta

from lssvwm_core.model.config import ModelConfig, with_current_names
from lssvwm_core.presets import PRESETS, Count, Share, Stage
from lssvwm_core.sampling import DEFAULT_STEPS, Euler, Sampler, make_sampler, sampler_settings, with_settings
from lssvwm_core.training.data.clips import ClipSampling
from lssvwm_datasets.errors import LssvwmError
from lssvwm_datasets.files import write_text
from lssvwm_datasets.schema import convert, read_toml

T = TypeVar("T")


@dataclass(frozen=True)
class TrainConfig:
    """Every field can be set in a TOML file (`[train]`) or with `--set train.FIELD=VALUE`."""

    stages: Annotated[tuple[Stage, ...], Meta(min_length=1)]
    """Clip lengths in turn."""
    steps: Annotated[int, Meta(ge=0, le=10**9)] = 0
    """Where to end; 0: after the last stage. More steps than the stages have prolong the last one."""
    learning_rate: Annotated[float, Meta(gt=0)] = 1e-3
    """The highest learning rate of AdamW."""
    warmup_steps: Annotated[int, Meta(ge=0, le=10**9)] = 200
    """The first steps, in which the learning rate rises from zero."""
    decay_share: Share = 0.2
    """The last part of the steps, in which the learning rate falls to zero."""
    weight_decay: Annotated[float, Meta(ge=0)] = 0.01
    """AdamW's."""
    clip_norm: Annotated[float, Meta(gt=0)] = 1.0
    """Gradients are scaled down to this norm."""
    ema_decay: Share = 0.999
    """The share that the moving average of the weights, which is what a world ships, keeps at each step."""
    accumulate: Count = 1
    """Batches whose gradients are summed before a step."""
    prefix_probability: Share = 0.5
    """Probability of a clean prefix longer than half the clip: long-context training (paper: 0.5)."""
    clean_probability: Share = 0.0
    """Probability that every second chunk after the prefix is clean too, and the others follow it as in a rollout."""
    few: bool = False
    """Learn a hundredth of the weights, biases, scales and what reads the memory: a world adapts and forgets little."""
    activation_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, a third more time."""
    compile: bool = False
    """Compile the layers (torch.compile): slow first steps, faster ones from then on."""
    shard_model: bool = False
    """Share weights, gradients, EMA and optimiser out over the processes (FSDP2): for models too large for one GPU."""
    precision: str = "auto"
    """bf16, fp32, or auto: bf16 on CUDA, on CPUs with AMX and on AMD's with AVX512-BF16."""
    seed: Annotated[int, Meta(ge=0, le=2**63 - 1)] = 0
    """Seed of the weights, the clips and the noise."""
    log_every: Count = 10
    """Steps between lines of metrics.jsonl."""
    checkpoint_every: Count = 500
    """Steps between checkpoints."""
    keep_checkpoints: Count = 2
    """The newest checkpoints that are kept."""
    sample_every: Annotated[int, Meta(ge=0, le=10**9)] = 2000
    """Steps between sample videos (0: none)."""
    workers: Annotated[int, Meta(ge=0, le=1024)] = 0
    """Processes that read clips (0: in the training process)."""
    track: tuple[str, ...] = ()
    """Experiment trackers beside metrics.jsonl: tensorboard, trackio, wandb. One may stand without brackets."""

    def __post_init__(self) -> None:
        if self.precision not in ("auto", "bf16", "fp32"):
            raise ValueError(f"precision is {self.precision!r}; expected auto, bf16 or fp32")

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
    """For a run whose model is a student: it learns to make in fewer steps what its teacher makes."""

    teacher: str
    """Its name; the run keeps a copy."""
    teacher_steps: Count
    """Denoising steps a chunk of the teacher; a multiple of the student's."""
    steps: Count
    """Those of the student, which its world is sampled with."""
    teacher_sampler: dict[str, Any] = field(default_factory=lambda: {"name": "euler", "shift": 1.0})
    """Any sampler, as a world's `config.json` names it, without its steps."""
    own_history: bool = False
    """Clips with a clean prefix go on from what the student makes, see `training.step.own_history`."""
    temperature: Share = 1.0
    """The student's, in its own history and as a world, see `sampling`."""

    def __post_init__(self) -> None:
        learns = self.taught.guidance or self.own_history  # else there is nothing to learn in as many steps
        fewest = self.steps if learns else self.steps + 1
        if self.steps < 1 or self.teacher_steps < fewest or self.teacher_steps % self.steps:
            raise ValueError(
                f"{self.steps} steps of the student for {self.teacher_steps} of the teacher; expected fewer, and a "
                "number that divides the teacher's"
            )
        visited, wanted = self.taught.levels()[:: self.teacher_steps // self.steps], self.sampler.levels()
        if not all(map(math.isclose, visited, wanted)):
            raise ValueError(f"the teacher's {self.taught} does not visit the student's noise levels, {wanted}")
        settings = sampler_settings(self.taught)
        settings.pop("steps")
        object.__setattr__(self, "teacher_sampler", settings)  # whole: files of before name fewer fields

    @property
    def taught(self) -> Sampler:
        """The teacher's sampler."""
        return make_sampler({**self.teacher_sampler, "steps": self.teacher_steps})

    @property
    def sampler(self) -> Sampler:
        """The student's: Euler's without guidance, since it learns one evaluation a step; over the same levels."""
        return Euler(self.steps, self.teacher_sampler.get("shift", 1.0), temperature=self.temperature)


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

    def __post_init__(self) -> None:
        if self.distill and self.distill.own_history and self.train.shard_model:
            raise LssvwmError("--own-history: every process rolls out by itself; leave train.shard_model out")

    @property
    def sampler(self) -> Sampler:
        """How the world is sampled by default."""
        return self.distill.sampler if self.distill else Euler(DEFAULT_STEPS)


SECTIONS = {"model": ModelConfig, "sampling": ClipSampling, "train": TrainConfig, "distill": DistillConfig}
SETTABLE = ("model", "sampling", "train")
COLUMNS = ("action_names", "pose_names", "pose_kinds", "stream_names")
GIVEN_BY_DATA = ("latent_shape", *COLUMNS, "action_scaling", "odometry", "odometry_pairs")


def make_config(
    preset: str,
    data: Path,
    file: Path | None = None,
    overrides: Sequence[str] = (),
    defaults: Mapping[str, Any] | None = None,
) -> RunConfig:
    """A new run's config: that of the preset, then the TOML file, then `section.field=value` overrides.

    Args:
        defaults: fields of `[train]` in which this kind of run differs from the preset.

    Raises: LssvwmError naming the file or override, the field, what was found and what is expected.
    """
    given: dict[str, dict[str, Any]] = {section: {} for section in SETTABLE}
    if file is not None:
        content = read_toml(file)
        preset = convert(f"{file}: preset", content.pop("preset", preset), str)
        for section, table in content.items():
            if section not in SETTABLE:
                raise LssvwmError(
                    f"{file}: unknown section [{section}]; expected preset, [model], [sampling] or [train]"
                )
            given[section] |= _checked_table(f"{file}: [{section}]", SECTIONS[section], table)
    for override in overrides:
        section, name, value = parse_override(override)
        given[section][name] = value
    if preset not in PRESETS:
        raise LssvwmError(f"unknown preset {preset!r}; expected one of {', '.join(PRESETS)}")
    chosen = PRESETS[preset]
    train = {"stages": chosen.stages, "learning_rate": chosen.learning_rate, **(defaults or {}), **given["train"]}
    return RunConfig(
        preset, str(data), _section("[train]", TrainConfig, train), ClipSampling(**given["sampling"]), given["model"]
    )


def with_model(config: RunConfig, model: ModelConfig) -> RunConfig:
    """The config with the shape of this model; what the data gives stays the data's."""
    values = {name: value for name, value in dataclasses.asdict(model).items() if name not in GIVEN_BY_DATA}
    return dataclasses.replace(config, model=values)


def with_distillation(
    config: RunConfig, model: ModelConfig, teacher: str, teacher_sampler: Sampler, steps: int, own_history: bool = False
) -> RunConfig:
    """The config of a student of this model, at the temperature of its teacher, who shows it all of the noise.

    Raises: LssvwmError for steps that do not fit the teacher's, and for a model or a training without own histories.
    """
    if own_history and not model.pose_names:
        raise LssvwmError(f"--own-history: {teacher} knows no poses, so nobody could tell which places were seen")
    settings = sampler_settings(with_settings(teacher_sampler, temperature=1.0))
    values = {"teacher": teacher, "teacher_steps": settings.pop("steps"), "steps": steps, "teacher_sampler": settings}
    values |= {"own_history": own_history, "temperature": teacher_sampler.temperature}
    return dataclasses.replace(with_model(config, model), distill=_section("[distill]", DistillConfig, values))


def parse_override(text: str) -> tuple[str, str, Any]:
    """Section, field and value of `section.field=value`, the value as in TOML; bare words are strings.

    Raises: LssvwmError for unknown sections and fields, and for values that are not of the field's type.
    """
    key, equals, value = text.partition("=")
    section, dot, name = key.strip().partition(".")
    if not equals or not dot or section not in SETTABLE:
        raise LssvwmError(f"--set {text}: expected model.FIELD=VALUE, sampling.FIELD=VALUE or train.FIELD=VALUE")
    try:
        parsed = tomllib.loads(f"value = {value}")["value"]
    except (tomllib.TOMLDecodeError, RecursionError):
        parsed = value.strip()
    shape, where = SECTIONS[section], f"--set {_short(text)}"
    [(name, parsed)] = _known(f"{where}: [{section}]", shape, {name: parsed}).items()
    return section, name, _checked_value(where, shape, name, parsed)


def save_run_config(path: Path, config: RunConfig) -> None:
    values = {name: value for name, value in dataclasses.asdict(config).items() if value is not None}
    write_text(path, tomli_w.dumps(values))


def load_run_config(path: Path) -> RunConfig:
    """Read a run's `config.toml`. Raises: LssvwmError naming the file and the field; OSError."""
    content = read_toml(path)
    missing = {"preset", "data", "train"} - set(content)
    if missing:
        raise LssvwmError(f"{path}: no {', '.join(sorted(missing))}; is it the config of a run?")
    values = {
        section: _checked_table(f"{path}: [{section}]", shape, content.get(section, {}))
        for section, shape in SECTIONS.items()
    }
    return RunConfig(
        preset=convert(f"{path}: preset", content["preset"], str),
        data=convert(f"{path}: data", content["data"], str),
        train=_section(f"{path}: [train]", TrainConfig, values["train"]),
        sampling=ClipSampling(**values["sampling"]),
        model=values["model"],
        distill=_section(f"{path}: [distill]", DistillConfig, values["distill"]) if "distill" in content else None,
    )


def _checked_table(where: str, shape: type, table: Any) -> dict[str, Any]:
    """The fields of a table, each by the type that `shape` declares."""
    fields = _known(where, shape, table)
    return {
        name: _checked_value(f"{where} {name} = {_short(repr(value))}", shape, name, value)
        for name, value in fields.items()
    }


def _known(where: str, shape: type, table: Any) -> dict[str, Any]:
    """A table with fields of `shape` only; a model may have the former names of its fields."""
    if not isinstance(table, dict):
        raise LssvwmError(f"{where} is {_short(repr(table))}, expected a table")
    table = with_current_names(table) if shape is ModelConfig else table
    names = [field.name for field in dataclasses.fields(shape)]
    for name in table:
        if name not in names:
            raise LssvwmError(f"{where} has no field {name!r}; expected some of {', '.join(names)}")
    return table


def _checked_value(where: str, shape: type, name: str, value: Any) -> Any:
    """The value of a field by its declared type. One text may stand for a list of one."""
    declared = get_type_hints(shape, include_extras=True)[name]
    if declared == tuple[str, ...] and isinstance(value, str):
        value = [value]
    if name == "stages" and isinstance(value, list):
        for number, stage in enumerate(value, start=1):
            _known(f"{where}: stage {number}", Stage, stage)
    return convert(where, value, declared)


def _section(where: str, shape: type[T], values: Mapping[str, Any]) -> T:
    """A section of checked values. Raises: LssvwmError for a field that is missing, or values that clash."""
    try:
        return shape(**values)
    except (TypeError, ValueError) as error:
        raise LssvwmError(f"{where} {str(error).removeprefix(shape.__name__ + '.__init__() ')}") from error


def _short(text: str) -> str:
    return text if len(text) <= 80 else f"{text[:77]}…"
