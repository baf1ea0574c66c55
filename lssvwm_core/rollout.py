"""Rolls a world out: context in, frames out, one chunk at a time, at constant cost and memory (paper, 'Inference')."""

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from lssvwm_core.driving import RECORDED, Drive, steer
from lssvwm_core.episodes import EncodedEpisode, load_episode
from lssvwm_core.model.state import ModelState
from lssvwm_core.video import CONTEXT_COLOUR, GENERATED_COLOUR, Frames, caption, draw_map, upscale, video_writer
from lssvwm_core.world import World
from lssvwm_datasets.errors import LssvwmError
from lssvwm_datasets.files import written_whole

FPS_FACTOR = 4  # of a video's frames a second to the recording's
SPEED_FRAMES = 100  # generated frames at the start and at the end whose speeds are compared


@dataclass(frozen=True)
class RolloutOptions:
    frames: int = 800
    """Of the whole video, context included."""
    context: int = 240
    """Frames of the recording that the world sees first (paper, long generation: 240)."""
    actions: str = RECORDED
    """`recorded` (then the explorer), `explore`, or a list such as `forward*10,left*5`, repeated."""
    conditions: tuple[str, ...] = ("pose", "action")
    """The streams that drive the world; the others are unknown to it."""
    seed: int = 0
    side_by_side: bool = False
    """The recording beside the rollout, where it goes on."""
    upscale: int = 4
    fps: float | None = None
    """Frames a second of the video; None: four times the recording's, as mazes are slow to watch."""
    map: bool = False
    save_state: Path | None = None
    load_state: Path | None = None
    """Go on from a saved state instead of a recording's context."""


@dataclass
class RolloutProgress:
    """Filled while a rollout runs."""

    frames: int = 0
    generated: int = 0
    state_bytes: int = 0
    seconds: list[float] = field(default_factory=list)  # of each generated chunk, decoding and encoding included

    def speeds(self, chunk: int) -> tuple[float, float] | None:
        """Frames/s of the first and of the last `SPEED_FRAMES` generated frames; None for shorter rollouts."""
        count = SPEED_FRAMES // chunk
        if len(self.seconds) < 2 * count + 1:
            return None
        timed = self.seconds[1:]  # the first chunk warms up
        return count * chunk / sum(timed[:count]), count * chunk / sum(timed[-count:])


def render(
    world: World, episode: EncodedEpisode | None, options: RolloutOptions, out: Path
) -> Iterator[RolloutProgress]:
    """Write the video `out` (and its map), yielding progress after each chunk. `episode` is None with a loaded state.

    Raises: LssvwmError for options that do not fit each other, the world or the episode; `out` is then left alone.
    """
    start = _start(world, episode, options)
    generated = options.frames - start.context
    drive = steer(
        options.actions,
        -(-generated // world.chunk) * world.chunk,
        world.header.action_names,
        start.pose,
        start.layout,
        options.seed,
        start.recorded,
    )
    fps = options.fps or FPS_FACTOR * world.header.fps
    progress = RolloutProgress(state_bytes=start.state.nbytes)
    rng = torch.Generator().manual_seed(options.seed)
    truth = episode.frames if episode is not None else None
    with video_writer(out, fps) as video:
        for first in range(0, start.context, SPEED_FRAMES):
            shown = _context_frames(world, episode, first, min(first + SPEED_FRAMES, start.context))
            video.append(_compose(shown, shown, first, True, options))
            progress.frames += len(shown)
            yield progress
        for first in range(0, generated, world.chunk):
            started = time.perf_counter()
            rows = slice(first, first + world.chunk)
            conditions = _conditions(world, drive.actions[rows], drive.poses[rows], options)
            frames = world.decode(world.generate(start.state, conditions, rng)[0])[: generated - first]
            beside = None
            if truth is not None:
                beside = truth[start.context + first : start.context + first + len(frames)]
            video.append(_compose(frames, beside, start.context + first, False, options))
            progress.seconds.append(time.perf_counter() - started)
            progress.frames += len(frames)
            progress.generated += len(frames)
            yield progress
    if options.map:
        poses = drive.poses[:generated]
        if episode is not None and episode.poses is not None:
            poses = np.concatenate([episode.poses[: start.context], poses])
        with written_whole(out.with_suffix(".map.png")) as partial:
            draw_map(start.layout, poses, start.context).save(partial)
    if options.save_state is not None:
        pose = drive.poses[-1]  # of the last chunk's end, as the state: the video may end within the chunk
        extra = {"pose": pose if pose.size and np.isfinite(pose).all() else None, "layout": start.layout}
        known = {name: torch.from_numpy(np.array(value)) for name, value in extra.items() if value is not None}
        start.state.save(options.save_state, known)


@dataclass
class _Start:
    """Where a rollout begins: the state after the context."""

    state: ModelState
    context: int
    pose: NDArray[np.float32] | None
    layout: NDArray[np.uint8] | None
    recorded: Drive | None


def _start(world: World, episode: EncodedEpisode | None, options: RolloutOptions) -> _Start:
    unknown = sorted(set(options.conditions) - set(world.model.config.streams))
    if unknown:
        raise LssvwmError(f"conditions {', '.join(unknown)}; the world has {', '.join(world.model.config.streams)}")
    if options.upscale < 1 or options.frames < 1:
        raise LssvwmError(f"--frames {options.frames} --upscale {options.upscale}: both must be at least 1")
    state = world.reset()
    if options.load_state is not None:
        extra = {name: tensor.numpy() for name, tensor in state.restore(options.load_state).items()}
        return _Start(state, 0, extra.get("pose"), extra.get("layout"), None)
    if episode is None:
        raise ValueError("a rollout needs an episode or a state to load")
    context = options.context
    if context >= options.frames:
        raise LssvwmError(f"--frames {options.frames}: nothing is left to generate after {context} frames of --context")
    if context > len(episode):
        raise LssvwmError(f"--context {context}: episode {episode.id} has {len(episode)} frames")
    if context % world.chunk:
        below = context - context % world.chunk
        raise LssvwmError(
            f"--context {context}: expected a multiple of the chunk, {world.chunk}: {below} or {below + world.chunk}"
        )
    poses = episode.poses if episode.poses is not None else np.zeros((len(episode), 0), np.float32)
    conditions = _conditions(world, episode.actions[:context], poses[:context], options)
    if context:
        world.observe(state, torch.from_numpy(episode.latents[:context])[None].float(), conditions)
    pose = poses[context - 1] if context and poses.shape[1] else None
    return _Start(state, context, pose, episode.layout, Drive(episode.actions[context:], poses[context:]))


def _conditions(
    world: World, actions: NDArray[np.float32], poses: NDArray[np.float32], options: RolloutOptions
) -> dict[str, torch.Tensor]:
    rows = {"action": actions, "pose": poses}
    streams = [name for name in world.model.config.streams if name in options.conditions and rows[name].shape[1]]
    return {name: torch.from_numpy(np.ascontiguousarray(rows[name]))[None] for name in streams}


def _context_frames(world: World, episode: EncodedEpisode | None, first: int, last: int) -> Frames:
    """What the world saw: exact frames where they are kept, else decoded latents."""
    assert episode is not None  # a loaded state has no context
    if episode.frames is not None:
        return episode.frames[first:last]
    return world.decode(torch.from_numpy(episode.latents[first:last]).float())


def _compose(frames: Frames, truth: Frames | None, first: int, context: bool, options: RolloutOptions) -> Frames:
    """Scale, set the truth beside (black where the recording has ended) and add a caption that marks the context."""
    if options.side_by_side:
        beside = np.zeros_like(frames)
        if truth is not None:
            beside[: len(truth)] = truth
        frames = np.concatenate([beside, frames], axis=2)
    word = "context" if context else "generated"
    label = "truth | " if options.side_by_side else ""
    texts = [f"{label}{word} {first + number}" for number in range(len(frames))]
    return caption(upscale(frames, options.upscale), texts, CONTEXT_COLOUR if context else GENERATED_COLOUR)


def write_sample(world: World, data: Path, out: Path) -> None:
    """A short side-by-side rollout of the first validation episode, to look at during training."""
    episode = load_episode(data, world, 0)
    context = min(120, len(episode) // 2 // world.chunk * world.chunk)
    options = RolloutOptions(frames=min(2 * context, len(episode)), context=context, side_by_side=True)
    for _ in render(world, episode, options, out):
        pass
