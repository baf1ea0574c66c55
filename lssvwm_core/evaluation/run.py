"""Runs a task: batches of episodes rolled out beside their reference rows, the result of each kept as it comes.

<out>/evaluation.json              what is evaluated: a folder goes on only with the same settings
<out>/episodes/0003-seed0.npz      per-frame measures of one episode (see `results`)
<out>/videos/0003-seed0.mp4        truth | model | model with its memory cut
"""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lssvwm_core.conditions import Conditions
from lssvwm_core.episodes import EncodedEpisode, episode_count, load_episode
from lssvwm_core.evaluation.results import (
    CUT,
    EPISODES_FOLDER,
    MODEL,
    SETTINGS_FILE,
    Measures,
    measure,
    result_files,
    save_result,
)
from lssvwm_core.evaluation.tasks.task import Task, Trial, make_trial
from lssvwm_core.rollout import Chunk, Rollout, episode_generator
from lssvwm_core.video import CONTEXT_COLOUR, GENERATED_COLOUR, Frames, caption, upscale, video_writer
from lssvwm_core.world import World
from lssvwm_datasets.errors import LssvwmError
from lssvwm_datasets.files import remove_partial_files, write_json
from lssvwm_datasets.schema import read_json

VIDEOS_FOLDER = "videos"
UPSCALE, FPS_FACTOR = 3, 4  # of videos


@dataclass(frozen=True)
class EvalOptions:
    task: Task
    episodes: int = 8
    seed: int = 0
    seeds: int = 1
    """Rollouts of each episode, from seeds `seed`, `seed + 1` …"""
    batch: int = 4
    """Episodes rolled out side by side; results do not depend on it but for rounding."""
    conditions: tuple[str, ...] = ("action", "pose")
    videos: int = 2
    """Episodes of which a video is made."""
    cut: bool = True
    """Roll out the model with its memory cut to the frame window, too."""


@dataclass(frozen=True)
class EvalProgress:
    done: int  # generated frames, over all episodes
    total: int


def evaluate(
    world: World, source: Path, options: EvalOptions, measures: Measures, identity: dict[str, Any], out: Path
) -> Iterator[EvalProgress]:
    """Write the results of the episodes that `out` lacks, yielding progress after each chunk.

    Args:
        source: validation shards or recordings; episodes that are too short are passed over.
        identity: what the results depend on beside the options, for `evaluation.json`.

    Raises: LssvwmError for a task that does not fit, too few episodes, or an `out` with other settings.
    """
    streams = tuple(name for name in world.model.config.streams if name in options.conditions)
    unknown = sorted(set(options.conditions) - set(world.model.config.streams) - {"action", "pose"})
    if unknown or not streams:
        raise LssvwmError(
            f"conditions {', '.join(options.conditions)}; the world has {list(world.model.config.streams)}"
        )
    options.task.check(world, streams)
    how = {
        "chunk": world.chunk,
        "steps": world.steps,
        "guidance": world.sampler.guidance or None,
        "temperature": world.sampler.temperature if world.sampler.temperature != 1 else None,
        "streams": streams,
    }
    fixed = asdict(options) | how | identity
    for free in ("episodes", "seeds", "batch", "videos", "conditions"):  # more of the same may be added
        fixed.pop(free)
    _open_folder(out, fixed)

    seeds = range(options.seed, options.seed + options.seeds)
    count = min(options.episodes, episode_count(source, world))
    total = count * len(seeds) * options.task.generated
    done = min(total, len(result_files(out)) * options.task.generated)
    yield EvalProgress(done, total)
    batch: list[tuple[Path, Trial, int]] = []
    for number, episode in islice(long_enough(source, world, options.task), count):
        for seed in seeds:
            path = out / EPISODES_FOLDER / f"{number:04d}-seed{seed}.npz"
            if not path.exists():
                batch.append((path, make_trial(options.task, number, episode, world, streams), seed))
            if len(batch) == options.batch:
                for frames in _finish(world, batch, options, measures, out):
                    yield EvalProgress(done + frames, total)
                done, batch = done + len(batch) * options.task.generated, []
    if batch:
        for frames in _finish(world, batch, options, measures, out):
            yield EvalProgress(done + frames, total)


def long_enough(source: Path, world: World, task: Task) -> Iterator[tuple[int, EncodedEpisode]]:
    """The validation episodes that are long enough for a task. Raises: LssvwmError when none is."""
    needed, longest, found = int(task.order().max()) + 1, 0, False
    for number in range(episode_count(source, world)):
        episode = load_episode(world, source, number)
        longest = max(longest, len(episode))
        if len(episode) >= needed:
            found = True
            yield number, episode
    if not found:
        raise LssvwmError(
            f"{source}: {task.name} needs {needed} frames, the longest validation episode has {longest}; "
            "shorten --context and --frames"
        )


def _finish(
    world: World, batch: list[tuple[Path, Trial, int]], options: EvalOptions, measures: Measures, out: Path
) -> Iterator[int]:
    """Roll out a batch, then write its results and videos; yields generated frames, over the batch."""
    trials, seeds, frames = [trial for _, trial, _ in batch], [seed for *_, seed in batch], options.task.generated
    names = (MODEL, CUT) if options.cut else (MODEL,)
    rolled: dict[str, Frames] = {}
    certainty = np.full((len(batch), frames), np.nan)
    for share, name in enumerate(names):
        parts: list[Frames] = []
        for chunk in _roll_out(world, trials, seeds, memory_cut=name == CUT):
            first = len(parts) * world.chunk
            parts.append(world.decode(chunk.latents))
            if name == MODEL and chunk.certainty is not None:
                certainty[:, first : first + world.chunk] = chunk.certainty[:, : frames - first].cpu()
            done = min(first + world.chunk, frames)
            yield (share * frames + done) // len(names) * len(batch)
        rolled[name] = np.concatenate(parts, axis=1)[:, :frames]
    for k, (path, trial, _) in enumerate(batch):
        generated = {name: rolled[name][k] for name in names}
        if trial.number < options.videos:
            truth = {"truth": trial.truth} if options.task.has_truth else {}
            _write_video(world, trial, truth | generated, out / VIDEOS_FOLDER / f"{path.stem}.mp4")
        measured = certainty[k, -options.task.frames :]
        save_result(path, measure(world, options.task, trial, generated, measures, measured))


def _open_folder(out: Path, fixed: dict[str, Any]) -> None:
    fixed = json.loads(json.dumps(fixed))
    path = out / SETTINGS_FILE
    if path.exists():
        found = read_json(path, dict[str, Any], "choose another --out or delete the folder")
        differing = sorted(key for key in fixed | found if fixed.get(key) != found.get(key))
        if differing:
            key = differing[0]
            raise LssvwmError(
                f"{path}: an evaluation with other settings ({key}: {found.get(key)}, now {fixed.get(key)}); "
                "choose another --out or delete the folder"
            )
        remove_partial_files(out)
    else:
        write_json(path, fixed)


def _roll_out(world: World, trials: list[Trial], seeds: list[int], memory_cut: bool) -> Iterator[Chunk]:
    """All trials side by side, chunk by chunk."""
    generators = [episode_generator(seed, trial.number) for seed, trial in zip(seeds, trials, strict=True)]
    rollout = Rollout(world, generators, memory_cut)
    context, conditions = len(trials[0].context), Conditions.stack([trial.conditions for trial in trials])
    rollout.observe(torch.stack([trial.context for trial in trials]), conditions[:context])
    yield from rollout.run(conditions[context:])


def _write_video(world: World, trial: Trial, columns: dict[str, Frames], path: Path) -> None:
    context = np.concatenate([trial.context_frames] * len(columns), axis=2)
    beside = np.concatenate(list(columns.values()), axis=2)
    names = " | ".join(columns)
    with video_writer(path, FPS_FACTOR * world.header.fps) as video:
        for word, frames, first, colour in (
            ("context", context, 0, CONTEXT_COLOUR),
            ("generated", beside, len(context), GENERATED_COLOUR),
        ):
            for start in range(0, len(frames), 100):
                part = frames[start : start + 100]
                texts = [f"{names}   {word} {first + start + k}" for k in range(len(part))]
                video.append(caption(upscale(part, UPSCALE), texts, colour))
