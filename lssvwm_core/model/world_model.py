"""The backbone: noisy latents, noise levels and conditions in; velocities and the next state out."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from lssvwm_core.compat import compile_arguments
from lssvwm_core.model.config import ModelConfig
from lssvwm_core.model.layer import Layer, adaptive_norm
from lssvwm_core.model.mixer import Mixer, MixerContext
from lssvwm_core.model.odometer import Odometer
from lssvwm_core.model.recall import Recall, Recollection
from lssvwm_core.model.recent import Recent
from lssvwm_core.model.state import ModelState, state_name
from lssvwm_datasets.poses import kinds_of
from lssvwm_datasets.streams import STREAMS

NOISE_FREQUENCIES = 64
COMPILED_SHAPES = 64  # of a layer: stages, chunk sizes, first frames
LEAST_LEVEL = 0.1  # below it a recollection no longer tells the velocity: little noise is left to be told
POSE_PERIODS = (32.0, 16.0, 8.0, 4.0, 2.0)  # of the Fourier features, in the pose's units


class WorldModel(nn.Module):
    """The hybrid of block-wise state-space scans and frame-local attention (paper, section 'Architecture')."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.activation_checkpointing = False
        self.compiled = False
        width, channels = config.width, config.latent_shape[0] * config.patch**2
        self.embed = nn.Linear(channels, width)
        self.position = nn.Parameter(0.02 * torch.randn(*config.grid, width))
        self.noise_embedding = mlp(2 * NOISE_FREQUENCIES, width)
        scaling = {"action": config.action_scaling}
        self.streams = nn.ModuleDict(
            {
                name: ConditionStream(columns, width, STREAMS[name].periodic, scaling.get(name))
                for name, columns in config.streams.items()
            }
        )
        self.layers = nn.ModuleList(Layer(config, index) for index in range(config.depth))
        reckons = config.odometry and (config.recall or any(mixer.uses_poses for mixer in self.mixers))
        kinds = kinds_of(config.pose_names, config.pose_kinds)
        actions, pairs = len(config.action_names), config.odometry_pairs
        self.odometer = Odometer(config.odometry, actions, kinds, pairs) if reckons else None
        self.final_modulation = nn.Linear(width, 2 * width)
        self.project = nn.Linear(width, channels)
        self.recall: Recall | None = None
        zeroed = [self.final_modulation, self.project]
        if config.recall:
            self.recall = Recall(
                len(config.pose_names), config.latent_shape, config.recall, config.recall_lengths, config.recall_ridge
            )
            self.embed_recollection = nn.Linear(channels + 2, width)  # novelty and certainty with it
            self.gate = nn.Linear(width, channels)
            zeroed += [self.embed_recollection, self.gate]
        for linear in zeroed:
            nn.init.zeros_(linear.weight)
            nn.init.zeros_(linear.bias)

    def compile_layers(self, backend: str | Callable[..., Any] = "inductor", fullgraph: bool = False) -> None:
        """Compile the layers (torch.compile) for training and for the steps of a rollout; the results stay the same.

        What a rollout does once or twice, its context and its first windows, runs as it is. With `fullgraph` a graph
        break is an error.
        """
        limits = compile_arguments(COMPILED_SHAPES)
        self.compiled = True
        for layer in self.layers:
            layer.compile(backend=backend, fullgraph=fullgraph, dynamic=False, **limits)

    def few_parameters(self) -> list[nn.Parameter]:
        """Those by which a world is adapted to little data without forgetting what it knows (Ben Zaken et al., 2022).

        All vectors (biases, scales, embeddings of what is unknown), and what the memory by least squares is read by.
        """
        readers = ("embed_recollection.weight", "gate.weight")
        return [value for name, value in self.named_parameters() if value.ndim == 1 or name in readers]

    @property
    def mixers(self) -> list[Mixer]:
        """The mixers of all layers, in the order of their states."""
        return [mixer for layer in self.layers for mixer in layer.mixers]  # type: ignore[union-attr]

    def initial_state(self, batch: int) -> ModelState:
        """The state before the first frame, for `batch` worlds side by side; on the model's device."""
        grid, mixers = self.config.grid, self.mixers
        growth = {
            state_name(i, name): how for i, mixer in enumerate(mixers) for name, how in mixer.growth(grid).items()
        }
        recent = Recent.none(batch, self.config.latent_shape, self.config.streams)
        state = ModelState([mixer.initial_state(batch, grid) for mixer in mixers], batch, growth=growth, recent=recent)
        if self.odometer is not None:
            state.mixers.append(self.odometer.initial_state(batch))
            state.unknown_as_nan = frozenset(state_name(len(mixers), name) for name in state.mixers[-1])
        if self.recall is not None:
            state.mixers.append(self.recall.initial_state(batch, self.position.device))
        return state

    def forward(
        self,
        latents: Tensor,
        noise_levels: Tensor,
        conditions: Mapping[str, Tensor],
        state: ModelState | None = None,
        chunk: int | None = None,
        remember: Tensor | None = None,
        write_noise: float | Tensor = 1.0,
        recollection: Recollection | None = None,
        keep: bool = True,
    ) -> tuple[Tensor, ModelState]:
        """Predict the velocity (noise - clean) of T frames that follow `state`.

        Args:
            latents: (B, T, C, h, w) noisy latents; T is a multiple of the chunk.
            noise_levels: (B, T) in [0, 1]; 0 = clean, 1 = pure noise.
            conditions: a (B, T, columns) tensor for each stream. A row of NaN is unknown: its null embedding is used,
                as for a stream that is left out.
            state: what came before; None at the start. It is left unchanged.
            chunk: frames generated together; the config's first chunk size when None.
            remember: (B, T, C, h, w) the clean latents, for the memory by least squares: a frame is recalled from the
                chunks before its own. None: it is recalled from `state` alone, and nothing is remembered.
            write_noise: of what is remembered, or (B, T) of each frame, see `recall`; 1 for recorded frames.
            recollection: what `recollect` gave for these frames, when they are denoised in several steps.
            keep: whether the state after these frames is wanted; to find it is most of the cost of a single frame.

        Returns: velocities (B, T, C, h, w) float32 and the state after these frames, as if they were clean; without
            `keep` it is not to be used. In training mode, after clips that begin with nothing, the memory by least
            squares in it is empty: nobody needs it.

        Raises: ValueError for a chunk the model is not trained for, a T that is no multiple, or unknown streams.
        """
        batch, frames = latents.shape[:2]
        chunk = self.config.chunk_sizes[0] if chunk is None else chunk
        self._check(latents, conditions, chunk)
        whole_clip = state is None and self.training
        state = self.initial_state(batch) if state is None else state

        noisy = patchify(latents, self.config.patch)
        x = self.embed(noisy) + self.position  # (B, T, h, w, D)
        c = self.noise_embedding(noise_features(noise_levels))  # (B, T, D)
        for name, stream in self.streams.items():
            c = c + stream(conditions.get(name), (batch, frames))
        x, c = x.float(), c.float()  # the residual stream

        poses, others = conditions.get("pose"), state.mixers[len(self.mixers) :]  # the states beside the mixers'
        if self.odometer is not None:
            poses, others[0] = self.odometer(poses, conditions.get("action"), others[0], frames)
        if self.recall is not None:
            if remember is None:
                recollection = recollection or self.recall.read(others[-1], poses, frames)
            elif whole_clip:
                recollection = self.recall.of_clip(poses, remember, chunk, write_noise)
            else:
                recollection, others[-1] = self.recall(others[-1], poses, remember, chunk, write_noise)
            x = x + self._embedded(recollection)
        seen = state.frames_seen if state.growth else min(state.frames_seen, self.config.frame_window)
        steady = whole_clip or (frames == chunk and seen == self.config.frame_window)  # shapes worth compiling
        context = MixerContext(seen, chunk, poses, keep)
        mixers = iter(state.mixers)
        new_mixers = []
        for layer in self.layers:
            own = [next(mixers) for _ in self.config.mixers]
            if self.activation_checkpointing and self.training:
                x, own = checkpoint(layer, x, c, own, context, use_reentrant=False)
            else:
                run = layer.forward if self.compiled and not steady else layer
                x, own = run(x, c, own, context)
            new_mixers += own

        shift, scale = self.final_modulation(F.silu(c)).float()[:, :, None, None].chunk(2, dim=-1)
        hidden = adaptive_norm(x, shift, scale)
        velocity = self.project(hidden).float()
        if recollection is not None:
            velocity = self._towards_recalled(velocity, self.gate(hidden).float(), noisy, noise_levels, recollection)
        return unpatchify(velocity, self.config.patch), state.after(new_mixers + others, frames)

    @torch.no_grad()
    def recollect(self, state: ModelState, conditions: Mapping[str, Tensor], frames: int) -> Recollection | None:
        """What the memory by least squares says of T frames that follow `state`; None for a model that has none."""
        if self.recall is None:
            return None
        return self.recall.read(state.mixers[-1], self._reckoned(state, conditions, state.batch, frames), frames)

    @torch.no_grad()
    def recollect_clip(self, latents: Tensor, conditions: Mapping[str, Tensor], chunk: int) -> Recollection | None:
        """As `recollect`, of clips (B, T, C, h, w) that begin with nothing; each chunk is seen before the next."""
        if self.recall is None:
            return None
        return self.recall.of_clip(self._reckoned(None, conditions, *latents.shape[:2]), latents, chunk)

    def _reckoned(
        self, state: ModelState | None, conditions: Mapping[str, Tensor], batch: int, frames: int
    ) -> Tensor | None:
        """The poses of frames that follow `state`, by the odometer where they are not told."""
        poses = conditions.get("pose")
        if self.odometer is not None:
            before = self.odometer.initial_state(batch) if state is None else state.mixers[len(self.mixers)]
            poses, _ = self.odometer(poses, conditions.get("action"), before, frames)
        return poses

    def _embedded(self, recollection: Recollection) -> Tensor:
        """What is recalled, and how well the place is known, as a part of the tokens (B, T, h, w, D)."""
        recalled = patchify(recollection.latents, self.config.patch)
        known = torch.stack([recollection.novelty, recollection.certainty(self.config.recall_ridge)], dim=-1)
        known = known[:, :, None, None].expand(*recalled.shape[:-1], 2)
        return self.embed_recollection(torch.cat([recalled, known], dim=-1)).float()

    def _towards_recalled(
        self, velocity: Tensor, gate: Tensor, noisy: Tensor, noise_levels: Tensor, recollection: Recollection
    ) -> Tensor:
        """A way past the layers, which are too narrow to carry a frame; all but levels are (B, T, h, w, C · patch²).

        The velocity is drawn towards that of a frame which is as it is recalled, by a gate that has seen the tokens:
        it learns where a recollection is to be trusted, and the layers need not learn anything anew.
        """
        level = noise_levels[:, :, None, None, None].clamp(min=LEAST_LEVEL)
        recalled = (noisy - patchify(recollection.latents, self.config.patch)) / level
        known = 1 - recollection.novelty[:, :, None, None, None]
        return velocity + gate * known * (recalled - velocity)

    def _check(self, latents: Tensor, conditions: Mapping[str, Tensor], chunk: int) -> None:
        if chunk not in self.config.chunk_sizes:
            raise ValueError(f"chunk size {chunk}; the model knows {', '.join(map(str, self.config.chunk_sizes))}")
        if latents.shape[1] % chunk or tuple(latents.shape[2:]) != self.config.latent_shape:
            expected = ", ".join(map(str, self.config.latent_shape))
            raise ValueError(
                f"latents have shape {tuple(latents.shape)}, expected (B, T, {expected}) with T a multiple of the "
                f"chunk, {chunk}"
            )
        unknown = sorted(set(conditions) - set(self.config.streams))
        if unknown:
            raise ValueError(f"unknown condition streams {unknown}; the model has {sorted(self.config.streams)}")


class ConditionStream(nn.Module):
    """Embeds one condition of a frame, each column normalised by its `scaling`; rows of NaN become the null embedding.

    Args:
        periodic: see `lssvwm_datasets.streams.Stream`.
        scaling: (mean, standard deviation) of each column; none: taken as they are.
    """

    mean: Tensor
    std: Tensor
    periods: Tensor

    def __init__(
        self, columns: int, width: int, periodic: bool, scaling: Sequence[tuple[float, float]] | None = None
    ) -> None:
        super().__init__()
        mean, std = zip(*(scaling or [(0.0, 1.0)] * columns), strict=True)
        self.register_buffer("mean", torch.tensor(mean), persistent=False)
        self.register_buffer("std", torch.tensor(std), persistent=False)
        self.register_buffer("periods", torch.tensor(POSE_PERIODS), persistent=False)
        self.periodic = periodic
        self.null = nn.Parameter(torch.zeros(width))
        self.embed = mlp(columns * (1 + 2 * len(POSE_PERIODS)) if periodic else columns, width)

    def forward(self, rows: Tensor | None, shape: tuple[int, int]) -> Tensor:
        """rows (B, T, columns) or None -> (B, T, D)."""
        if rows is None:
            return self.null.expand(*shape, -1)
        unknown = rows.isnan().any(dim=-1, keepdim=True)
        rows = (rows.nan_to_num(0.0).float() - self.mean) / self.std
        features = pose_features(rows, self.periods) if self.periodic else rows
        return torch.where(unknown, self.null, self.embed(features))


def mlp(inputs: int, width: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, width), nn.SiLU(), nn.Linear(width, width))


def pose_features(poses: Tensor, periods: Tensor) -> Tensor:
    """(…, P) -> (…, P · (1 + 2 · periods)): the poses, and sine and cosine at several wavelengths."""
    angles = poses[..., None] * (2 * math.pi / periods)
    return torch.cat([poses, angles.sin().flatten(-2), angles.cos().flatten(-2)], dim=-1)


def noise_features(noise_levels: Tensor) -> Tensor:
    """(B, T) in [0, 1] -> (B, T, 2 · NOISE_FREQUENCIES)."""
    exponents = torch.arange(NOISE_FREQUENCIES, device=noise_levels.device) / NOISE_FREQUENCIES
    angles = 1000 * noise_levels[..., None].float() * 10_000**-exponents
    return torch.cat([angles.sin(), angles.cos()], dim=-1)


def patchify(latents: Tensor, patch: int) -> Tensor:
    """(B, T, C, h, w) -> (B, T, h / patch, w / patch, C · patch²)."""
    cells = latents.unflatten(4, (-1, patch)).unflatten(3, (-1, patch))  # (B, T, C, h', p, w', p)
    return cells.permute(0, 1, 3, 5, 2, 4, 6).flatten(4)


def unpatchify(tokens: Tensor, patch: int) -> Tensor:
    """The inverse of `patchify`."""
    cells = tokens.unflatten(4, (-1, patch, patch))  # (B, T, h', w', C, p, p)
    return cells.permute(0, 1, 4, 2, 5, 3, 6).flatten(5, 6).flatten(3, 4)
