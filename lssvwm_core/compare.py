"""Trains variants of a model on the same data with one budget, evaluates them, and tells how they compare.

<out>/plan.json                    what is compared, and the steps that the budget gives each variant
<out>/runs/<variant>/              runs as of `lssvwm train`; they go on where they stopped
<out>/<task>/<variant>/            evaluations as of `lssvwm eval`
<out>/report.{json,md}, *.png      the comparison
"""

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from lssvwm_core.bench.train import step_seconds
from lssvwm_core.evaluation.comparison import write_comparison
from lssvwm_core.evaluation.run import EvalOptions
from lssvwm_core.evaluation.tasks import TASKS, Task, make_task
from lssvwm_core.evaluation.world_evaluation import WorldEvaluation, load_measures
from lssvwm_core.model.variants import parameters, training_fields, variant
from lssvwm_core.presets import Stage
from lssvwm_core.training.loop import train
from lssvwm_core.training.run.config import RunConfig, make_config
from lssvwm_core.training.run.folder import Run
from lssvwm_core.training.run.lock import locked
from lssvwm_core.training.run.setup import model_config, open_run
from lssvwm_core.training.run.stopping import Stop, never
from lssvwm_core.training.step.cost import step_cost
from lssvwm_core.training.step.metrics import StepReport
from lssvwm_core.world import load_world
from lssvwm_datasets.errors import LssvwmError
from lssvwm_datasets.files import write_json
from lssvwm_datasets.schema import convert, read_json
from lssvwm_datasets.shards import ShardHeader, open_shards
from lssvwm_datasets.sources import TRAIN

PLAN_FILE = "plan.json"
BUDGETS = ("steps", "minutes", "flops")


@dataclass(frozen=True)
class Scale:
    """What is trained and on what it is judged; `steps` of the stages are shares of the budget."""

    preset: str
    stages: tuple[Stage, ...]
    tasks: tuple[Task, ...]
    episodes: int


SCALES = {
    "cpu": Scale(
        "tiny",
        (Stage(40, 2, 6), Stage(100, 1, 3), Stage(200, 1, 2)),
        (make_task("retrieval", 100, 100), make_task("reasoning", 150, 50)),
        8,
    ),
    "small": Scale(
        "small",
        (Stage(100, 1, 8), Stage(400, 2, 4)),
        (make_task("retrieval", 200, 200), make_task("reasoning", 300, 100)),
        32,
    ),
    "paper": Scale("base", (Stage(400, 3, 4), Stage(800, 5, 4)), (TASKS["retrieval"], TASKS["reasoning"]), 64),
}


@dataclass(frozen=True)
class Budget:
    """What each training may take: steps, minutes on this machine, or flops (of matrix products, forward and back)."""

    kind: str
    amount: float

    @staticmethod
    def parse(text: str) -> "Budget":
        """`steps=2000`, `minutes=20`, `flops=1e16`. Raises: LssvwmError."""
        kind, _, amount = text.partition("=")
        try:
            budget = Budget(kind, float(amount))
        except ValueError:
            budget = Budget(kind, 0)
        if kind not in BUDGETS or not 0 < budget.amount < float("inf"):
            raise LssvwmError(f"--budget {text}: expected steps=2000, minutes=20 or flops=1e16")
        return budget


@dataclass(frozen=True)
class Job:
    """One training or evaluation: `run` yields (units done, note)."""

    title: str
    total: int
    unit: str
    run: Callable[[], Iterator[tuple[int, str]]]
    ends_itself: bool = False
    """Asked to stop, it saves first; others may be left between two units."""


@dataclass(frozen=True)
class Plan:
    """The content of `plan.json`."""

    comparison: dict[str, Any]
    """What is compared: another comparison needs a folder of its own."""
    steps: dict[str, list[int]] = field(default_factory=dict)
    """Steps of each stage, by variant."""
    parameters: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Comparison:
    variants: tuple[str, ...]
    scale: Scale
    budget: Budget
    data: Path
    out: Path
    overrides: tuple[str, ...] = ()
    """As `--set` of training, for every variant."""
    seed: int = 0
    batch: int = 4
    lpips_weights: Path | None = None

    def jobs(self, device: torch.device, stop: Stop = never) -> Iterator[Job]:
        """The plan, trainings, then evaluations; each must have run before the next is asked for.

        `stop` ends a training early, which saves its state. Raises: LssvwmError when `out` is being worked on already.
        """
        with locked(self.out):
            yield from self._jobs(device, stop)

    def _jobs(self, device: torch.device, stop: Stop) -> Iterator[Job]:
        yield Job("Planning", len(self.variants), "variants", partial(self._plan, device))
        plan = self._read_plan()
        for name in self.variants:
            config = self._run_config(name, plan.steps[name])
            run = partial(self._train, name, config, device, stop)
            yield Job(f"Training {name}", config.train.total_steps, "steps", run, ends_itself=True)
        for task in self.scale.tasks:
            for name in self.variants:
                frames = self.scale.episodes * task.frames
                yield Job(f"{task.name}, {name}", frames, "frames", partial(self._evaluate, name, task, device))

    def report(self) -> str:
        """Write the comparison of what is evaluated and return its Markdown."""
        plan = self._read_plan()
        trained = max(stage.frames for stage in self.scale.stages)
        return write_comparison(self.out, self.scale.tasks, self.variants, asdict(plan), trained)

    def _plan(self, device: torch.device) -> Iterator[tuple[int, str]]:
        """Find the steps of each stage for every variant. Raises: LssvwmError when `out` has another comparison."""
        path, header = self.out / PLAN_FILE, open_shards(self.data, TRAIN).header
        wanted = json.loads(json.dumps(asdict(self), default=str)) | {"data": str(self.data.resolve())}
        for free in ("variants", "out", "batch", "lpips_weights"):
            wanted.pop(free)
        plan = Plan(wanted)
        if path.exists():
            plan = self._read_plan()
            if plan.comparison != wanted:
                differing = next((k for k in wanted if plan.comparison.get(k) != wanted[k]), "content")
                raise LssvwmError(
                    f"{path}: a comparison with another {differing}; choose another --out or delete the folder"
                )
        for number, name in enumerate(self.variants):
            if name not in plan.steps:
                steps = [stage.steps for stage in self.scale.stages]
                config = self._run_config(name, steps)
                plan.steps[name] = planned_steps(config, header, self.budget, device)
                plan.parameters[name] = parameters(model_config(config, header))
            write_json(path, asdict(plan))
            yield number + 1, f"{name}: {' + '.join(map(str, plan.steps[name]))} steps"

    def _read_plan(self) -> "Plan":
        return read_json(self.out / PLAN_FILE, Plan, "delete it to plan anew")

    def _run_config(self, name: str, steps: list[int]) -> RunConfig:
        """The same for every variant but for its mixers, its training fields, and the steps of the stages."""
        header = open_shards(self.data, TRAIN).header
        config = make_config(self.scale.preset, self.data, None, self.overrides)
        ours = model_config(config, header)
        stages = tuple(replace(stage, steps=count) for stage, count in zip(self.scale.stages, steps, strict=True))
        training: dict[str, Any] = {"stages": stages, "sample_every": 0, "keep_checkpoints": 1, "seed": self.seed}
        fields = variant(name, ours, max(stage.frames for stage in stages))
        return replace(
            config,
            model=config.model | fields,
            train=replace(config.train, **training, **training_fields(name)),
        )

    def _train(self, name: str, config: RunConfig, device: torch.device, stop: Stop) -> Iterator[tuple[int, str]]:
        run, settings = open_run(self.out / "runs" / name, config)
        if run.last is not None and int(run.last.name) >= settings.train.total_steps:
            yield settings.train.total_steps, "trained before"
            return
        for event in train(run, settings, device, stop=stop):
            if isinstance(event, StepReport):
                yield event.step, f"loss {event.loss:.4f}  {event.frames_per_second:.0f} frames/s"

    def _evaluate(self, name: str, task: Task, device: torch.device) -> Iterator[tuple[int, str]]:
        folder, out = Run(self.out / "runs" / name).world, self.out / task.name / name
        world = load_world(folder, device)
        options = EvalOptions(task, self.scale.episodes, self.seed, batch=self.batch, videos=1, cut=name == "ours")
        measures = load_measures(world, device, self.lpips_weights)
        evaluation = WorldEvaluation(folder, world, self.data, options, measures)
        for progress in evaluation.run(out):
            yield progress.done, ""
        evaluation.report(out)


def planned_steps(config: RunConfig, header: ShardHeader, budget: Budget, device: torch.device) -> list[int]:
    """Steps of each stage, in the proportions of `config`, that together cost the budget."""
    stages = config.train.stages
    costs = [stage_cost(config, header, stage, budget.kind, device) for stage in stages]
    factor = budget.amount / sum(stage.steps * cost for stage, cost in zip(stages, costs, strict=True))
    return [max(1, round(factor * stage.steps)) for stage in stages]


def stage_cost(config: RunConfig, header: ShardHeader, stage: Stage, kind: str, device: torch.device) -> float:
    """What one training step takes, in minutes or flops, the mean over the model's chunk sizes; 1 for steps."""
    if kind == "steps":
        return 1.0
    model = model_config(config, header)
    costs = []
    for chunk in model.chunk_sizes:
        if kind == "flops":
            costs.append(float(step_cost(model, stage.batch_size, stage.frames, chunk).flops))
        else:
            costs.append(step_seconds(model, stage, chunk, device) / 60)
    return sum(costs) / len(costs) * config.train.accumulate


def parse_stages(text: str) -> tuple[Stage, ...]:
    """`40x6*2,100x3`: clips of 40 frames, 6 a step, then 100, 3 a step, for half as many steps. Raises: LssvwmError."""
    found = [re.fullmatch(r"(\d+)x(\d+)(?:\*(\d+))?", part.strip()) for part in text.split(",")]
    if not all(found):
        raise LssvwmError(f"--stages {text}: expected FRAMESxBATCH*SHARE with commas, such as 40x6*2,100x3")
    tables = [{"frames": int(m[1]), "steps": int(m[3] or 1), "batch_size": int(m[2])} for m in found if m]
    return convert(f"--stages {text}", tables, tuple[Stage, ...])


def parse_tasks(text: str) -> tuple[Task, ...]:
    """`retrieval=100+100,reasoning=150+50`. Raises: LssvwmError."""
    found = [re.fullmatch(rf"({'|'.join(TASKS)})=(\d+)\+(\d+)", part.strip()) for part in text.split(",")]
    if not all(found):
        raise LssvwmError(f"--tasks {text}: expected TASK=CONTEXT+FRAMES with commas; tasks: {', '.join(TASKS)}")
    return tuple(make_task(m[1], int(m[2]), int(m[3])) for m in found if m)
