"""What a rollout carries: the memory of everything seen, of a size that does not depend on how much that was."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, NamedTuple

import msgspec
import torch
from torch import Tensor

from lssvwm_core.conditions import Conditions
from lssvwm_core.model.recent import Recent
from lssvwm_core.model.tensors import (
    FLOATS,
    TensorSpec,
    problems,
    read_header,
    read_tensors,
    specs_of,
    write_tensors,
)
from lssvwm_datasets.errors import LssvwmError
from lssvwm_datasets.schema import parse_json

METADATA_KEY = "lssvwm-state"  # of the safetensors file: JSON of a `_SavedFields`
EXTRA = "extra."
RECENT = "latents"  # beside a saved state, and what led to them
RECENT_CONDITIONS = "recent."
NOTHING = Recent.none(0, (), {})
MAX_FRAMES_SEEN = 2**53 - 1  # counting ends here: what every reader of JSON takes for a whole number
MAX_EXTRA_NUMBERS = 2**27  # that are read beside a state: many times what a window of large latents needs


class Growth(NamedTuple):
    """How a tensor of a state grows: along `dimension`, by `a_frame` entries with every frame."""

    dimension: int
    a_frame: int

    def shape(self, shape: Sequence[int], frames: int) -> tuple[int, ...]:
        """The shape that a tensor of this one has after so many frames."""
        before, after = shape[: self.dimension], shape[self.dimension + 1 :]
        return (*before, self.a_frame * frames, *after)


@dataclass(frozen=True)
class _SavedFields:
    frames_seen: Annotated[int, msgspec.Meta(ge=0, le=MAX_FRAMES_SEEN)]


@dataclass
class ModelState:
    """What each stateful part of a model remembers: `WorldModel.initial_state` makes one, the model's calls go on.

    A part's memory is a dict of tensors of any dtype, with names of its own. All have a fixed size, but those for which
    there is a `Growth`.

    Attributes:
        mixers: the dicts: of each mixer of each layer, and last of the odometer where the model has one.
        batch: worlds side by side.
        frames_seen: frames committed so far; counted up to `MAX_FRAMES_SEEN`.
        growth: the tensors that grow with the frames, by their names in `tensors`.
        unknown_as_nan: the names in `tensors` of those in which NaN stands for what is unknown.
        recent: the last frames, which a world keeps for guidance and to be compared with its memory cut.
    """

    mixers: list[dict[str, Tensor]]
    batch: int
    frames_seen: int = 0
    growth: Mapping[str, Growth] = field(default_factory=dict)
    unknown_as_nan: frozenset[str] = frozenset()
    recent: Recent = NOTHING

    @property
    def tensors(self) -> dict[str, Tensor]:
        """All tensors, by the names that they have in a saved state."""
        return {state_name(i, name): tensor for i, part in enumerate(self.mixers) for name, tensor in part.items()}

    @property
    def nbytes(self) -> int:
        return sum(tensor.nbytes for tensor in self.tensors.values())

    def copy(self) -> "ModelState":
        """An independent copy: a branch of the world."""
        return replace(self, mixers=[{name: tensor.clone() for name, tensor in part.items()} for part in self.mixers])

    def of_world(self, number: int) -> "ModelState":
        """An independent copy of the state of one of the worlds side by side."""

        def rows(tensor: Tensor) -> Tensor:
            each = len(tensor) // self.batch
            return tensor[number * each : (number + 1) * each].clone()

        mixers = [{name: rows(tensor) for name, tensor in part.items()} for part in self.mixers]
        return replace(self, mixers=mixers, batch=1, recent=self.recent.of_world(number))

    @staticmethod
    def joined(states: "Sequence[ModelState]") -> "ModelState":
        """The states of worlds of the same model as a state of all of them side by side.

        Raises: ValueError where memories that grow with the frames have seen different numbers of them.
        """
        first = states[0]
        seen = {state.frames_seen for state in states}
        if first.growth and len(seen) > 1:
            raise ValueError(f"worlds whose memories grow have seen {sorted(seen)} frames; expected as many each")
        parts = zip(*(state.mixers for state in states), strict=True)
        mixers = [{name: torch.cat([one[name] for one in part]) for name in part[0]} for part in parts]
        batch, recent = sum(state.batch for state in states), Recent.joined([state.recent for state in states])
        return replace(first, mixers=mixers, batch=batch, frames_seen=min(seen), recent=recent)

    def after(self, mixers: list[dict[str, Tensor]], frames: int) -> "ModelState":
        """The state of the same model when its parts have seen so many more frames."""
        return replace(self, mixers=mixers, frames_seen=min(self.frames_seen + frames, MAX_FRAMES_SEEN))

    def save(self, path: Path, extra: Mapping[str, Tensor] | None = None) -> None:
        """Write a safetensors file; `extra` tensors travel with it."""
        recent = {RECENT_CONDITIONS + name: rows for name, rows in self.recent.conditions.items()}
        beside = {**(extra or {}), **({RECENT: self.recent.latents, **recent} if self.recent.frames else {})}
        tensors = self.tensors | {EXTRA + name: tensor for name, tensor in beside.items()}
        write_tensors(path, tensors, {METADATA_KEY: json.dumps({"frames_seen": self.frames_seen})})

    def restore(self, path: Path) -> dict[str, Tensor]:
        """Fill this state from a file and return the extra tensors, on the CPU; numbers with a fraction as float32.

        Raises: LssvwmError when the file is damaged or belongs to another model (names, shapes or types differ), and
        the state then stays as it was; OSError for trouble of the machine.
        """
        header = read_header(path)
        if METADATA_KEY not in header.metadata:
            raise LssvwmError(f"{path}: a safetensors file, but not a world state of lssvwm")
        frames_seen = parse_json(f"{path}: {METADATA_KEY}", header.metadata[METADATA_KEY], _SavedFields).frames_seen
        extra = {name: spec for name, spec in header.tensors.items() if name.startswith(EXTRA)}
        if sum(math.prod(spec.shape) for spec in extra.values()) > MAX_EXTRA_NUMBERS:
            raise LssvwmError(
                f"{path}: more than {MAX_EXTRA_NUMBERS:,} numbers beside the state, so not a world's state"
            )
        specs = self._specs_after(frames_seen) | {
            name: TensorSpec(spec.shape, torch.float32 if spec.dtype in FLOATS else spec.dtype, may_be_nan=True)
            for name, spec in extra.items()
        }
        differing = problems(header, specs)
        if differing:
            raise LssvwmError(f"{path}: the state of another model or batch size ({differing[0]})")
        tensors = read_tensors(path, specs)
        beside = {name.removeprefix(EXTRA): tensors[name].clone() for name in extra}
        recent = self._recent_of(path, beside)
        self.mixers = [
            {name: tensors[state_name(i, name)].to(own.device, copy=True) for name, own in part.items()}
            for i, part in enumerate(self.mixers)
        ]
        self.frames_seen, self.recent = frames_seen, recent
        return beside

    def _recent_of(self, path: Path, beside: dict[str, Tensor]) -> Recent:
        """The recent frames, which are taken from what travels with a saved state. Raises: LssvwmError."""
        led = {name: beside.pop(name) for name in list(beside) if name.startswith(RECENT_CONDITIONS)}
        if RECENT not in beside and not led:
            return self.recent.last(0)
        try:
            conditions = Conditions({name.removeprefix(RECENT_CONDITIONS): rows for name, rows in led.items()})
            recent = Recent(beside.pop(RECENT), conditions)
        except (KeyError, ValueError):
            recent = NOTHING
        if not self.recent.takes(recent):
            raise LssvwmError(f"{path}: damaged: its recent frames do not fit the world's latents and conditions")
        return recent

    def _specs_after(self, frames_seen: int) -> dict[str, TensorSpec]:
        """What the tensors of this model's state are when it has seen so many frames."""
        specs = {}
        for name, (shape, dtype, _) in specs_of(self.tensors).items():
            grown = self.growth[name].shape(shape, frames_seen) if name in self.growth else shape
            specs[name] = TensorSpec(grown, dtype, name in self.unknown_as_nan)
        return specs


def state_name(part: int, name: str) -> str:
    """The name, within the whole state, of a tensor of the state's part number `part`."""
    return f"mixers.{part}.{name}"
