"""Runs a task: batches of episodes rolled out beside their reference rows, the result of each kept as it comes.

<out>/evaluation.json              what is evaluated: a folder goes on only with the same settings
<out>/episodes/0003-seed0.npz      per-frame measures of one episode (see `Result`)
<out>/videos/0003-seed0.mp4        truth | model | model with its memory cut
"""

import json
import zlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import torch
from numpy.typing import NDArray

from lssvwm_core.episodes import EncodedEpisode, episode_count, load_episode
from lssvwm_core.evaluation.features import ClipFeatures, Lpips
from lssvwm_core.evaluation.metrics import psnr, ssim
from lssvwm_core.evaluation.tasks import Task, Trial, make_trial
from lssvwm_core.video import CONTEXT_COLOUR, GENERATED_COLOUR, Frames, caption, mp4_writer, upscale
from lssvwm_core.world import World
from lssvwm_datasets.errors import LssvwmError
from lssvwm_datasets.files import remove_partial_files, write_json, written_whole

MODEL, CUT, LAST, CEILING = "model", "memory cut", "last context frame", "autoencoder"
SETTINGS_FILE, EPISODES_FOLDER, VIDEOS_FOLDER = "evaluation.json", "episodes", "videos"
SHEET_FRAMES = 8  # of an episode that are kept as pictures
UPSCALE, FPS_FACTOR = 3, 4  # of videos


@dataclass(frozen=True)
class EvalOptions:
    task: Task
    episodes: int = 8
    seed: int = 0
    seeds: int = 1
    """Dreams of each episode, from seeds `seed`, `seed + 1` …"""
    batch: int = 4
    """Episodes rolled out side by side; results do not depend on it but for rounding."""
    conditions: tuple[str, ...] = ("action", "pose")
    videos: int = 2
    """Episodes of which a video is made."""
    cut: bool = True
    """Roll out the model with its memory cut to the frame window, too."""


@dataclass(frozen=True)
class Measures:
    """Beside PSNR and SSIM."""

    lpips: Lpips | str
    """The network, or why there is none."""
    features: ClipFeatures


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
    fixed = asdict(options) | {"chunk": world.chunk, "steps": world.steps, "streams": streams} | identity
    for free in ("episodes", "seeds", "batch", "videos", "conditions"):  # more of the same may be added
        fixed.pop(free)
    _open_folder(out, fixed)

    seeds = range(options.seed, options.seed + options.seeds)
    count = min(options.episodes, episode_count(source, world))
    total = count * len(seeds) * options.task.frames
    done = min(total, len(result_files(out)) * options.task.frames)
    yield EvalProgress(done, total)
    batch: list[tuple[Path, Trial, int]] = []
    for number, episode in islice(_long_enough(source, world, options.task), count):
        for seed in seeds:
            path = out / EPISODES_FOLDER / f"{number:04d}-seed{seed}.npz"
            if not path.exists():
                batch.append((path, make_trial(options.task, number, episode, world, streams), seed))
            if len(batch) == options.batch:
                for frames in _finish(world, batch, options, measures, out):
                    yield EvalProgress(done + frames, total)
                done, batch = done + len(batch) * options.task.frames, []
    if batch:
        for frames in _finish(world, batch, options, measures, out):
            yield EvalProgress(done + frames, total)
    yield EvalProgress(total, total)


def _long_enough(source: Path, world: World, task: Task) -> Iterator[tuple[int, EncodedEpisode]]:
    """Raises: LssvwmError when no episode is."""
    needed, longest, found = int(task.order().max()) + 1, 0, False
    for number in range(episode_count(source, world)):
        episode = load_episode(source, world, number)
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
    trials = [trial for _, trial, _ in batch]
    rolled: dict[str, list[Frames]] = {}
    names = (MODEL, CUT) if options.cut else (MODEL,)
    for frames in _roll_out(world, trials, [seed for *_, seed in batch], names, rolled):
        yield frames * len(batch)
    for k, (path, trial, _) in enumerate(batch):
        dreams = {name: rolled[name][k] for name in names}
        if trial.number < options.videos:
            _write_video(world, trial, dreams, out / VIDEOS_FOLDER / f"{path.stem}.mp4")
        _save(path, _measure(world, trial, dreams, measures))


def _open_folder(out: Path, fixed: dict[str, Any]) -> None:
    fixed = json.loads(json.dumps(fixed))
    path = out / SETTINGS_FILE
    if path.exists():
        found = json.loads(path.read_text())
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


def _roll_out(
    world: World, trials: list[Trial], seeds: list[int], names: tuple[str, ...], rolled: dict[str, list[Frames]]
) -> Iterator[int]:
    """Fill `rolled` with the decoded frames of each named row, an array for each trial; yields frames done."""
    frames, context = len(trials[0].truth), len(trials[0].context)
    conditions = {name: torch.stack([t.conditions[name] for t in trials]) for name in trials[0].conditions}
    latents = torch.stack([trial.context for trial in trials])
    for share, row in enumerate(names):
        rngs = [_generator(seed, trial.number) for seed, trial in zip(seeds, trials, strict=True)]
        parts: list[list[Frames]] = [[] for _ in trials]
        state = world.reset(len(trials))
        if row == MODEL:
            world.observe(state, latents, {name: rows[:, :context] for name, rows in conditions.items()})
        tail = (world.model.config.frame_window - world.chunk) // world.chunk * world.chunk
        recent = latents[:, max(context - tail, 0) :]
        for start in range(context, context + frames, world.chunk):
            rows = slice(start, start + world.chunk)
            if row == CUT:
                state = world.reset(len(trials))
                window = slice(start - recent.shape[1], start)
                world.observe(state, recent, {name: found[:, window] for name, found in conditions.items()})
            chunk = world.generate(state, {name: found[:, rows] for name, found in conditions.items()}, rngs).cpu()
            recent = torch.cat([recent, chunk], dim=1)[:, max(recent.shape[1] + world.chunk - tail, 0) :]
            for part, dreamt in zip(parts, chunk, strict=True):
                part.append(world.decode(dreamt))
            yield (share * frames + min(start - context + world.chunk, frames)) // len(names)
        rolled[row] = [np.concatenate(part)[:frames] for part in parts]


def _generator(seed: int, number: int) -> torch.Generator:
    return torch.Generator().manual_seed(int(np.random.SeedSequence([seed, number]).generate_state(1)[0]))


def _measure(world: World, trial: Trial, dreams: dict[str, Frames], measures: Measures) -> dict[str, NDArray[Any]]:
    """What is kept of an episode, one line of each array for every row.

    `psnr`, `ssim`, `lpips` (rows, N), `distance` (N,), `features` (rows, clips, d) and those of the truth, and
    `pictures` (1 + rows, shown, H, W, 3), the truth first.
    """
    everything = {
        **dreams,
        LAST: np.broadcast_to(trial.context_frames[-1:], trial.truth.shape),
        CEILING: world.decode(trial.truth_latents),
    }
    rows = [np.ascontiguousarray(frames) for frames in everything.values()]
    shown = np.unique(np.linspace(0, len(trial.truth) - 1, SHEET_FRAMES).round().astype(int))
    kept: dict[str, NDArray[Any]] = {
        "id": np.array(trial.id),
        "rows": np.array(list(everything)),
        "exact": np.array(trial.exact),
        "places_known": np.array(trial.places_known),
        "distance": trial.distance,
        "psnr": np.stack([psnr(frames, trial.truth) for frames in rows]),
        "ssim": np.stack([ssim(frames, trial.truth) for frames in rows]),
        "features": np.stack([measures.features.extract(frames) for frames in rows]),
        "features_truth": measures.features.extract(trial.truth),
        "shown": shown,
        "pictures": np.stack([trial.truth[shown], *(frames[shown] for frames in rows)]),
    }
    if isinstance(measures.lpips, Lpips):
        kept["lpips"] = np.stack([measures.lpips.score(frames, trial.truth) for frames in rows])
    return kept


def _save(path: Path, arrays: dict[str, NDArray[Any]]) -> None:
    with written_whole(path) as partial:
        np.savez_compressed(partial, **arrays)  # type: ignore[arg-type]


def _write_video(world: World, trial: Trial, dreams: dict[str, Frames], path: Path) -> None:
    context = np.concatenate([trial.context_frames] * (1 + len(dreams)), axis=2)
    generated = np.concatenate([trial.truth, *dreams.values()], axis=2)
    names = " | ".join(["truth", *dreams])
    with mp4_writer(path, FPS_FACTOR * world.header.fps) as video:
        for word, frames, first, colour in (
            ("context", context, 0, CONTEXT_COLOUR),
            ("generated", generated, len(context), GENERATED_COLOUR),
        ):
            for start in range(0, len(frames), 100):
                part = frames[start : start + 100]
                texts = [f"{names}   {word} {first + start + k}" for k in range(len(part))]
                video.append(caption(upscale(part, UPSCALE), texts, colour))


def result_files(out: Path) -> list[Path]:
    return sorted((out / EPISODES_FOLDER).glob("[0-9]*.npz"))


def load_results(out: Path) -> list[dict[str, NDArray[Any]]]:
    """What `_measure` kept of every episode, in order of episodes. Raises: LssvwmError for damaged files."""
    results = []
    for path in result_files(out):
        try:
            with np.load(path) as file:
                results.append({name: file[name] for name in file.files})
        except (OSError, ValueError, EOFError, BadZipFile, zlib.error) as error:
            raise LssvwmError(f"{path}: damaged result ({error}); delete it and evaluate again") from error
    return results
