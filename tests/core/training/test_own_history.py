"""A student's own history: what a rollout makes, and the truth as the aim only where the prefix has shown it."""

import contextlib
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


@pytest.mark.parametrize("chunk", [5, 1])
def test_it_is_what_a_rollout_makes(world: World, chunk: int) -> None:
    world = world.sampled_with(steps=2, chunk=chunk, guidance=0.0)
    latents, noise, led = clips(world.model)
    for seed in (0, 1):  # as a rollout draws it
        rng = torch.Generator().manual_seed(seed)
        pieces = [torch.randn(piece.shape, generator=rng) for piece in noise[seed, 20:].split(chunk)]
        noise[seed, 20:] = torch.cat(pieces)
    found = own_history(world.model, world.sampler, latents, noise, led, torch.tensor([20, 20]), chunk)
    rollout = Rollout(world, (0, 1))
    rollout.observe(latents[:, :20], led[:20])
    expected = [piece.latents for piece in rollout.run(led[20:])]
    assert torch.equal(found[:, :20], latents[:, :20])
    torch.testing.assert_close(found[:, 20:], torch.cat(expected, dim=1), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("prefixes", [[15, 25], [30, 10], [0, 30], [30, 30]])
def test_clips_side_by_side_are_as_each_alone(world: World, prefixes: list[int]) -> None:
    latents, noise, led = clips(world.model)
    both = own_history(world.model, Euler(2), latents, noise, led, torch.tensor(prefixes), 5)
    for number, prefix in enumerate(prefixes):
        one = slice(number, number + 1)
        alone = {name: rows[one] for name, rows in led.items()}
        found = own_history(world.model, Euler(2), latents[one], noise[one], alone, torch.tensor([prefix]), 5)
        torch.testing.assert_close(both[one], found, atol=1e-4, rtol=1e-4)
        assert torch.equal(found[:, :prefix], latents[one, :prefix])
        assert prefix == 30 or not torch.allclose(found[:, prefix:], latents[one, prefix:], atol=0.1)


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


def objective_and_lesson(world: World, places: list[float], own: bool = True) -> tuple[Distillation, Lesson]:
    """Ten frames of a prefix at one place, then two chunks at the `places`, all told; the first of them is noised."""
    model = world.model
    latents, noise, led = clips(model, batch=1, frames=20)
    poses = torch.zeros_like(led["pose"])
    poses[0, 10:15, 0], poses[0, 15:, 0] = places[0], places[1]
    led = Conditions(action=led["action"], pose=poses)
    levels = torch.tensor([[0.0] * 10 + [0.9] * 5 + [0.4] * 5])
    teacher = WorldModel(model.config).train()
    teacher.load_state_dict(model.state_dict())
    with torch.no_grad():
        for parameter in teacher.parameters():
            parameter += 0.05
    objective = Distillation(teacher, Euler(4, guidance=1.0), Euler(2), model.eval() if own else None)
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


def test_the_teacher_is_told_what_the_student_is_not(world: World) -> None:
    objective, lesson = objective_and_lesson(world, [0.0, 0.3])
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
    assert all(torch.equal(poses, lesson.whole["pose"]) for poses in told["teacher"])
    assert all(poses.isnan().all() for role in ("student", "dreamer") for poses in told[role])
    assert [len(told[role]) for role in roles] == [2, 1, 1 + 2 * (2 + 1)]
    assert any(parameter.grad is not None and parameter.grad.any() for parameter in student.parameters())
    assert all(parameter.grad is None for parameter in objective.teacher.parameters())
