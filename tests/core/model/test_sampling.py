"""Samplers: their schedules, where they arrive, and that another one is a class and a line."""

from dataclasses import dataclass
from types import SimpleNamespace

import pytest
import torch

from lssvwm_core.model.recall import Recollection
from lssvwm_core.sampling import SAMPLERS, Euler, denoise, make_sampler, sampler_settings
from lssvwm_core.training.step.distillation import Distillation


class Forgetful:
    """A model that recalls nothing."""

    def recollect(self, state, conditions, chunk):
        return None


class Oracle(Forgetful):
    """The velocity that leads to `clean` from anywhere; it notes the levels and states it was called with."""

    def __init__(self, clean):
        self.clean, self.calls = clean, []

    def __call__(
        self, x, noise_levels, conditions, state=None, chunk=None, remember=None, recollection=None, keep=True
    ):
        self.calls.append((noise_levels, conditions, state, chunk))
        return (x - self.clean) / noise_levels[:, :, None, None, None].clamp(min=1e-6), "the next state"


@pytest.mark.parametrize("steps", [1, 4, 20])
def test_the_sampler_follows_the_velocity_to_the_clean_latent(normal, steps):
    clean, conditions, state = normal(2, 5, 3, 4, 4), {"action": normal(2, 5, 3)}, object()
    oracle = Oracle(clean)
    torch.testing.assert_close(denoise(oracle, Euler(steps), normal(2, 5, 3, 4, 4, seed=1), conditions, state), clean)
    levels = torch.stack([call[0] for call in oracle.calls])
    torch.testing.assert_close(levels, torch.linspace(1, 0, steps + 1)[:-1, None, None].expand(steps, 2, 5))
    assert all(call[1:] == (conditions, state, 5) for call in oracle.calls)


@torch.no_grad()
def test_denoising_leaves_the_state_as_it_was(model, normal):
    _, state = model(normal(1, 10, 3, 4, 4), torch.zeros(1, 10), {})
    before, noise = state.copy(), normal(1, 5, 3, 4, 4, seed=1)
    dream = denoise(model, Euler(3), noise, {}, state)
    assert state.frames_seen == 10
    torch.testing.assert_close(state.mixers, before.mixers, rtol=0, atol=0)
    assert torch.equal(denoise(model, Euler(3), noise, {}, state), dream)
    assert not torch.equal(denoise(model, Euler(3), noise, {}, model.initial_state(1)), dream)


def test_levels_fall_from_noise_to_clean_and_a_shift_lingers_at_high_noise():
    assert Euler(4).levels() == (1.0, 0.75, 0.5, 0.25, 0.0)
    assert Euler(4, shift=3.0).levels() == pytest.approx([1.0, 0.9, 0.75, 0.5, 0.0])
    assert Euler(1, shift=3.0).levels() == (1.0, 0.0)


@pytest.mark.parametrize(
    "settings",
    [
        {"steps": 0},
        {"shift": 0.0},
        {"shift": float("nan")},
        {"guidance": -1.0},
        {"guidance": float("nan")},
        {"guidance": 1e3},
        {"temperature": -0.1},
        {"temperature": 1.5},
        {"temperature": float("nan")},
        {"order": 2},
        {"name": "x"},
    ],
)
def test_settings_that_do_not_fit_are_refused(settings):
    with pytest.raises(ValueError, match=r"steps|guidance|temperature|order|unknown sampler"):
        make_sampler(settings)


@dataclass(frozen=True)
class Midpoint:
    """A second order sampler, as somebody would add one."""

    steps: int = 4
    guidance: float = 0.0
    temperature: float = 1.0

    def levels(self):
        return tuple(1 - step / self.steps for step in range(self.steps + 1))

    def advance(self, velocity, x, now, after):
        half = (now + after) / 2
        return x + (after - now) * velocity(x + (half - now) * velocity(x, now), half)


class Curved(Forgetful):
    """x(t) = clean + noise · t², whose velocity is 2 · noise · t: Euler does not arrive, a second order does."""

    def __init__(self, noise):
        self.noise = noise

    def __call__(
        self, x, noise_levels, conditions, state=None, chunk=None, remember=None, recollection=None, keep=True
    ):
        return 2 * self.noise * noise_levels[:, :, None, None, None], state


def test_another_sampler_is_a_class_and_a_line(monkeypatch, normal):
    monkeypatch.setitem(SAMPLERS, "midpoint", Midpoint)
    sampler = make_sampler({"name": "midpoint", "steps": 3})
    assert sampler_settings(sampler) == {"name": "midpoint", "steps": 3, "guidance": 0.0, "temperature": 1.0}
    noise = normal(1, 2, 3, 4, 4)
    torch.testing.assert_close(denoise(Curved(noise), sampler, noise, {}, object()), torch.zeros_like(noise))
    assert denoise(Curved(noise), Euler(3), noise, {}, object()).abs().max() > 0.1


class Drawn(Forgetful):
    """Goes one way with its memory, and another without it."""

    def __init__(self, ways):
        self.ways, self.calls = ways, 0

    def __call__(
        self, x, noise_levels, conditions, state=None, chunk=None, remember=None, recollection=None, keep=True
    ):
        self.calls += 1
        return torch.full_like(x, self.ways[state.name]), state


@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize("guidance", [0.0, 0.5, 2.0])
def test_guidance_goes_beyond_away_from_the_world_without_its_memory(normal, guidance, steps):
    model, noise = Drawn({"whole": 3.0, "cut": 1.0}), normal(1, 5, 3, 4, 4)
    whole, cut = (SimpleNamespace(name=name, growth={"keys": ...}) for name in ("whole", "cut"))
    dream = denoise(model, Euler(steps, guidance=guidance), noise, {}, whole, cut=cut)
    torch.testing.assert_close(dream, noise - (3.0 + guidance * 2.0))
    assert model.calls == steps * (2 if guidance else 1), "without guidance nobody asks what would be without memory"
    torch.testing.assert_close(denoise(model, Euler(steps, guidance=guidance), noise, {}, whole), noise - 3.0)


@pytest.fixture
def remembering():
    """Knows five places by certainty: it is logarithmic in the novelty, half at the root of the ridge."""
    model = Drawn({"whole": 3.0, "cut": 1.0})
    model.config = SimpleNamespace(recall_ridge=1e-4)
    novelty = torch.tensor([[1.0, 0.1, 1e-2, 1e-4, 0.0]])
    model.recollect = lambda *_: Recollection(torch.zeros(1, 5, 3, 4, 4), novelty)
    return model


CERTAINTY = torch.tensor([0.0, 0.25, 0.5, 1.0, 1.0])[:, None, None, None]


def test_where_the_memory_has_the_very_frame_nothing_is_guided(remembering, normal):
    model, noise = remembering, normal(1, 5, 3, 4, 4)
    whole, cut = (SimpleNamespace(name=name, growth={"keys": ...}) for name in ("whole", "cut"))
    dream = denoise(model, Euler(2, guidance=0.8), noise, {}, whole, cut=cut)
    torch.testing.assert_close(dream, noise - (3.0 + 0.8 * (1 - CERTAINTY) * 2.0))


@pytest.mark.parametrize("temperature", [0.0, 0.25, 1.0])
def test_the_noise_falls_to_the_temperature_where_the_memory_is_certain(remembering, normal, temperature):
    noise, state = normal(1, 5, 3, 4, 4), SimpleNamespace(name="whole", growth={})
    dream = denoise(remembering, Euler(2, temperature=temperature), noise, {}, state)
    torch.testing.assert_close(dream, noise * (1 - CERTAINTY + temperature * CERTAINTY) - 3.0)


def test_a_world_that_recalls_nothing_takes_all_of_the_noise(normal):
    noise, state = normal(1, 5, 3, 4, 4), SimpleNamespace(name="whole", growth={})
    dream = denoise(Drawn({"whole": 3.0}), Euler(1, temperature=0.0), noise, {}, state)
    assert torch.equal(dream, noise - 3.0)


def test_distillation_takes_any_teacher(normal):
    """The mean velocity over a student's step is that of the curve, exactly, by a second order teacher."""
    noise = normal(1, 4, 3, 4, 4)
    distillation = Distillation(Curved(noise), Midpoint(4), Euler(2, shift=1.0))
    taken = torch.tensor([[2, 1, 0, 0]])  # clean, at level 0.5, at level 1
    levels = 1 - taken / 2
    expected = noise * ((levels**2 - (levels - 0.5) ** 2) / 0.5 * (taken < 2))[:, :, None, None, None]
    torch.testing.assert_close(distillation.target(noise, taken, {}, 1), expected)
