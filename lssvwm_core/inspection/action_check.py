"""Recorded actions against the pictures: an arrow over every frame, and a verdict on sign and alignment."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from lssvwm_core.inspection.motion import Agreement, agreement, sideways_motion, turns_of
from lssvwm_core.model.autoencoder import load_autoencoder
from lssvwm_core.model.storage import AUTOENCODER_FOLDER, latents_sha256
from lssvwm_core.video import Frames, action_sheet
from lssvwm_datasets.episode import Episode
from lssvwm_datasets.errors import DamagedRecording, LssvwmError
from lssvwm_datasets.index import INDEX_FILE, read_index
from lssvwm_datasets.shards import ShardSet, StoredEpisode, open_shards
from lssvwm_datasets.sources import find_recordings

STRETCHES = 8  # looked at, each of another episode
STRETCH_FRAMES = 400
SHEET_COLUMNS, SHEET_ROWS = 8, 5
RECORDED_COLOUR, SEEN_COLOUR = (255, 210, 40), (60, 220, 255)
Stretch = tuple[Frames, NDArray[np.float32], tuple[str, ...]]  # frames, actions, action names


def check_actions(path: Path) -> tuple[Agreement | None, Image.Image]:
    """The agreement of turns and pictures, None where no column is a turn, and a sheet of the liveliest stretch.

    On each frame a yellow arrow shows the recorded turn that led to it and a blue one how far the picture turned.
    Raises: LssvwmError when nothing can be read.
    """
    stretches = list(_stretches(path))
    if not stretches:
        raise LssvwmError(f"{path}: no frames to check actions by")
    motions = [sideways_motion(frames) for frames, _, _ in stretches]
    turns = [turns_of(actions, names) for _, actions, names in stretches]
    gap = np.full(1, np.nan)  # between episodes
    joined = [np.concatenate([part for turn in turns if turn is not None for part in (turn, gap)] or [gap])]
    joined.append(np.concatenate([part for motion in motions for part in (motion, gap)]))
    verdict = None if turns[0] is None else agreement(joined[1], joined[0])
    liveliest = max(range(len(stretches)), key=lambda number: _changes(turns[number], stretches[number][1]).sum())
    return verdict, _sheet(stretches[liveliest], turns[liveliest], motions[liveliest])


def _sheet(stretch: Stretch, turns: NDArray[np.float64] | None, motion: NDArray[np.float64]) -> Image.Image:
    """The consecutive frames among which the action changes most."""
    frames, actions, names = stretch
    count = min(len(frames), SHEET_COLUMNS * SHEET_ROWS)
    changes = np.convolve(_changes(turns, actions), np.ones(count), "valid")
    first = int(changes.argmax())
    rows = slice(first, first + count)
    sheet = action_sheet(frames[rows], actions[rows], names, first, SHEET_COLUMNS)
    draw = ImageDraw.Draw(sheet)
    width, height = sheet.width // SHEET_COLUMNS, sheet.height // -(-count // SHEET_COLUMNS)
    largest = max(float(np.abs(turns).max()), 1e-9) if turns is not None else 1.0
    for tile, t in enumerate(range(first, first + count)):
        x, y = (tile % SHEET_COLUMNS + 0.5) * width, (tile // SHEET_COLUMNS) * height
        if turns is not None:
            _arrow(draw, x, y + 0.12 * height, 0.4 * width * turns[t] / largest, RECORDED_COLOUR)
        if np.isfinite(motion[t]):
            _arrow(draw, x, y + 0.22 * height, width * float(motion[t].clip(-0.45, 0.45)), SEEN_COLOUR)
    return sheet


def _arrow(draw: ImageDraw.ImageDraw, x: float, y: float, length: float, colour: tuple[int, int, int]) -> None:
    if abs(length) < 2:
        return
    tip, head = x + length, 5.0 if length > 0 else -5.0
    draw.line((x, y, tip, y), colour, width=3)
    draw.polygon(((tip + head, y), (tip - head, y - 5), (tip - head, y + 5)), colour)


def _changes(turns: NDArray[np.float64] | None, actions: NDArray[np.float32]) -> NDArray[np.float64]:
    """(T,) how much the turn, or else the action, differs from the one before."""
    rows = actions if turns is None else turns[:, None]
    return np.abs(np.diff(rows, axis=0, prepend=rows[:1])).sum(axis=1).astype(np.float64)


def _stretches(path: Path) -> Iterator[Stretch]:
    return _shard_stretches(path) if (path / INDEX_FILE).exists() else _recorded_stretches(path)


def _recorded_stretches(path: Path) -> Iterator[Stretch]:
    recordings = find_recordings(path)
    for recording in recordings[:: max(1, len(recordings) // STRETCHES)][:STRETCHES]:
        try:
            episode = next(recording.episodes())
            frames = _first_frames(episode, STRETCH_FRAMES)
            yield frames, episode.actions[: len(frames)], episode.action_names
        except DamagedRecording:
            continue  # `inspect` names it


def _first_frames(episode: Episode, count: int) -> Frames:
    """At least `count` frames, in whole parts, where there are so many. Raises: DamagedRecording."""
    parts: list[Frames] = []
    for part in episode.frames:
        parts.append(part)
        if sum(map(len, parts)) >= count:
            break
    return np.concatenate(parts)


def _shard_stretches(path: Path) -> Iterator[Stretch]:
    for split in read_index(path).splits:
        shards = open_shards(path, split)
        episodes = shards.episodes
        for stored in episodes[:: max(1, 2 * len(episodes) // STRETCHES)][: STRETCHES // 2]:
            count = min(stored.length, STRETCH_FRAMES)
            actions = shards.read(stored, "actions", 0, count)
            assert actions is not None  # every shard has them
            yield _stored_frames(shards, stored, count), actions, shards.header.action_names


@torch.inference_mode()
def _stored_frames(shards: ShardSet, stored: StoredEpisode, count: int) -> Frames:
    """Exact frames where they are kept, else decoded latents."""
    frames = shards.read(stored, "frames", 0, count)
    if frames is not None:
        return frames
    folder = shards.folder / AUTOENCODER_FOLDER
    if latents_sha256(folder) != shards.header.autoencoder_sha256:
        raise LssvwmError(f"{folder}: not the autoencoder that made the shards ({shards.header.autoencoder})")
    latents = shards.read(stored, "latents", 0, count)
    return torch.cat([load_autoencoder(folder).decode(part) for part in torch.from_numpy(latents).split(16)]).numpy()
