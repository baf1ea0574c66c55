"""A world: model and autoencoder together, driven by the three calls of a rollout.

state = world.reset(batch)                       memory of fixed size, whatever the past
world.observe(state, frames, conditions)         commit recorded frames, or latents
chunk = world.generate(state, conditions, rng)   sample against the frozen state, then commit (paper, 'Inference')

`world.rollout()` is the loop of these calls that every command uses.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lssvwm_core.conditions import Conditions
from lssvwm_core.cuda_graph import Graphs
from lssvwm_core.device import autocast, fastest_precision, pick_device, why_not_compiled
from lssvwm_core.model import storage
from lssvwm_core.model.autoencoder import load_autoencoder
from lssvwm_core.model.config import ModelConfig, with_current_names
from lssvwm_core.model.frame_codec import FrameCodec
from lssvwm_core.model.recall import GENERATED_NOISE, Recollection
from lssvwm_core.model.state import ModelState
from lssvwm_core.model.world_model import WorldModel
from lssvwm_core.resolve import resolve_world
from lssvwm_core.rollout import Rollout
from lssvwm_core.sampling import Euler, Sampler, denoise_fast, make_sampler, sampler_settings, with_settings
from lssvwm_datasets.errors import LssvwmError
from lssvwm_datasets.schema import convert
from lssvwm_datasets.shards import ShardHeader

logger = logging.getLogger(__name__)
KIND = "world-model"
OBSERVE_FRAMES = 100  # committed at once, at most: bounds the memory of a long context
CODEC_PIXELS = 128 * 64 * 64  # encoded or decoded at once: bounds the memory of large frames

STATE_BYTES, STATE_SHARE = 256 * 2**20, 16  # a loaded model's state takes at most so much, or so many times its weights

Generators = torch.Generator | Sequence[torch.Generator]


@dataclass
class World:
    """A trained world, ready to roll out.

    Attributes:
        header: the data it was trained on: columns of the condition streams, frame size, autoencoder.
        chunk: frames generated together; one of the model's chunk sizes.
        sampler: how a chunk is denoised, and in how many steps.
        graphs: what is recorded on a GPU to run faster; None: nothing is. The model then stays where it is in memory.
    """

    model: WorldModel
    autoencoder: FrameCodec
    header: ShardHeader
    device: torch.device
    chunk: int = 5
    sampler: Sampler = field(default_factory=Euler)
    graphs: Graphs | None = field(default_factory=Graphs, repr=False, compare=False)

    @property
    def steps(self) -> int:
        """Denoising steps a chunk."""
        return self.sampler.steps

    def sampled_with(
        self,
        steps: int | None = None,
        chunk: int | None = None,
        guidance: float | None = None,
        temperature: float | None = None,
    ) -> "World":
        """The same world with its own steps, chunk, guidance and temperature, or others.

        Raises: LssvwmError for those it does not know.
        """
        chunk, known = chunk or self.chunk, self.model.config.chunk_sizes
        if chunk not in known:
            raise LssvwmError(f"--chunk {chunk}: the world was trained for {', '.join(map(str, known))}")
        sampler = with_settings(self.sampler, steps=steps, guidance=guidance, temperature=temperature)
        return replace(self, sampler=sampler, chunk=chunk)

    def rollout(self, seed: int = 0, memory_cut: bool = False) -> Rollout:
        """A rollout that has seen nothing yet; for several worlds side by side, make a `Rollout` with a seed for each.

        Args:
            memory_cut: generate from the frames of the attention window alone, for comparison.
        """
        return Rollout(self, (seed,), memory_cut)

    def reset(self, batch: int = 1) -> ModelState:
        """The memory of `batch` worlds that have seen nothing."""
        return self.model.initial_state(batch)

    @torch.inference_mode()
    def observe(
        self,
        state: ModelState,
        frames: NDArray[np.generic] | Tensor,
        conditions: Mapping[str, Tensor] | None = None,
        generated: bool = False,
    ) -> None:
        """Commit frames and what led to them to `state`.

        Frames that are no multiple of the chunk begin with a smaller chunk that the world knows; where it knows none
        that fits, the first frames are left out, and a warning says so.

        Args:
            frames: uint8 frames (T, H, W, 3) or (B, T, H, W, 3), or latents (T, C, h, w) or (B, T, C, h, w).
            conditions: a row for each frame; streams that are left out are unknown.
            generated: the world made these frames itself: a memory by least squares trusts them less.

        Raises: ValueError for shapes that do not fit the state or each other.
        """
        latents = self.latents_of(frames, state.batch)
        led = Conditions(conditions)
        if led and led.frames != latents.shape[1]:
            raise ValueError(f"{latents.shape[1]} frames, but {led.frames} rows of conditions")
        for chunk, start, stop in self._pieces(latents.shape[1]):
            self._commit(state, latents[:, start:stop], led[start:stop], chunk, GENERATED_NOISE if generated else 1.0)
        state.recent = state.recent.after(latents, led, self.model.config.recent_frames(self.chunk))

    def without_memory(self, state: ModelState) -> ModelState:
        """The memory of a world that has seen the last frames alone, as many as a chunk attends to beside itself."""
        cut, recent = self.reset(state.batch), state.recent.last(self.model.config.recent_frames(self.chunk))
        self.observe(cut, recent.latents, recent.conditions)
        return cut

    def generate(self, state: ModelState, conditions: Mapping[str, Tensor], rng: Generators) -> Tensor:
        """Sample the next chunk, (B, chunk, C, h, w) latents, and commit it.

        `rng` is a CPU generator, or one for each world of the batch: same seed, same frames, whatever the batch.
        """
        latents = self.sample(state, conditions, rng)
        self.observe(state, latents, conditions, generated=True)
        return latents

    def generate_frames(
        self, state: ModelState, conditions: Mapping[str, Tensor], rng: Generators
    ) -> NDArray[np.uint8]:
        """As `generate`, decoded: (B, chunk, H, W, 3) uint8."""
        return self.decode(self.generate(state, conditions, rng))

    @torch.inference_mode()
    def recollect(self, state: ModelState, conditions: Mapping[str, Tensor]) -> Recollection | None:
        """What the memory by least squares knows of the frames that are led by these rows; None where there is none."""
        led = Conditions(conditions).to(self.device)
        return self.model.recollect(state, led, led.frames)

    @torch.inference_mode()
    def sample(
        self,
        state: ModelState,
        conditions: Mapping[str, Tensor],
        rng: Generators,
        recollection: Recollection | None = None,
    ) -> Tensor:
        """The next chunk, as `generate` gives it, before it is committed with `observe`.

        Args:
            recollection: what `recollect` gave for these rows, by whoever wants to know it too.
        """
        cut = None
        if self.sampler.guidance and 0 < state.recent.frames < state.frames_seen:  # else it has seen no more than those
            cut = self.without_memory(state)
        shape = (self.chunk, *self.model.config.latent_shape)
        if isinstance(rng, torch.Generator):
            noise = torch.randn(state.batch, *shape, generator=rng).to(self.device)
        else:
            noise = torch.stack([torch.randn(*shape, generator=one) for one in rng]).to(self.device)
        led = Conditions(conditions).to(self.device)
        return denoise_fast(self.model, self.sampler, noise, led, state, recollection, cut, self.graphs)

    @torch.inference_mode()
    def encode(self, frames: NDArray[np.uint8] | Tensor) -> Tensor:
        """Frames (…, H, W, 3) uint8 -> latents (…, C, h, w) float32 on the world's device.

        Raises: ValueError for frames of another size than the world's.
        """
        pixels = torch.as_tensor(frames)
        expected = (*self.header.frame_size, 3)
        if pixels.dtype != torch.uint8 or pixels.ndim < 4 or tuple(pixels.shape[-3:]) != expected:
            raise ValueError(
                f"frames are {pixels.dtype} of shape {tuple(pixels.shape)}, expected uint8 (frames, "
                f"{', '.join(map(str, expected))})"
            )
        parts = pixels.flatten(0, -4).split(self._codec_frames)
        latents = torch.cat([self.autoencoder.encode(part.to(self.device)) for part in parts])
        return latents.unflatten(0, pixels.shape[:-3])

    @torch.inference_mode()
    def decode(self, latents: Tensor) -> NDArray[np.uint8]:
        """Latents (…, C, h, w) -> (…, H, W, 3) uint8 frames."""
        parts = latents.to(self.device).flatten(0, -4).split(self._codec_frames)
        frames = torch.cat([self.autoencoder.decode(part).cpu() for part in parts])
        return frames.unflatten(0, latents.shape[:-3]).numpy()

    def latents_of(self, frames: NDArray[np.generic] | Tensor, batch: int = 1) -> Tensor:
        """Frames or latents, of one world or of a batch -> latents (B, T, C, h, w). Raises: ValueError."""
        rows = torch.as_tensor(frames)
        rows = rows if rows.ndim == 5 else rows[None]
        if rows.dtype == torch.uint8:
            rows = self.encode(rows)
        expected = self.model.config.latent_shape
        if rows.ndim != 5 or len(rows) != batch or tuple(rows.shape[2:]) != expected:
            raise ValueError(
                f"latents have shape {tuple(rows.shape)}, expected ({batch}, T, {', '.join(map(str, expected))})"
            )
        return rows.float()

    @property
    def _codec_frames(self) -> int:
        height, width = self.header.frame_size
        return max(1, CODEC_PIXELS // (height * width))

    def _pieces(self, frames: int) -> list[tuple[int, int, int]]:
        """(chunk, start, stop) of the pieces in which so many frames are committed."""
        rest = frames % self.chunk
        pieces = []
        if rest:
            fitting = [size for size in self.model.config.chunk_sizes if rest % size == 0]
            if fitting:
                pieces.append((max(fitting), 0, rest))
            else:
                logger.warning("the first %d of %d frames are left out: chunks have %d", rest, frames, self.chunk)
        step = max(1, OBSERVE_FRAMES // self.chunk) * self.chunk
        return pieces + [(self.chunk, start, min(start + step, frames)) for start in range(rest, frames, step)]

    def _commit(
        self, state: ModelState, latents: Tensor, conditions: Conditions, chunk: int, write_noise: float
    ) -> None:
        latents = latents.to(self.device, torch.float32)
        clean = torch.zeros(latents.shape[:2], device=self.device)
        with autocast(self.device, fastest_precision(self.device)):
            _, new_state = self.model(latents, clean, conditions.to(self.device), state, chunk, latents, write_noise)
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
    sampler: Sampler | None = None,
    dtype: torch.dtype = torch.float32,
) -> None:
    """Write a world's folder; `autoencoder` is the path of its autoencoder, relative to the folder."""
    storage.save_model(folder, KIND, world_config(model, header, autoencoder, sampler or Euler()), model, dtype)


def world_config(model: WorldModel, header: ShardHeader, autoencoder: str, sampler: Sampler) -> dict[str, Any]:
    """What `config.json` of a world's folder says."""
    return {
        "model": asdict(model.config),
        "data": asdict(header),
        "autoencoder": autoencoder,
        "sampler": sampler_settings(sampler),
    }


def load_model(folder: Path) -> tuple[WorldModel, ShardHeader, Path]:
    """The model of a world's folder, its header, and the folder of its autoencoder.

    Raises: LssvwmError when something is missing or damaged, or when its config asks for more than its weights hold.
    """
    path = folder / storage.CONFIG_FILE
    parts = convert(str(path), storage.load_config(folder, KIND), _WorldConfig)
    config = storage.config_from(path, ModelConfig, with_current_names(parts.model))
    if parts.data.latent_shape != config.latent_shape or min(parts.data.frame_size) < 1:
        raise LssvwmError(
            f"{path}: data: frames of {parts.data.frame_size} and latents of {parts.data.latent_shape}, "
            f"but the model is for latents of {config.latent_shape}"
        )
    _check_state(path, storage.outline(folder, lambda: WorldModel(config)))
    model = WorldModel(config)
    storage.load_weights(folder, model)
    return model.eval(), parts.data, storage.autoencoder_of(folder, parts.autoencoder)


@dataclass(frozen=True)
class _WorldConfig:
    """What `load_model` needs of a world's `config.json`."""

    model: dict[str, Any]
    data: ShardHeader
    autoencoder: str


def _check_state(path: Path, outline: WorldModel) -> None:
    """Raises: LssvwmError when a model's memory is out of proportion to its weights, which alone are really there."""
    weights = sum(tensor.nbytes for tensor in outline.state_dict().values())
    state, most = outline.initial_state(1).nbytes, max(STATE_BYTES, STATE_SHARE * weights)
    if state > most:
        raise LssvwmError(
            f"{path}: a state of {state:,} bytes for weights of {weights:,}; expected at most {most:,}: "
            "frame_window or d_state is too large"
        )


def load_world(name: str | Path | None = None, device: str | torch.device = "auto") -> World:
    """A world with its autoencoder, ready to roll out.

    Args:
        name: a run or its name, a world's folder, a shipped name (`maze-world`) or a hub id (`user/name@revision`);
            None: the latest run's world, else the one that ships with the package.
        device: `auto` (CUDA where there is one), `cpu` or `cuda`.

    Raises: LssvwmError when there is no such world, or when it is damaged or not of its autoencoder.
    """
    folder = resolve_world(None if name is None else str(name))
    where = pick_device(device) if isinstance(device, str) else device
    model, header, autoencoder_folder = load_model(folder)
    if storage.latents_sha256(autoencoder_folder) != header.autoencoder_sha256:
        raise LssvwmError(f"{autoencoder_folder}: not the autoencoder that {folder} was trained with")
    autoencoder = load_autoencoder(autoencoder_folder).to(where)
    return World(model.to(where), autoencoder, header, where, model.config.chunk_sizes[0], load_sampler(folder))


def load_sampler(folder: Path) -> Sampler:
    """The sampler that the world in a folder is for. Raises: LssvwmError."""
    config = storage.load_config(folder, KIND)
    settings = config.get("sampler", {})
    if "sampling_steps" in config:  # what worlds before version 0.2 have in its place
        settings = {"steps": config["sampling_steps"]}
    try:
        return make_sampler(settings)
    except (ValueError, TypeError, AttributeError) as error:
        raise LssvwmError(f"{folder / storage.CONFIG_FILE}: [sampler] {settings}: {error}") from error
