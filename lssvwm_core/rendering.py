"""Rolls a world out into a video: a recording's context, then what the world makes of it, a chunk at a time."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from lssvwm_core.conditions import Conditions
from lssvwm_core.controls import RECORDED, Controls, plan_controls
from lssvwm_core.episodes import EncodedEpisode, load_episode
from lssvwm_core.rollout import Rollout
from lssvwm_core.video import CONTEXT_COLOUR, GENERATED_COLOUR, Frames, caption, draw_map, upscale, video_writer
from lssvwm_core.world import World
from lssvwm_datasets.errors import LssvwmError
from lssvwm_datasets.files import written_whole
from lssvwm_datasets.poses import places_of

USUAL_CONTEXT = 240  # frames, where the recording has as many (paper, long generation)
FPS_FACTOR = 4  # of a video's frames a second to the recording's
SPEED_FRAMES = 100  # generated frames at the start and at the end whose speeds are compared


@dataclass(frozen=True)
class RenderOptions:
    frames: int = 800
    """Length of the whole video, context included."""
    context: int | None = None
    """Frames of the recording that the world sees first; None: `USUAL_CONTEXT`, but no more than half of the video."""
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


@dataclass(frozen=True)
class RenderProgress:
    """How far a video is."""

    frames: int
    """Frames written, those of the context included."""
    generated: int
    state_bytes: int
    frames_per_second: float | None
    """Generated frames a second so far, decoding and encoding included; None before the first."""
    first_speed: float | None = None
    last_speed: float | None = None
    """Frames/s of the first and of the last `SPEED_FRAMES` generated frames; None for shorter rollouts."""


def render(world: World, episode: EncodedEpisode | None, options: RenderOptions, out: Path) -> Iterator[RenderProgress]:
    """Write the video `out` (and its map), yielding progress after each chunk. `episode` is None with a loaded state.

    Raises: LssvwmError for options that do not fit each other, the world or the episode; `out` is then left alone.
    """
    start = _start(world, episode, options)
    generated = options.frames - start.context
    steps = -(-generated // world.chunk) * world.chunk
    controls = plan_controls(
        options.actions, steps, world.header, start.pose, start.layout, options.seed, start.recorded
    )
    rows = {"action": controls.actions, "pose": controls.poses}
    if episode is not None and options.actions == RECORDED:
        rows |= {name: _rest_of(recorded, start.context, steps) for name, recorded in episode.stream_rows.items()}
    conditions = _conditions(world, rows, options)
    fps = options.fps or FPS_FACTOR * world.header.fps
    truth = episode.frames if episode is not None else None
    rollout, written, times = start.rollout, 0, [time.perf_counter()]
    certainty: list[NDArray[np.floating]] = []
    with video_writer(out, fps) as video:
        for first in range(0, start.context, SPEED_FRAMES):
            shown = _context_frames(world, episode, first, min(first + SPEED_FRAMES, start.context))
            video.append(_compose(shown, shown, first, True, options))
            written += len(shown)
            times = [time.perf_counter()]
            yield _progress(rollout, written, 0, times)
        for number, chunk in enumerate(rollout.run(conditions)):
            first = number * world.chunk
            frames = chunk.frames[: generated - first]
            if chunk.certainty is not None:
                certainty.append(chunk.certainty[0, : len(frames)].cpu().numpy())
            beside = None
            if truth is not None:
                beside = truth[start.context + first : start.context + first + len(frames)]
            video.append(_compose(frames, beside, start.context + first, False, options))
            times.append(time.perf_counter())
            yield _progress(rollout, written + first + len(frames), first + len(frames), times)
    if options.map:
        poses = controls.poses[:generated]
        if episode is not None and episode.poses is not None:
            poses = np.concatenate([episode.poses[: start.context], poses])
        with written_whole(out.with_suffix(".map.png")) as partial:
            shares = np.concatenate(certainty) if certainty else None
            draw_map(start.layout, _places(world, poses), start.context, certainty=shares).save(partial)
    if options.save_state is not None:
        pose = controls.poses[-1]  # where the last chunk ends, as the state: the video may end within the chunk
        extra = {"pose": pose if pose.size and np.isfinite(pose).all() else None, "layout": start.layout}
        known = {name: torch.from_numpy(np.array(value)) for name, value in extra.items() if value is not None}
        rollout.save(options.save_state, known)


def _progress(rollout: Rollout, frames: int, generated: int, times: list[float]) -> RenderProgress:
    """`times`: when the context was done, and when each chunk was."""
    chunk = rollout.world.chunk
    count = SPEED_FRAMES // chunk  # chunks
    speed = generated / max(times[-1] - times[0], 1e-9) if generated else None
    if len(times) < 2 * count + 2:  # the first chunk warms up
        return RenderProgress(frames, generated, rollout.state.nbytes, speed)
    first, last = (count * chunk / (times[end] - times[end - count]) for end in (count + 1, len(times) - 1))
    return RenderProgress(frames, generated, rollout.state.nbytes, speed, first, last)


@dataclass
class _Start:
    """Where a rollout begins: after its context."""

    rollout: Rollout
    context: int
    pose: NDArray[np.float32] | None
    layout: NDArray[np.uint8] | None
    recorded: Controls | None


def _start(world: World, episode: EncodedEpisode | None, options: RenderOptions) -> _Start:
    unknown = sorted(set(options.conditions) - set(world.model.config.streams))
    if unknown:
        raise LssvwmError(f"conditions {', '.join(unknown)}; the world has {', '.join(world.model.config.streams)}")
    if options.upscale < 1 or options.frames < 1:
        raise LssvwmError(f"--frames {options.frames} --upscale {options.upscale}: both must be at least 1")
    rollout = world.rollout(options.seed)
    if options.load_state is not None:
        extra = {name: tensor.numpy() for name, tensor in rollout.load(options.load_state).items()}
        rollout.reseed(options.seed)
        return _Start(rollout, 0, extra.get("pose"), extra.get("layout"), None)
    if episode is None:
        raise ValueError("a rollout needs an episode or a state to load")
    usual = min(USUAL_CONTEXT, options.frames // 2, len(episode))
    context = usual if options.context is None else options.context
    if context >= options.frames:
        raise LssvwmError(f"--frames {options.frames}: nothing is left to generate after {context} frames of --context")
    if context > len(episode):
        raise LssvwmError(f"--context {context}: episode {episode.id} has {len(episode)} frames")
    poses = episode.poses if episode.poses is not None else np.zeros((len(episode), 0), np.float32)
    if context:
        rollout.observe(episode.latents[:context], episode.conditions[:context].only(options.conditions))
    pose = poses[context - 1] if context and poses.shape[1] else None
    return _Start(rollout, context, pose, episode.layout, Controls(episode.actions[context:], poses[context:]))


def _conditions(world: World, rows: dict[str, NDArray[np.float32]], options: RenderOptions) -> Conditions:
    streams = [name for name in world.model.config.streams if name in options.conditions]
    return Conditions({name: rows[name] for name in streams if name in rows and rows[name].shape[1]})


def _rest_of(recorded: NDArray[np.float32], start: int, count: int) -> NDArray[np.float32]:
    """(count, columns) the recorded rows from `start` on, unknown where the recording has ended."""
    rows = recorded[start : start + count]
    return np.pad(rows, ((0, count - len(rows)), (0, 0)), constant_values=np.nan)


def _places(world: World, poses: NDArray[np.float32]) -> NDArray[np.float32]:
    """(T, 2) where each pose is on the ground; NaN where the world's poses do not say."""
    places = places_of(poses, world.header.pose_names, world.header.pose_kinds)
    return np.full((len(poses), 2), np.nan, np.float32) if places is None else places


def _context_frames(world: World, episode: EncodedEpisode | None, first: int, last: int) -> Frames:
    """What the world saw: exact frames where they are kept, else decoded latents."""
    assert episode is not None  # a loaded state has no context
    if episode.frames is not None:
        return episode.frames[first:last]
    return world.decode(torch.from_numpy(episode.latents[first:last]).float())


def _compose(frames: Frames, truth: Frames | None, first: int, context: bool, options: RenderOptions) -> Frames:
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
    episode = load_episode(world, data)
    context = min(120, len(episode) // 2 // world.chunk * world.chunk)
    options = RenderOptions(frames=min(2 * context, len(episode)), context=context, side_by_side=True)
    for _ in render(world, episode, options, out):
        pass
