"""What a rollout carries: the memory of everything seen, of a size that does not depend on how much that was."""

import json
from dataclasses import dataclass
from pathlib import Path

import safetensors
from safetensors.torch import save_file
from torch import Tensor

from lssvwm_datasets.errors import LssvwmError
from lssvwm_datasets.files import written_whole


@dataclass
class ModelState:
    """One dict of tensors for each mixer of each layer: scan states, convolution tails, keys and values of the window.

    Where a model reckons poses, the odometer's dict is the last.

    Only the baseline that attends to all of the past has tensors that grow: `past_keys` and `past_values`.

    Attributes:
        mixers: the dicts, in the model's order.
        batch: worlds side by side.
        frames_seen: frames committed so far.
    """

    mixers: list[dict[str, Tensor]]
    batch: int
    frames_seen: int = 0

    @property
    def nbytes(self) -> int:
        return sum(tensor.nbytes for mixer in self.mixers for tensor in mixer.values())

    def copy(self) -> "ModelState":
        """An independent copy: a branch of the world."""
        mixers = [{name: tensor.clone() for name, tensor in mixer.items()} for mixer in self.mixers]
        return ModelState(mixers, self.batch, self.frames_seen)

    def save(self, path: Path, extra: dict[str, Tensor] | None = None) -> None:
        """Write a safetensors file; `extra` tensors travel with it."""
        tensors = {f"mixers.{i}.{name}": t for i, mixer in enumerate(self.mixers) for name, t in mixer.items()}
        tensors |= {f"extra.{name}": tensor for name, tensor in (extra or {}).items()}
        metadata = {"lssvwm-state": json.dumps({"frames_seen": self.frames_seen})}
        with written_whole(path) as partial:
            save_file({name: tensor.cpu().contiguous() for name, tensor in tensors.items()}, partial, metadata)

    def restore(self, path: Path) -> dict[str, Tensor]:
        """Fill this state from a file and return the extra tensors.

        Raises: LssvwmError when the file is damaged or belongs to another model (names or shapes differ).
        """
        try:
            with safetensors.safe_open(path, framework="pt") as file:
                found = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
                header = json.loads((file.metadata() or {}).get("lssvwm-state", "null"))
            frames_seen = None if header is None else int(header["frames_seen"])
        except (OSError, safetensors.SafetensorError, ValueError, KeyError, TypeError) as error:
            raise LssvwmError(f"{path}: not a readable world state ({error})") from error
        if frames_seen is None:
            raise LssvwmError(f"{path}: a safetensors file, but not a world state of lssvwm")
        extra = {name.removeprefix("extra."): found.pop(name) for name in list(found) if name.startswith("extra.")}
        own = {f"mixers.{i}.{name}": t for i, mixer in enumerate(self.mixers) for name, t in mixer.items()}
        shapes = [{name: _fixed_shape(name, tensor) for name, tensor in tensors.items()} for tensors in (found, own)]
        if shapes[0] != shapes[1]:
            differing = sorted(shapes[0].items() ^ shapes[1].items())[0][0]
            raise LssvwmError(f"{path}: the state of another model or batch size ({differing} does not fit)")
        self.mixers = [
            {name: found[f"mixers.{i}.{name}"].to(tensor.device, tensor.dtype) for name, tensor in mixer.items()}
            for i, mixer in enumerate(self.mixers)
        ]
        self.frames_seen = frames_seen
        return extra


def _fixed_shape(name: str, tensor: Tensor) -> tuple[int, ...]:
    """Without the tokens of a cache that grows, (B, heads, tokens, d)."""
    shape = tuple(tensor.shape)
    return shape[:2] + shape[3:] if ".past_" in name else shape
