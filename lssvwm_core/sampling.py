"""How a world goes from noise to a clean chunk: samplers, each with its schedule of noise levels.

Adding a sampler is a class with the members of `Sampler` and a line in `SAMPLERS`; worlds keep its name in their
config, and distillation takes any of them as its teacher's.

Guidance. A world trusts the frames just before it, which were true in training, more than what it remembers: an error
goes on from frame to frame where the memory knows better. So a step may be taken beyond what the world would do, away
from what it would do if it had seen those frames alone, v + g · (v - v without memory): classifier-free guidance (Ho
and Salimans, 2022) towards the memory, as in history-guided diffusion (Song et al., 2025). Where a memory by least
squares has the very frame there is nothing beyond it, so g falls to nothing there.

Temperature. The noise that a chunk is made from stands for all that nobody can know. Where the memory has the very
frame nothing is left open, so the noise may be scaled down there, to the sampler's temperature (Kingma and Dhariwal,
2018): the world then shows what is likeliest instead of one of many.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from typing import Any, Protocol

import torch
from torch import Tensor

from lssvwm_core.cuda_graph import Graphs
from lssvwm_core.device import autocast, fastest_precision
from lssvwm_core.model.recall import Recollection
from lssvwm_core.model.state import ModelState, state_name
from lssvwm_core.model.world_model import WorldModel
from lssvwm_datasets.errors import LssvwmError

MOST_STEPS, MOST_GUIDANCE = 1000, 100.0
DEFAULT_STEPS = 4  # of a world that was not distilled to fewer: the knee (docs/memory.md)
GRAPHS_ON = "cuda"  # the kind of device that has them

Level = float | Tensor  # a noise level in [0, 1]; a tensor where it differs between frames, (B, T, 1, 1, 1)
Velocity = Callable[[Tensor, Level], Tensor]  # noisy latents and their level -> (noise - clean), as the model sees it


class Sampler(Protocol):
    """Integrates the flow from noise (level 1) to clean latents (level 0)."""

    @property
    def steps(self) -> int: ...

    @property
    def guidance(self) -> float:
        """g, how far beyond a world's own velocity: 0 takes that, which costs half."""
        ...

    @property
    def temperature(self) -> float:
        """The share of the noise that is left where the memory is certain: 1 takes all of it everywhere."""
        ...

    def levels(self) -> tuple[float, ...]:
        """The schedule: `steps` + 1 noise levels, falling from 1 to 0."""
        ...

    def advance(self, velocity: Velocity, x: Tensor, now: Level, after: Level) -> Tensor:
        """Latents (B, T, C, h, w) at level `now`, moved to level `after`; `velocity` may be asked several times."""
        ...


@dataclass(frozen=True)
class Euler:
    """One evaluation of the model a step.

    Attributes:
        shift: levels are spaced evenly at 1; above 1 the steps are finer at high noise (Esser et al., 2024, eq. 23).
        guidance, temperature: see `Sampler`.
    """

    steps: int = DEFAULT_STEPS
    shift: float = 1.0
    guidance: float = 0.0
    temperature: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.guidance <= MOST_GUIDANCE:
            raise ValueError(f"a guidance of {self.guidance}; expected 0 to {MOST_GUIDANCE:g}")
        if not 0 <= self.temperature <= 1:
            raise ValueError(f"a temperature of {self.temperature}; expected 0 to 1")
        if not 1 <= self.steps <= MOST_STEPS or not 0 < self.shift < float("inf"):
            raise ValueError(
                f"{self.steps} steps with a shift of {self.shift}; expected 1 to {MOST_STEPS}, and above 0"
            )

    def levels(self) -> tuple[float, ...]:
        even = torch.linspace(1, 0, self.steps + 1).tolist()
        return tuple(self.shift * level / (1 + (self.shift - 1) * level) for level in even)

    def advance(self, velocity: Velocity, x: Tensor, now: Level, after: Level) -> Tensor:
        return x + (after - now) * velocity(x, now)


SAMPLERS: dict[str, Callable[..., Sampler]] = {"euler": Euler}


def make_sampler(settings: dict[str, Any]) -> Sampler:
    """The sampler that `sampler_settings` described. Raises: ValueError for unknown names or settings."""
    name = settings.get("name", "euler")
    if name not in SAMPLERS:
        raise ValueError(f"unknown sampler {name!r}; expected one of {', '.join(SAMPLERS)}")
    try:
        return SAMPLERS[name](**{key: value for key, value in settings.items() if key != "name"})
    except TypeError as error:
        raise ValueError(f"sampler {name}: {error}") from error


def sampler_settings(sampler: Any) -> dict[str, Any]:
    """What a world's config keeps of its sampler: the name and the fields of the dataclass."""
    name = next(name for name, kind in SAMPLERS.items() if type(sampler) is kind)
    return {"name": name, **asdict(sampler)}


def with_settings(sampler: Sampler, **settings: float | None) -> Sampler:
    """The same sampler with other steps, guidance or temperature; None: with its own.

    Raises: LssvwmError where it takes no such.
    """
    fields: Any = sampler  # a dataclass, as every sampler
    given = {name: value for name, value in settings.items() if value is not None}
    try:
        return replace(fields, **given) if given else sampler
    except ValueError as error:
        raise LssvwmError(f"sampler: {error}") from error


def denoise(
    model: WorldModel,
    sampler: Sampler,
    noise: Tensor,
    conditions: Mapping[str, Tensor],
    state: ModelState,
    recollection: Recollection | None = None,
    cut: ModelState | None = None,
    cut_recollection: Recollection | None = None,
    passing: Callable[[float, Tensor], object] | None = None,
) -> Tensor:
    """One chunk from noise (B, c, C, h, w) to clean latents of the same shape; `state` stays as it is.

    Args:
        recollection: of these frames, as `WorldModel.recollect` gives it, where it is known already.
        cut: the state after the last frames alone, for a sampler with guidance; None: it goes without.
        cut_recollection: what that recalls, where it is known already.
        passing: told each level and the latents at it, before the step from there.
    """
    chunk = noise.shape[1]
    recollection = recollection or model.recollect(state, conditions, chunk)
    asked, guidance = [_Asked(state, conditions, recollection)], guidance_of(model, sampler, recollection)
    if cut is not None and sampler.guidance:
        asked.append(_Asked(cut, conditions, cut_recollection or model.recollect(cut, conditions, chunk)))
        if _sees_as_much(model, chunk, state, cut):
            asked = [_Asked.beside(*asked)]  # in one pass, which takes little longer than one of them

    def velocity(x: Tensor, level: Level) -> Tensor:
        found = torch.cat([one.velocity(model, x, level) for one in asked])
        if len(found) == len(x):
            return found
        with_memory, without = found.chunk(2)
        return guided(with_memory, without, guidance)

    x = noise * temperature_of(model, sampler, recollection)
    for now, after in pairwise(sampler.levels()):
        if passing is not None:
            passing(now, x)
        x = sampler.advance(velocity, x, now, after)
    return x


@dataclass(frozen=True)
class _Asked:
    """What a model is asked a velocity with."""

    state: ModelState
    conditions: Mapping[str, Tensor]
    recollection: Recollection | None
    copies: int = 1

    def velocity(self, model: WorldModel, x: Tensor, level: Level) -> Tensor:
        """(copies · B, c, C, h, w) of the noisy latents x (B, c, C, h, w)."""
        x = x.repeat(self.copies, 1, 1, 1, 1)
        levels = torch.full(x.shape[:2], float(level), device=x.device)
        state, chunk = self.state, x.shape[1]
        return model(x, levels, self.conditions, state, chunk, recollection=self.recollection, keep=False)[0]

    @staticmethod
    def beside(one: "_Asked", other: "_Asked") -> "_Asked":
        """Both at once: the first half of the worlds are the one's, the second the other's."""
        conditions = {name: torch.cat([rows, other.conditions[name]]) for name, rows in one.conditions.items()}
        states, recollection = [one.state, other.state], None
        if one.recollection is not None and other.recollection is not None:
            pairs = zip(one.recollection, other.recollection, strict=True)
            recollection = Recollection(*(torch.cat(pair) for pair in pairs))
            states = [replace(state, mixers=[*state.mixers[:-1], {}]) for state in states]  # large, and read already
        return _Asked(ModelState.joined(states), conditions, recollection, copies=2)


def _sees_as_much(model: WorldModel, chunk: int, state: ModelState, cut: ModelState) -> bool:
    """Whether the attention sees as many frames before a chunk in both, so that they can go side by side."""
    if state.growth:
        return False
    tail = model.config.frame_window - chunk
    return min(state.frames_seen, tail) == min(cut.frames_seen, tail)


def guidance_of(model: WorldModel, sampler: Sampler, recollection: Recollection | None) -> float | Tensor:
    """The guidance of each frame, (B, c, 1, 1, 1): all of it at new places, none where the memory has the frame."""
    return sampler.guidance * (1 - _certainty(model, recollection))


def temperature_of(model: WorldModel, sampler: Sampler, recollection: Recollection | None) -> float | Tensor:
    """What each frame's noise is scaled by, (B, c, 1, 1, 1): 1 at new places, least where the memory has the frame."""
    return 1 - (1 - sampler.temperature) * _certainty(model, recollection)


def _certainty(model: WorldModel, recollection: Recollection | None) -> float | Tensor:
    """(B, c, 1, 1, 1); without a memory by least squares every place is new."""
    if recollection is None:
        return 0.0
    return recollection.certainty(model.config.recall_ridge)[:, :, None, None, None]


def guided(velocity: Tensor, without_memory: Tensor, guidance: float | Tensor) -> Tensor:
    """A velocity, and beyond it, away from that of the same world without its memory."""
    return velocity + guidance * (velocity - without_memory)


def denoise_fast(
    model: WorldModel,
    sampler: Sampler,
    noise: Tensor,
    conditions: Mapping[str, Tensor],
    state: ModelState,
    recollection: Recollection | None = None,
    cut: ModelState | None = None,
    graphs: Graphs | None = None,
) -> Tensor:
    """As `denoise`, in the precision that is fastest on the device, and by a CUDA graph where that works.

    It does on a GPU, when the attention window is full and no state grows: all chunks are then computed alike. The
    model's weights may change, but must stay where they are in memory.
    """
    device, precision, window = noise.device, fastest_precision(noise.device), model.config.frame_window
    if graphs is None or device.type != GRAPHS_ON or state.growth or state.frames_seen < window:
        with autocast(device, precision):
            return denoise(model, sampler, noise, conditions, state, recollection, cut)

    streams, chunk = list(conditions), noise.shape[1]
    whole, whole_read = _Parts.of("whole.", state, recollection or model.recollect(state, conditions, chunk), window)
    tensors = {"noise": noise, **{f"conditions.{name}": rows for name, rows in conditions.items()}, **whole_read}
    without: _Parts | None = None
    if cut is not None and sampler.guidance:
        without, cut_read = _Parts.of("cut.", cut, model.recollect(cut, conditions, chunk), cut.frames_seen)
        tensors |= cut_read

    def function(given: Mapping[str, Tensor]) -> Tensor:
        led = {name: given[f"conditions.{name}"] for name in streams}
        cut, cut_recollection = without.again(given) if without else (None, None)
        with autocast(device, precision):  # within: weights are cast once, by the graph too
            return denoise(model, sampler, given["noise"], led, *whole.again(given), cut, cut_recollection)

    with torch.cuda.device(device):
        return graphs((model, repr(sampler), without and without.frames_seen), function, tensors)


@dataclass(frozen=True)
class _Parts:
    """The names of what a chunk is made from, a state and what it recalls, so that others can take their place."""

    prefix: str
    mixers: list[list[str]]
    batch: int
    frames_seen: int
    recalls: bool

    @staticmethod
    def of(
        prefix: str, state: ModelState, recollection: Recollection | None, frames_seen: int
    ) -> "tuple[_Parts, dict[str, Tensor]]":
        """The names, and the tensors by them."""
        recalls = recollection is not None
        parts = state.mixers[:-1] if recalls else state.mixers  # the last was read for the recollection, and is large
        tensors = {prefix + state_name(i, name): own for i, part in enumerate(parts) for name, own in part.items()}
        if recollection is not None:
            tensors |= {prefix + name: own for name, own in recollection._asdict().items()}
        return _Parts(prefix, [list(part) for part in parts], state.batch, frames_seen, recalls), tensors

    def again(self, given: Mapping[str, Tensor]) -> tuple[ModelState, Recollection | None]:
        mixers = [{name: given[self.prefix + state_name(i, name)] for name in own} for i, own in enumerate(self.mixers)]
        state = ModelState([*mixers, *([{}] if self.recalls else [])], self.batch, self.frames_seen)
        recalled = [given[self.prefix + name] for name in Recollection._fields] if self.recalls else None
        return state, Recollection(*recalled) if recalled else None
