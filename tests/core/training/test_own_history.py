"""A student's own history: what a rollout makes, and the truth as the aim only where the prefix has shown it."""

import contextlib
from pathlib import Path

import pytest
import torch
from torch import Tensor

from lssvwm_core.conditions import Conditions
from lssvwm_core.diffusion import add_noise, velocity_error
from lssvwm_core.model.world_model import WorldModel
from lssvwm_core.rollout import Rollout
from lssvwm_core.sampling import Euler
from lssvwm_core.training.run.folder import Run
from lssvwm_core.training.step.distillation import Distillation
from lssvwm_core.training.step.lesson import Lesson
from lssvwm_core.training.step.own_history import own_history, prefix_lengths, shown, write_noise
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


@pytest.mark.usefixtures("float32")
@pytest.mark.parametrize("chunk", [5, 1])
def test_it_is_what_a_rollout_makes(world: World, chunk: int) -> None:
    world = world.sampled_with(steps=2, chunk=chunk, guidance=0.0)
    latents, noise, led = clips(world.model)
    for seed in (0, 1):  # as a rollout draws it
        rng = torch.Generator().manual_seed(seed)
        pieces = [torch.randn(piece.shape, generator=rng) for piece in noise[seed, 20:].split(chunk)]
        noise[seed, 20:] = torch.cat(pieces)
    dream = own_history(
        world.model, world.sampler, latents, noise, torch.zeros(2, 30), led, torch.tensor([20, 20]), chunk
    )
    rollout = Rollout(world, (0, 1))
    rollout.observe(latents[:, :20], led[:20])
    torch.testing.assert_close(dream.state.tensors, rollout.state.tensors, atol=1e-4, rtol=1e-4)
    expected = [piece.latents for piece in rollout.run(led[20:])]
    torch.testing.assert_close(dream.history, torch.cat(expected, dim=1), atol=1e-4, rtol=1e-4)
    assert torch.equal(dream.way, dream.history)


def test_its_way_begins_with_the_noise_and_ends_with_what_is_done(world: World) -> None:
    latents, noise, led = clips(world.model)
    levels = torch.zeros(2, 30)
    levels[0, 20:25], levels[1, 20:25], levels[1, 25:] = 1.0, 0.5, 1.0
    sampler = Euler(2)
    dream = own_history(world.model, sampler, latents, noise, levels, led, torch.tensor([20, 20]), 5)
    assert torch.equal(dream.way[levels[:, 20:] == 1], noise[:, 20:][levels[:, 20:] == 1])
    assert torch.equal(dream.way[0, 5:], dream.history[0, 5:])
    halfway = dream.way[:, :5]
    velocity, _ = world.model(halfway, levels[:, 20:25], led[20:25], dream.state, 5)
    torch.testing.assert_close(halfway[1] - 0.5 * velocity[1], dream.history[1, :5], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("prefixes", [[15, 25], [30, 10], [0, 30], [30, 30]])
def test_clips_side_by_side_are_as_each_alone(world: World, prefixes: list[int]) -> None:
    latents, noise, led = clips(world.model)
    both = own_history(world.model, Euler(2), latents, noise, torch.zeros(2, 30), led, torch.tensor(prefixes), 5)
    for number, prefix in enumerate(prefixes):
        one = slice(number, number + 1)
        alone = {name: rows[one] for name, rows in led.items()}
        levels = torch.zeros(1, 30)
        found = own_history(world.model, Euler(2), latents[one], noise[one], levels, alone, torch.tensor([prefix]), 5)
        rest = both.history[one, prefix - min(prefixes) :]
        torch.testing.assert_close(rest, found.history, atol=1e-4, rtol=1e-4)
        assert torch.equal(both.history[one, : prefix - min(prefixes)], latents[one, min(prefixes) : prefix])
        assert prefix == 30 or not torch.allclose(rest, latents[one, prefix:], atol=0.1)


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


def test_only_places_that_were_shown_are_learnt(world: World) -> None:
    def loss(*places: float) -> float:
        objective, lesson = objective_and_lesson(world, list(places))
        student = WorldModel(world.model.config).train()
        student.load_state_dict(world.model.state_dict())
        return objective(student, lesson).item()

    assert loss(50.0, 90.0) == 0
    assert loss(0.0, 90.0) > 0
    assert loss(50.0, 0.0) > 0


def test_without_a_prefix_it_is_distillation_as_ever(world: World) -> None:
    student = WorldModel(world.model.config).train()
    student.load_state_dict(world.model.state_dict())
    losses = []
    for own in (True, False):
        objective, lesson = objective_and_lesson(world, [0.0, 0.0], own)
        losses.append(objective(student, lesson._replace(noise_levels=lesson.noise_levels + 0.05)))
    torch.testing.assert_close(*losses)


@pytest.mark.parametrize("level", [1.0, 0.5])
@pytest.mark.parametrize("prefixes", [[10, 10], [10, 15], [15, 0], [0, 0]])
def test_the_loss_is_that_of_whole_clips_though_their_prefix_passes_without_gradients(
    world: World, prefixes: list[int], level: float
) -> None:
    """And each step leads from where the student is on its own way to where its teacher arrives from the same noise."""
    objective, lesson = objective_and_lesson(world, [0.0, 0.3], guidance=0.0)
    latents, noise = (torch.cat([part, part.flip(-1)]) for part in lesson[:2])  # of two clips
    levels, led = (
        torch.where(torch.arange(20) >= torch.tensor(prefixes)[:, None], level - 0.1, 0.0),
        Conditions(lesson.whole),
    )
    lesson = Lesson(latents, noise, levels, *2 * [Conditions.stack([led, led])], 5)
    student = WorldModel(world.model.config).train()
    student.load_state_dict(world.model.state_dict())
    losses = []
    for clip, prefix in enumerate(prefixes):  # each as a whole, in one pass from its first frame on
        one, after = lesson.of(torch.arange(2) == clip), torch.tensor([prefix or 20])
        noised = torch.where(one.noise_levels > 0, level, 0.0)  # raised to the next of two steps
        dream = own_history(world.model.eval(), Euler(2), *one[:2], noised, one.whole, after, 5)
        history, noisy = one.latents.clone(), add_noise(*one[:2], noised)
        there = torch.where(noised[..., None, None, None] > 0, one.noise, one.latents)
        history[:, after:] = dream.history
        if prefix:
            noisy[:, after:] = dream.way
            for taken in range(2 if level == 0.5 else 1):  # the teacher's way, over one step of the student at a time
                steps = torch.where(noised > 0, taken, 2)
                there = there - 0.5 * objective.target(there, steps, one.whole, 5, one.latents)
            taught = (noisy - there) / 0.5
        else:
            taught = objective.target(
                noisy, torch.where(noised > 0, round(2 - 2 * level), 2), one.whole, 5, one.latents
            )
        own = torch.arange(20) >= after[:, None]
        velocity, _ = student(noisy, noised, one.whole, None, 5, history, write_noise(own))
        weights = shown(one.whole["pose"], after, 2 * world.model.config.recall_lengths[1]) if prefix else 1.0
        losses.append(velocity_error(velocity, taught, noised, weights))
    torch.testing.assert_close(objective(student, lesson), torch.stack(losses).mean(), rtol=1e-3, atol=1e-5)


def test_the_teacher_is_told_what_the_student_is_not(world: World) -> None:
    objective, lesson = objective_and_lesson(world, [0.0, 0.3], guidance=0.0)
    dropped = Conditions(lesson.whole).unknown("pose")
    told: dict[str, list[Tensor]] = {"teacher": [], "student": [], "dreamer": []}
    student = WorldModel(world.model.config).train()
    student.load_state_dict(world.model.state_dict())
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
    assert torch.equal(told["teacher"][0], prefix)
    assert all(torch.equal(poses, rest) for poses in told["teacher"][1:])
    assert all(poses.isnan().all() for role in ("student", "dreamer") for poses in told[role])
    assert [len(told[role]) for role in roles] == [1 + 4, 1, 1 + 2 * (2 + 1)]
    assert any(parameter.grad is not None and parameter.grad.any() for parameter in student.parameters())
    assert all(parameter.grad is None for parameter in objective.teacher.parameters())
