"""A student's own history: what a rollout makes, and the truth as the aim only where the prefix has shown it."""

import contextlib
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from lssvwm_core.conditions import Conditions
from lssvwm_core.model.world_model import WorldModel
from lssvwm_core.rollout import Rollout
from lssvwm_core.sampling import Euler
from lssvwm_core.training.run.folder import Run
from lssvwm_core.training.step.distillation import Distillation
from lssvwm_core.training.step.lesson import Lesson
from lssvwm_core.training.step.own_history import Moment, own_history, prefix_lengths, shown, write_noise
from lssvwm_core.world import World, load_world

REACH = 1.0


@pytest.fixture(scope="module")
def world(workspace: Path) -> World:
    """One whose guesses depend on all that it is told: its memory by least squares, its poses, its actions."""
    world = load_world(Run(workspace / "runs/test").folder, "cpu")
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in world.model.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return world


def clips(model: WorldModel, batch: int = 2, frames: int = 30) -> tuple[Tensor, Tensor, Conditions]:
    rng = torch.Generator().manual_seed(0)
    latents, noise = torch.randn(2, batch, frames, *model.config.latent_shape, generator=rng)
    poses = torch.randn(batch, frames, len(model.config.pose_names), generator=rng)
    actions = torch.randn(batch, frames, len(model.config.action_names), generator=rng)
    return latents, noise, Conditions(action=actions, pose=poses)


def roll_out(
    world: World, latents: Tensor, noise: Tensor, led: Conditions, prefixes: list[int], chunk: int = 5
) -> tuple[Tensor, list[Moment]]:
    """The clips as they went on, all but their last chunk, and the moments on the way."""
    lesson = Lesson(latents, noise, torch.zeros(latents.shape[:2]), led, led, chunk)
    moments = list(own_history(world.model, world.sampler, lesson, torch.tensor(prefixes)))
    return moments[-1].history, moments


@pytest.mark.usefixtures("float32")
@pytest.mark.parametrize("temperature", [1.0, 0.0])
@pytest.mark.parametrize("chunk", [5, 1])
def test_it_is_what_a_rollout_makes(world: World, chunk: int, temperature: float) -> None:
    world = world.sampled_with(steps=2, chunk=chunk, guidance=0.0, temperature=temperature)
    latents, noise, led = clips(world.model)
    led["pose"][:, 20:25] = led["pose"][:, 5:10]  # some places are certain
    for seed in (0, 1):  # as a rollout draws it
        rng = torch.Generator().manual_seed(seed)
        pieces = [torch.randn(piece.shape, generator=rng) for piece in noise[seed, 20:].split(chunk)]
        noise[seed, 20:] = torch.cat(pieces)
    history, moments = roll_out(world, latents, noise, led, [20, 20], chunk)
    rollout = Rollout(world, (0, 1))
    rollout.observe(latents[:, :20], led[:20])
    torch.testing.assert_close(moments[0].state.tensors, rollout.state.tensors, atol=1e-4, rtol=1e-4)
    expected = torch.cat([piece.latents for piece in rollout.run(led[20:])], dim=1)
    torch.testing.assert_close(history[:, 20:], expected, atol=1e-4, rtol=1e-4)


def test_its_way_begins_with_the_noise_and_each_step_is_the_models(world: World) -> None:
    world = world.sampled_with(steps=2, guidance=0.0, temperature=1.0)
    latents, noise, led = clips(world.model)
    history, moments = roll_out(world, latents, noise, led, [20, 20])
    assert [moment.rows for moment in moments] == [slice(20, 25), slice(25, 30)]
    for rows, state, _, way, _ in moments:
        assert list(way) == [1.0, 0.5]
        assert torch.equal(way[1.0], noise[:, rows])
        for level, after in ((1.0, way[0.5]), (0.5, history[:, rows])):
            velocity, _ = world.model(way[level], torch.full((2, 5), level), led[rows], state, 5)
            torch.testing.assert_close(way[level] - 0.5 * velocity, after, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("prefixes", [[15, 25], [25, 10], [5, 25], [20, 20]])
def test_clips_side_by_side_are_as_each_alone(world: World, prefixes: list[int]) -> None:
    latents, noise, led = clips(world.model)
    both, _ = roll_out(world, latents, noise, led, prefixes)
    for number, prefix in enumerate(prefixes):
        one = slice(number, number + 1)
        alone = Conditions({name: rows[one] for name, rows in led.items()})
        found, _ = roll_out(world, latents[one], noise[one], alone, [prefix])
        torch.testing.assert_close(both[one], found, atol=5e-3, rtol=5e-3)
        assert torch.equal(both[one, :prefix], latents[one, :prefix])
        assert not torch.allclose(found[:, prefix:], latents[one, prefix:], atol=0.1)


def test_a_prefix_ends_at_the_first_frame_with_noise() -> None:
    levels = torch.tensor([[0, 0, 0.3, 0, 0.5], [0.1, 0, 0, 0, 1], [0, 0, 0, 0, 0.1]])
    assert prefix_lengths(levels).tolist() == [2, 0, 4]
    assert write_noise(torch.tensor([[False, True]])).tolist() == [[1, 4]]


def test_shown_is_what_lies_near_a_pose_of_the_prefix() -> None:
    along = torch.tensor([[0.0, 5.0, 0.0, 0.4, 1.0, 1.25, 2.0, 5.1, torch.nan]])
    poses = torch.stack([along, torch.zeros_like(along)], dim=-1)
    expected = [[0, 0, 1, 1, 0.5, 0.25, 0, 1, 0]]
    torch.testing.assert_close(shown(poses, torch.tensor([2]), REACH), torch.tensor(expected, dtype=torch.float32))
    assert not shown(poses, torch.tensor([9]), REACH).any(), "in the prefix nothing is asked"
    poses[:, 1] = torch.nan
    assert shown(poses, torch.tensor([2]), REACH)[0, 7] == 0, "nobody knows from where the second frame was seen"
    assert not shown(torch.full_like(poses, torch.nan), torch.tensor([2]), REACH).any()


def objective_and_lesson(
    world: World, places: list[float], own: bool = True, guidance: float = 1.0
) -> tuple[Distillation, Lesson]:
    """Ten frames of a prefix at one place, then two chunks at the `places`, all told; the first of them is noised."""
    model = world.model
    latents, noise, led = clips(model, batch=1, frames=20)
    poses = torch.zeros_like(led["pose"])
    poses[0, 10:15, 0], poses[0, 15:, 0] = places[0], places[1]
    led = Conditions(action=led["action"], pose=poses)
    levels = torch.tensor([[0.0] * 10 + [0.9] * 5 + [0.4] * 5])
    teacher = WorldModel(model.config).train()
    teacher.load_state_dict(model.state_dict())
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in teacher.parameters():
            parameter += 0.05 * torch.randn_like(parameter)
    objective = Distillation(teacher, Euler(4, guidance=guidance), Euler(2), model.eval() if own else None)
    return objective, Lesson(latents, noise, levels, led, led, 5)


def student_of(world: World) -> WorldModel:
    student = WorldModel(world.model.config).train()
    student.load_state_dict(world.model.state_dict())
    return student


def test_the_truth_is_learnt_where_it_was_shown_and_the_teacher_elsewhere(world: World) -> None:
    def loss(*places: float, same_teacher: bool) -> float:
        objective, lesson = objective_and_lesson(world, list(places), guidance=0.0)
        if same_teacher:
            objective.teacher.load_state_dict(world.model.state_dict())
            objective = replace(objective, teacher_sampler=objective.sampler)
        return objective(student_of(world), lesson).item()

    assert loss(50.0, 90.0, same_teacher=True) < 1e-6
    assert loss(50.0, 90.0, same_teacher=False) > 1e-4
    assert loss(0.0, 90.0, same_teacher=True) > 0.1
    assert loss(50.0, 0.0, same_teacher=True) > 0.1


def test_without_a_prefix_it_is_distillation_as_ever(world: World) -> None:
    student, losses = student_of(world), []
    for own in (True, False):
        objective, lesson = objective_and_lesson(world, [0.0, 0.0], own)
        losses.append(objective(student, lesson._replace(noise_levels=lesson.noise_levels + 0.05)))
    torch.testing.assert_close(*losses)


@pytest.mark.parametrize("prefixes", [[10, 10], [10, 15], [15, 0], [0, 0]])
@pytest.mark.parametrize("guidance", [0.0, 1.0])
def test_the_loss_is_that_of_each_clip_step_by_step(world: World, prefixes: list[int], guidance: float) -> None:
    """Each step leads from where the student is on its own way to the truth, or where its teacher goes from there."""
    objective, lesson = objective_and_lesson(world, [0.3, 0.8], guidance=guidance)
    latents, noise = (torch.cat([part, part.flip(-1)]) for part in lesson[:2])  # of two clips
    levels = torch.where(torch.arange(20) >= torch.tensor(prefixes)[:, None], 0.4, 0.0)
    led, student, losses = Conditions(lesson.whole), student_of(world), []
    lesson = Lesson(latents, noise, levels, *2 * [Conditions.stack([led, led])], 5)
    recent = world.model.config.recent_frames(5)
    for clip, prefix in enumerate(prefixes):
        one, after = lesson.of(torch.arange(2) == clip), torch.tensor([prefix])
        if not prefix:  # distillation as ever
            losses.append(objective(student, one))
            continue
        seen = shown(one.whole["pose"], after, world.model.config.recall_lengths[1])[..., None, None, None]
        assert prefix == 15 or 0 < seen[:, 10:15].max() <= 1
        errors = []
        for rows, state, _, way, history in own_history(world.model.eval(), Euler(2), one, after):
            own = write_noise(torch.arange(rows.start)[None] >= prefix)
            past, clean = history[:, : rows.start], torch.zeros(1, rows.start)
            blank, rows_led = objective.teacher.initial_state(1), led[rows]
            _, taught = objective.teacher(past, clean, led[: rows.start], blank, 5, past, own)
            last = slice(rows.start - recent, rows.start)
            _, cut = objective.teacher(past[:, last], clean[:, last], led[last], blank, 5, past[:, last])
            sure = objective.teacher.recollect(taught, rows_led, 5).certainty(world.model.config.recall_ridge)
            for level, x in way.items():
                there = x
                for part in (0.0, 0.25):  # the teacher takes two steps
                    at = torch.full((1, 5), level - part)
                    found = objective.teacher(there, at, rows_led, taught, 5)[0]
                    without = objective.teacher(there, at, rows_led, cut, 5)[0]
                    more = guidance * (1 - sure)[..., None, None, None] if recent < rows.start else 0.0
                    there = there - 0.25 * (found + more * (found - without))
                aim = (1 - seen[:, rows]) * (x - there) / 0.5 + seen[:, rows] * (x - one.latents[:, rows]) / level
                velocity, _ = student(x, torch.full((1, 5), level), rows_led, state, 5)
                errors.append(level**2 * (velocity - aim).square().mean())
        losses.append(torch.stack(errors).mean())
    torch.testing.assert_close(objective(student, lesson), torch.stack(losses).mean(), rtol=1e-3, atol=1e-5)


def test_the_teacher_is_told_what_the_student_is_not(world: World) -> None:
    objective, lesson = objective_and_lesson(world, [0.0, 0.3], guidance=0.0)
    dropped = Conditions(lesson.whole).unknown("pose")
    told: dict[str, list[Tensor]] = {"teacher": [], "student": [], "dreamer": []}
    student = student_of(world)
    roles = {"teacher": objective.teacher, "student": student, "dreamer": objective.dreamer}
    with contextlib.ExitStack() as listening:
        for role, model in roles.items():
            assert model is not None

            def listen(_: object, given: tuple[object, ...], kept: list[Tensor] = told[role]) -> None:
                kept.append(given[2]["pose"])  # type: ignore[index]

            listening.callback(model.register_forward_pre_hook(listen).remove)
        loss = objective(student, lesson._replace(conditions=dropped))
    loss.backward()
    assert loss > 0
    prefix, rest = lesson.whole["pose"].split(10, dim=1)
    first, second = rest.split(5, dim=1)
    for poses, expected in zip(told["teacher"], [prefix, *4 * [first], first, *4 * [second]], strict=True):
        assert torch.equal(poses, expected)
    assert all(poses.isnan().all() for role in ("student", "dreamer") for poses in told[role])
    assert [len(told[role]) for role in ("student", "dreamer")] == [2 * 2, 1 + 2 * (2 + 1)]
    assert any(parameter.grad is not None and parameter.grad.any() for parameter in student.parameters())
    assert all(parameter.grad is None for parameter in objective.teacher.parameters())
