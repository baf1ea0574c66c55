"""A world: model and autoencoder together, driven by the three calls of a rollout.

state = world.reset(batch)                       memory of fixed size, whatever the past
world.observe(state, latents, conditions)        commit clean frames, any multiple of the chunk
chunk = world.generate(state, conditions, rng)   denoise against the frozen state, then commit (paper, 'Inference')
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lssvwm_core.device import autocast, fastest_precision, why_not_compiled
from lssvwm_core.diffusion import denoise
from lssvwm_core.model import storage
from lssvwm_core.model.autoencoder import load_autoencoder
from lssvwm_core.model.config import ModelConfig, with_current_names
from lssvwm_core.model.frame_codec import FrameCodec
from lssvwm_core.model.state import ModelState
from lssvwm_core.model.world_model import WorldModel
from lssvwm_datasets.errors import LssvwmError
from lssvwm_datasets.shards import ShardHeader

logger = logging.getLogger(__name__)
KIND = "world-model"
OBSERVE_FRAMES = 100  # committed at once, at most: bounds the memory of a long context
SAMPLING_STEPS = 4  # of a world that was not distilled to fewer: the knee (docs/memory.md)
DECODE_PIXELS = 128 * 64 * 64  # decoded at once: bounds the memory of large frames

Conditions = Mapping[str, Tensor]


@dataclass
class World:
    """A trained world, ready to roll out.

    Attributes:
        header: the data it was trained on: columns of the condition streams, frame size, autoencoder.
        chunk: frames generated together; one of the model's chunk sizes.
        steps: denoising steps a chunk; what the world was trained for unless it is told otherwise.
        shift: of the noise levels of these steps; see `diffusion.sampling_levels`.
    """

    model: WorldModel
    autoencoder: FrameCodec
    header: ShardHeader
    device: torch.device
    chunk: int = 5
    steps: int = SAMPLING_STEPS
    shift: float = 1.0

    def sampled_with(self, steps: int | None = None, chunk: int | None = None) -> "World":
        """The same world with its own steps and chunk, or others. Raises: LssvwmError for a chunk it does not know."""
        chunk, known = chunk or self.chunk, self.model.config.chunk_sizes
        if chunk not in known:
            raise LssvwmError(f"--chunk {chunk}: the world was trained for {', '.join(map(str, known))}")
        return replace(self, steps=steps or self.steps, chunk=chunk)

    def reset(self, batch: int = 1) -> ModelState:
        """The memory of `batch` worlds that have seen nothing."""
        return self.model.initial_state(batch)

    @torch.inference_mode()
    def observe(self, state: ModelState, latents: Tensor, conditions: Conditions) -> None:
        """Commit clean latents (B, T, C, h, w) and their conditions (B, T, columns) to `state`."""
        piece = max(1, OBSERVE_FRAMES // self.chunk) * self.chunk
        for start in range(0, latents.shape[1], piece):
            rows = slice(start, start + piece)
            self._commit(state, latents[:, rows], {name: rows_[:, rows] for name, rows_ in conditions.items()})

    def generate(
        self, state: ModelState, conditions: Conditions, rng: torch.Generator | Sequence[torch.Generator]
    ) -> Tensor:
        """Dream the next chunk, (B, chunk, C, h, w), and commit it.

        `rng` is a CPU generator, or one for each world of the batch: same seed, same dream, whatever the batch.
        """
        latents = self.dream(state, conditions, rng)
        self.observe(state, latents, conditions)
        return latents

    @torch.inference_mode()
    def dream(
        self, state: ModelState, conditions: Conditions, rng: torch.Generator | Sequence[torch.Generator]
    ) -> Tensor:
        """The next chunk, as `generate` gives it, before it is committed with `observe`."""
        shape = (self.chunk, *self.model.config.latent_shape)
        if isinstance(rng, torch.Generator):
            noise = torch.randn(state.batch, *shape, generator=rng).to(self.device)
        else:
            noise = torch.stack([torch.randn(*shape, generator=one) for one in rng]).to(self.device)
        conditions = {name: rows.to(self.device) for name, rows in conditions.items()}
        with autocast(self.device, fastest_precision(self.device)):
            return denoise(self.model, noise, conditions, state, self.steps, self.shift)

    @torch.inference_mode()
    def decode(self, latents: Tensor) -> NDArray[np.uint8]:
        """(T, C, h, w) latents -> (T, H, W, 3) uint8 frames."""
        height, width = self.header.frame_size
        parts = latents.to(self.device).split(max(1, DECODE_PIXELS // (height * width)))
        return torch.cat([self.autoencoder.decode(part).cpu() for part in parts]).numpy()

    def _commit(self, state: ModelState, latents: Tensor, conditions: Conditions) -> None:
        latents = latents.to(self.device, torch.float32)
        conditions = {name: rows.to(self.device) for name, rows in conditions.items()}
        clean = torch.zeros(latents.shape[:2], device=self.device)
        with autocast(self.device, fastest_precision(self.device)):
            _, new_state = self.model(latents, clean, conditions, state, self.chunk)
        state.mixers, state.frames_seen = new_state.mixers, new_state.frames_seen


def compile_where_possible(model: WorldModel, device: torch.device) -> None:
    """Compile a model's layers; where that does not work, say why and leave them as they are."""
    reason = why_not_compiled(device)
    if reason is None:
        model.compile_layers()
    else:
        logger.warning("%s; going on without", reason)


def save_world(
    folder: Path,
    model: WorldModel,
    header: ShardHeader,
    autoencoder: str,
    steps: int = SAMPLING_STEPS,
    dtype: torch.dtype = torch.float32,
) -> None:
    """Write a world's folder; `autoencoder` is the path of its autoencoder, relative to the folder."""
    storage.save_model(folder, KIND, world_config(model, header, autoencoder, steps), model, dtype)


def world_config(model: WorldModel, header: ShardHeader, autoencoder: str, steps: int) -> dict[str, Any]:
    """What `config.json` of a world's folder says."""
    return {
        "model": asdict(model.config),
        "data": asdict(header),
        "autoencoder": autoencoder,
        "sampling_steps": steps,
    }


def load_model(folder: Path) -> tuple[WorldModel, ShardHeader, Path]:
    """The model of a world's folder, its header, and the folder of its autoencoder. Raises: LssvwmError."""
    path = folder / storage.CONFIG_FILE
    config = storage.load_config(folder, KIND)
    missing = {"model", "data", "autoencoder"} - set(config)
    if missing:
        raise LssvwmError(f"{path}: no {', '.join(sorted(missing))}")
    model = WorldModel(storage.config_from(path, ModelConfig, with_current_names(config["model"])))
    storage.load_weights(folder, model)
    fields: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in config["data"].items()}
    header = storage.config_from(path, ShardHeader, fields)
    return model.eval(), header, (folder / config["autoencoder"]).resolve()


def load_world(folder: Path, device: torch.device) -> World:
    """Load model and autoencoder. Raises: LssvwmError when either is missing, damaged, or not of the other."""
    model, header, autoencoder_folder = load_model(folder)
    if storage.weights_sha256(autoencoder_folder) != header.autoencoder_sha256:
        raise LssvwmError(f"{autoencoder_folder}: not the autoencoder that {folder} was trained with")
    autoencoder = load_autoencoder(autoencoder_folder).to(device)
    steps = sampling_steps(folder)
    return World(model.to(device), autoencoder, header, device, chunk=model.config.chunk_sizes[0], steps=steps)


def sampling_steps(folder: Path) -> int:
    """Denoising steps a chunk that the world in a folder is sampled with by default. Raises: LssvwmError."""
    steps = storage.load_config(folder, KIND).get("sampling_steps", SAMPLING_STEPS)
    if not isinstance(steps, int) or steps < 1:
        raise LssvwmError(f"{folder / storage.CONFIG_FILE}: sampling_steps is {steps!r}, expected at least 1")
    return steps
