"""Distillation: targets against a teacher whose velocity is known, and a student that is a run like any other."""

import json
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from lssvwm_core.conditions import Conditions
from lssvwm_core.model.world_model import WorldModel
from lssvwm_core.sampling import SAMPLERS, Euler, Level, Sampler, Velocity, denoise
from lssvwm_core.training.loop import Finished, train
from lssvwm_core.training.run.config import (
    DistillConfig,
    RunConfig,
    load_run_config,
    make_config,
    save_run_config,
    with_distillation,
)
from lssvwm_core.training.run.folder import Run
from lssvwm_core.training.run.setup import open_run
from lssvwm_core.training.step.distillation import Distillation, load_distillation
from lssvwm_core.training.step.lesson import Lesson
from lssvwm_core.training.step.train_state import TrainState
from lssvwm_core.training.step.train_step import StepResult
from lssvwm_core.world import load_model, save_world
from lssvwm_datasets.errors import LssvwmError
from tests.conftest import lssvwm

CPU = torch.device("cpu")
SPREAD = 0.3  # of the data that `Gaussian` knows
LEVELS = torch.tensor([[0.0, 0.0, 0.1, 0.4, 0.5, 0.7, 1.0, 0.93]], dtype=torch.float64)


class Forgetful(nn.Module):
    """A model that recalls nothing, and whose velocity is x times a rate that follows from the level alone."""

    def rate(self, levels: Tensor) -> Tensor:
        raise NotImplementedError

    def recollect(self, state: object, conditions: object, chunk: int) -> None:
        return None

    def recollect_clip(self, latents: object, conditions: object, chunk: int) -> None:
        return None

    def forward(
        self,
        x: Tensor,
        levels: Tensor,
        conditions: object,
        state: object = None,
        chunk: int = 1,
        remember: object = None,
        recollection: object = None,
        keep: bool = True,
    ):
        return x * self.rate(levels)[:, :, None, None, None], None


class Gaussian(Forgetful):
    """The exact velocity for data drawn from N(0, SPREAD²), E[noise - clean | x]; keeps the levels it is asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[Tensor] = []

    @staticmethod
    def slope(t: Tensor | float) -> Tensor:
        t = torch.as_tensor(t, dtype=torch.float64)
        return (t - (1 - t) * SPREAD**2) / ((1 - t) ** 2 * SPREAD**2 + t**2)

    def rate(self, levels: Tensor) -> Tensor:
        self.asked.append(levels)
        return self.slope(levels)


class Student(Forgetful):
    """Goes from a level of its own sampler to the next as far as the teacher's Euler steps do, in closed form."""

    def __init__(self, teacher_steps: int, steps: int) -> None:
        super().__init__()
        self.teacher_steps, self.steps = teacher_steps, steps

    def rate(self, levels: Tensor) -> Tensor:
        return mean_slope(levels, self.teacher_steps, self.steps)


def mean_slope(levels: Tensor, teacher_steps: int, steps: int) -> Tensor:
    """Of the straight line from x at each level to where (1 - slope · step) · … · x ends, over the student's step."""
    span, found = teacher_steps // steps, []
    for level in levels.flatten().tolist():
        shrunk = 1.0
        for taken in range(span):
            shrunk *= 1 - float(Gaussian.slope(level - taken / teacher_steps)) / teacher_steps if level else 1
        found.append((1 - shrunk) * steps)
    return torch.tensor(found, dtype=torch.float64).reshape(levels.shape)


def clip(frames: int = 8, seed: int = 0) -> tuple[Tensor, Tensor]:
    rng = torch.Generator().manual_seed(seed)
    shape = (1, frames, 2, 3, 3)
    clean = SPREAD * torch.randn(shape, generator=rng, dtype=torch.float64)
    return clean, torch.randn(shape, generator=rng, dtype=torch.float64)


@pytest.mark.parametrize(("teacher_steps", "steps"), [(8, 2), (8, 1), (6, 3), (4, 2)])
def test_the_target_is_where_the_teacher_arrives(teacher_steps: int, steps: int) -> None:
    distillation = Distillation(Gaussian(), Euler(teacher_steps), Euler(steps))
    noisy, _ = clip()
    left = (LEVELS * steps).ceil().long()  # steps of the student
    expected = noisy * mean_slope(left / steps, teacher_steps, steps)[:, :, None, None, None]
    torch.testing.assert_close(distillation.target(noisy, steps - left, {}, 1), expected)
    assert distillation.target(noisy, steps - left, {}, 1)[:, :2].abs().max() == 0, "clean frames stay"


@pytest.mark.parametrize(("teacher_steps", "steps"), [(8, 2), (8, 1), (6, 3)])
def test_a_student_without_loss_samples_as_its_teacher(teacher_steps: int, steps: int) -> None:
    student, teacher = Student(teacher_steps, steps), Gaussian()
    clean, noise = clip()
    objective = Distillation(teacher, Euler(teacher_steps), Euler(steps))
    assert objective(student, Lesson(clean, noise, LEVELS, {}, {}, 1)) < 1e-12
    assert objective(Gaussian(), Lesson(clean, noise, LEVELS, {}, {}, 1)) > 1e-4, (
        "who makes one Euler step arrives elsewhere"
    )
    one = denoise(student, Euler(steps), noise, Conditions(), None)  # type: ignore[arg-type]
    several = denoise(teacher, Euler(teacher_steps), noise, Conditions(), None)  # type: ignore[arg-type]
    torch.testing.assert_close(one, several, atol=1e-6, rtol=1e-6)


def test_both_are_asked_at_the_levels_of_their_samplers_and_see_the_clean_prefix() -> None:
    student, teacher = Gaussian(), Gaussian()
    clean, noise = clip()
    Distillation(teacher, Euler(8), Euler(2))(student, Lesson(clean, noise, LEVELS, {}, {}, 1))
    rounded = torch.tensor([[0.0, 0.0, 0.5, 0.5, 0.5, 1.0, 1.0, 1.0]], dtype=torch.float64)
    assert torch.equal(student.asked[0], rounded)
    steps = [rounded - taken / 8 * (rounded > 0) for taken in range(4)]
    assert all(torch.equal(asked, step) for asked, step in zip(teacher.asked, steps, strict=True))


@pytest.fixture(scope="module")
def teacher(workspace: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A world that is far from straight paths."""
    folder = tmp_path_factory.mktemp("teacher")
    model, header, autoencoder = load_model(Run(workspace / "runs/test").world)
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    shutil.copytree(autoencoder, folder / "autoencoder")
    save_world(folder, model, header, "autoencoder")
    return folder


def student_of(
    teacher: Path,
    workspace: Path,
    steps: int,
    *overrides: str,
    distilled: int = 2,
    guidance: float = 0.0,
    own_history: bool = False,
) -> RunConfig:
    settings = ["train.stages=[{frames=10, steps=100, batch_size=2}]", "train.log_every=2", f"train.steps={steps}"]
    config = make_config("tiny", workspace / "data/maze", None, [*settings, *overrides])
    sampler, shape = Euler(8, guidance=guidance), load_model(teacher)[0].config
    return with_distillation(config, shape, "teacher", sampler, distilled, own_history)


@dataclass(frozen=True)
class Midpoint:
    """A second order sampler, as somebody would add one."""

    steps: int = 4
    power: float = 1.0
    guidance: float = 0.0
    temperature: float = 1.0

    def levels(self) -> tuple[float, ...]:
        return tuple((1 - step / self.steps) ** self.power for step in range(self.steps + 1))

    def advance(self, velocity: Velocity, x: Tensor, now: Level, after: Level) -> Tensor:
        half = (now + after) / 2
        return x + (after - now) * velocity(x + (half - now) * velocity(x, now), half)


@pytest.mark.parametrize(
    ("sampler", "student"), [(Midpoint(8), Euler(2)), (Euler(8, shift=3.0), Euler(2, shift=3.0)), (Euler(8), Euler(2))]
)
def test_a_teacher_keeps_its_sampler(
    sampler: Sampler, student: Sampler, workspace: Path, tmp_path: Path, teacher: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(SAMPLERS, "midpoint", Midpoint)
    config = make_config("tiny", workspace / "data/maze", None, [])
    config = with_distillation(config, load_model(teacher)[0].config, "teacher", sampler, 2)
    save_run_config(tmp_path / "config.toml", config)
    saved = load_run_config(tmp_path / "config.toml")
    assert saved == config
    assert saved.distill is not None
    objective = load_distillation(teacher, saved.distill, CPU, load_model(teacher)[0])
    assert (objective.teacher_sampler, objective.sampler, saved.sampler) == (sampler, student, student)


def test_a_teacher_that_does_not_pass_the_students_levels_is_told(workspace: Path, teacher: Path, monkeypatch) -> None:
    monkeypatch.setitem(SAMPLERS, "midpoint", Midpoint)
    config, model = make_config("tiny", workspace / "data/maze", None, []), load_model(teacher)[0].config
    with pytest.raises(LssvwmError, match=r"Midpoint.steps=8, power=2.0, .*does not visit the student's noise levels"):
        with_distillation(config, model, "teacher", Midpoint(8, 2.0), 2)


def run_distillation(folder: Path, teacher: Path, config: RunConfig, stop_after: int | None = None) -> Finished:
    torch.set_num_threads(1)
    run, config = open_run(folder, config)
    reached = 0

    def stop() -> str | None:
        return "test" if stop_after is not None and reached >= stop_after else None

    for event in train(run, config, CPU, init_from=teacher, stop=stop):
        reached = event.step
    assert isinstance(event, Finished)
    return event


def test_a_student_learns_its_teachers_steps(teacher: Path) -> None:
    student = load_model(teacher)[0].train()
    objective = load_distillation(teacher, DistillConfig("teacher", 8, 2), CPU, student)
    optimizer = torch.optim.Adam(student.parameters(), lr=1e-3)
    rng = torch.Generator().manual_seed(0)
    clean, noise = torch.randn(2, 1, 10, *student.config.latent_shape, generator=rng)
    levels = torch.tensor([[0.0] * 5 + [1.0] * 5])
    losses = []
    for _ in range(20):
        loss = objective(student, Lesson(clean, noise, levels, {}, {}, 5))
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]
    assert all(parameter.grad is None for parameter in objective.teacher.parameters())


@pytest.mark.parametrize(("chunk", "frames"), [(5, 30), (5, 10), (5, 5), (1, 18), (1, 27), (1, 23)])
@torch.no_grad()
def test_a_guided_teacher_is_asked_as_its_rollout_would_ask_it(teacher: Path, chunk: int, frames: int) -> None:
    """One step of one student's step: v + g · (v - v of a fresh world that has seen the frames just before alone).

    g is 0.5 at a new place, and nothing where the memory has the very frame.
    """
    config = DistillConfig("teacher", 2, 2, {"name": "euler", "shift": 1.0, "guidance": 0.5})
    model = load_model(teacher)[0]
    objective = load_distillation(teacher, config, CPU, model)
    noisy, latents = torch.randn(2, 2, frames, *model.config.latent_shape, generator=torch.Generator().manual_seed(0))
    taken = torch.randint(2, (2, frames // chunk), generator=torch.Generator().manual_seed(1))
    taken = taken.repeat_interleave(chunk, dim=1)
    led = {"pose": torch.randn(2, frames, len(model.config.pose_names), generator=torch.Generator().manual_seed(2))}
    levels = 1 - taken / 2
    whole = model.train()(noisy, levels, led, chunk=chunk, remember=latents)[0]
    found, kept = objective.target(noisy, taken, led, chunk, latents), model.config.recent_frames(chunk)
    known = model.recollect_clip(latents, led, chunk)
    assert known is not None
    guidance = 0.5 * (1 - known.certainty(model.config.recall_ridge))[:, :, None, None, None]
    for first in range(0, frames, chunk):
        rows, expected = slice(first, first + chunk), whole[:, first : first + chunk]
        pieces = range(kept, frames, kept) if frames % kept == 0 else ()  # where a piece begins with this chunk
        if first in pieces:
            piece = slice(first - kept, first + chunk)
            seen = {"pose": led["pose"][:, piece]}
            without = model(noisy[:, piece], levels[:, piece], seen, chunk=chunk, remember=latents[:, piece])[0]
            expected = expected + guidance[:, rows] * (expected - without[:, kept:])
            torch.testing.assert_close(found[:, rows], expected, atol=1e-4, rtol=1e-4)
        elif first < kept:  # there is no memory yet
            torch.testing.assert_close(found[:, rows], expected, atol=1e-4, rtol=1e-4)
        elif first >= 2 * kept:
            assert not torch.allclose(found[:, rows], expected, atol=1e-4), "the last frames are guided, too"


@pytest.mark.parametrize("temperature", [0.0, 0.5, 1.0])
def test_a_student_is_sampled_at_its_teachers_temperature_and_shown_all_of_the_noise(
    workspace: Path, teacher: Path, temperature: float
) -> None:
    config, model = make_config("tiny", workspace / "data/maze", None, []), load_model(teacher)[0].config
    student = with_distillation(config, model, "teacher", Euler(4, temperature=temperature), 2)
    assert student.distill is not None
    assert student.sampler == Euler(2, temperature=temperature)
    assert student.distill.taught == Euler(4, temperature=1.0)


def test_a_student_may_take_as_many_steps_as_a_teacher_with_guidance(workspace: Path, teacher: Path) -> None:
    config, model = make_config("tiny", workspace / "data/maze", None, []), load_model(teacher)[0].config
    distilled = with_distillation(config, model, "teacher", Euler(2, guidance=1.0), 2)
    assert distilled.sampler == Euler(2)
    with pytest.raises(LssvwmError, match="4 steps of the student for 2 of the teacher"):
        with_distillation(config, model, "teacher", Euler(2, guidance=1.0), 4)


@pytest.mark.parametrize(("guidance", "own_history"), [(0.0, False), (1.0, False), (1.0, True)])
def test_interrupted_and_resumed_is_bit_identical_without_the_teachers_folder(
    workspace: Path, tmp_path: Path, teacher: Path, guidance: float, own_history: bool
) -> None:
    gone = tmp_path / "gone"
    shutil.copytree(teacher, gone)
    config = student_of(teacher, workspace, 4, guidance=guidance, own_history=own_history)
    run_distillation(tmp_path / "whole", teacher, config)
    assert run_distillation(tmp_path / "parts", gone, config, stop_after=2).step == 2
    shutil.rmtree(gone)
    assert run_distillation(tmp_path / "parts", gone, config).step == 4
    whole, parts = Run(tmp_path / "whole"), Run(tmp_path / "parts")
    for file in ("model.safetensors", "../training_state/raw.safetensors"):
        assert (whole.world / file).read_bytes() == (parts.world / file).read_bytes()


def test_a_student_may_begin_with_the_weights_of_another(workspace: Path, tmp_path: Path, teacher: Path) -> None:
    other, started = load_model(Run(workspace / "runs/test").world)[0], []

    def take_none(state: TrainState, *_: object) -> StepResult:
        started.append({name: value.clone() for name, value in state.model.state_dict().items()})
        state.steps += 1
        return StepResult(0.0, 0.0, 0.0, 5)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lssvwm_core.training.loop.train_step", take_none)
        for number, folder in enumerate((None, Run(workspace / "runs/test").world)):
            run, config = open_run(tmp_path / str(number), student_of(teacher, workspace, 1))
            list(train(run, config, CPU, init_from=teacher, student_from=folder))
    for found, expected in zip(started, (load_model(teacher)[0], other), strict=True):
        torch.testing.assert_close(found, dict(expected.state_dict()), rtol=0, atol=0)
    taught = [load_model(tmp_path / str(number) / "teacher")[0].state_dict() for number in range(2)]
    torch.testing.assert_close(*taught, rtol=0, atol=0)


def test_a_student_of_another_shape_is_told(workspace: Path, tmp_path: Path, teacher: Path) -> None:
    model, header, _ = load_model(teacher)
    shutil.copytree(teacher / "autoencoder", tmp_path / "deeper/autoencoder")
    deeper = WorldModel(replace(model.config, depth=model.config.depth + 1))
    save_world(tmp_path / "deeper", deeper, header, "autoencoder")
    run, config = open_run(tmp_path / "run", student_of(teacher, workspace, 1))
    with pytest.raises(LssvwmError, match=r"deeper: its model differs from that of the teacher, .*teacher"):
        next(train(run, config, CPU, init_from=teacher, student_from=tmp_path / "deeper"))
    assert not run.checkpoints.exists()
    wrong = lssvwm(workspace, "distill", "test", "--init-from", "nowhere", "--name", "none", fails=True).stderr
    assert "nowhere: no such model" in wrong


def test_a_run_keeps_to_its_teacher_and_its_steps(workspace: Path, tmp_path: Path, teacher: Path) -> None:
    folder = tmp_path / "run"
    run_distillation(folder, teacher, student_of(teacher, workspace, 2))
    with pytest.raises(LssvwmError, match=r"other settings \(distill.steps: 2, now 4\)"):
        open_run(folder, student_of(teacher, workspace, 4, distilled=4), adopt=True)
    plain = make_config("tiny", workspace / "data/maze", None, [])
    with pytest.raises(LssvwmError, match=r"other settings \(distill"):
        open_run(folder, plain, adopt=True)
    shutil.rmtree(folder / "teacher")
    with pytest.raises(LssvwmError, match=r"teacher: not a model folder"):
        run_distillation(folder, teacher, student_of(teacher, workspace, 4))


def test_a_run_of_before_guidance_and_own_history_goes_on(workspace: Path, tmp_path: Path, teacher: Path) -> None:
    folder = tmp_path / "run"
    run_distillation(folder, teacher, student_of(teacher, workspace, 2))
    file = folder / "config.toml"
    lines = file.read_text().splitlines(keepends=True)
    file.write_text("".join(line for line in lines if not line.startswith(("guidance", "own_history"))))
    assert len(file.read_text().splitlines()) == len(lines) - 2
    assert run_distillation(folder, teacher, student_of(teacher, workspace, 3)).step == 3


def test_what_cannot_be_distilled_is_told(workspace: Path, tmp_path: Path, teacher: Path) -> None:
    for steps in (8, 9, 3, 0):
        with pytest.raises(LssvwmError, match=f"{steps} steps of the student for 8 of the teacher; expected fewer"):
            student_of(teacher, workspace, 2, distilled=steps)
    run, config = open_run(tmp_path / "run", student_of(teacher, workspace, 2))
    with pytest.raises(LssvwmError, match="start it with: lssvwm distill"):
        next(train(run, config, CPU))
    config.model["depth"] = 1
    with pytest.raises(LssvwmError, match="its model differs from this run's"):
        next(train(run, config, CPU, init_from=teacher))
    assert not run.checkpoints.exists()


def test_config_with_a_distillation_is_read_back(workspace: Path, tmp_path: Path, teacher: Path) -> None:
    run_distillation(tmp_path / "run", teacher, student_of(teacher, workspace, 2))
    file = tmp_path / "run/config.toml"
    assert load_run_config(file).distill == student_of(teacher, workspace, 2).distill
    file.write_text(file.read_text().replace("teacher_steps = 8", "teacher_steps = 'x'"))
    with pytest.raises(LssvwmError, match=r"config.toml: \[distill\] teacher_steps = 'x': Expected int, got str"):
        load_run_config(file)


def test_the_command_makes_a_world_with_its_own_steps(workspace: Path, tmp_path: Path) -> None:
    data = ("--data", str(workspace / "data/maze"))
    command = ("distill", str(workspace / "runs/test"), *data, "--clip-frames", "10", "--batch-size", "1")
    assert "step 2 of 2" in lssvwm(tmp_path, *command, "--steps", "2", "--guidance", "1").stderr
    assert "guidance = 1.0" in (tmp_path / "runs/test-2-steps/config.toml").read_text()
    again = lssvwm(tmp_path, *command, "--steps", "3", fails=True).stderr
    assert "other settings (distill.teacher_sampler" in again
    again = lssvwm(tmp_path, *command, "--guidance", "1", "--own-history", "--steps", "3", fails=True).stderr
    assert "other settings (distill.own_history: False, now True)" in again
    again = lssvwm(tmp_path, *command, "--guidance", "1", "--temperature", "0", "--steps", "3", fails=True).stderr
    assert "other settings (distill.temperature: 1.0, now 0.0)" in again
    command = (*command, "--guidance", "1")
    assert "continuing runs/test-2-steps from step 2" in lssvwm(tmp_path, *command, "--steps", "3").stderr
    short = ("--context", "10", "--frames", "10", "--episodes", "1", "--json", "--videos", "0")
    figures = json.loads(lssvwm(tmp_path, "eval", "retrieval", *data, *short).stdout)
    assert (figures["steps"], figures["guidance"]) == (2, 0)
    other = lssvwm(tmp_path, "eval", "retrieval", *data, *short, "--guidance", "0.5", fails=True).stderr
    assert "with other settings (guidance: None, now 0.5)" in other
    guided = lssvwm(tmp_path, "eval", "retrieval", *data, *short, "--guidance", "0.5", "--out", "guided").stdout
    assert json.loads(guided)["guidance"] == 0.5
    calm = ("--temperature", "0")
    other = lssvwm(tmp_path, "eval", "retrieval", *data, *short, *calm, fails=True).stderr
    assert "with other settings (temperature: None, now 0.0)" in other
    figures = json.loads(lssvwm(tmp_path, "eval", "retrieval", *data, *short, *calm, "--out", "calm").stdout)
    assert (figures["guidance"], figures["temperature"]) == (0, 0)
    hot = lssvwm(tmp_path, "rollout", "--temperature", "2", fails=True).stderr
    assert "'--temperature': Input should be less than or equal to 1" in hot


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("test", "--set", "model.depth=3"), "the student has the shape of its teacher"),
        (("nowhere",), "nowhere: no such model"),
        (("test", "--sampling-steps", "16"), "16 steps of the student for 4 of the teacher"),
        (("test", "--own-history", "--set", "train.shard_model=true"), "leave train.shard_model out"),
        (("test", "--guidance", "1000"), "a guidance of 1000.0; expected 0 to 100"),
        (("test", "--teacher-steps", "2000"), "2000 steps with a shift of 1.0; expected 1 to 1000"),
    ],
)
def test_bad_options_are_told(workspace: Path, arguments: tuple[str, ...], message: str) -> None:
    assert message in lssvwm(workspace, "distill", *arguments, "--name", "none", fails=True).stderr
    assert not (workspace / "runs/none").exists()
