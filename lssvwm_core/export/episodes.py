"""Which episodes are exported: those of recordings, those of shards, or what a world makes of either."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
import torch
from numpy.typing import NDArray

from lssvwm_core.episodes import EncodedEpisode, episode_count, load_episode
from lssvwm_core.model.autoencoder import load_autoencoder
from lssvwm_core.model.storage import AUTOENCODER_FOLDER, latents_sha256
from lssvwm_core.world import World
from lssvwm_datasets.episode import Episode
from lssvwm_datasets.errors import LssvwmError
from lssvwm_datasets.format import ReaderOptions
from lssvwm_datasets.frames import PART_FRAMES, FrameParts
from lssvwm_datasets.index import INDEX_FILE, ShardHeader, read_index
from lssvwm_datasets.shards import ShardSet, StoredEpisode, open_shards
from lssvwm_datasets.sources import SPLITS, VALIDATION, find_recordings, split_named_by

UNSAFE = re.compile(r'[\x00-\x1f\x7f\\:*?"<>|]')
LONGEST_NAME = 120  # characters of a part of a name


@dataclass(frozen=True)
class Exported:
    """An episode under a path that is safe to write below a folder, and that names its split."""

    episode: Episode
    split: str

    @property
    def path(self) -> PurePosixPath:
        parts = [_safe(part) for part in PurePosixPath(self.episode.id).parts if part not in ("/", "..")]
        *folders, name = parts or ["episode"]
        named = split_named_by(tuple(folders))
        if named not in (None, self.split):  # its folders name another split
            folders, name = [], "-".join([*folders, name])
        return PurePosixPath(*([] if named == self.split else [self.split]), *folders, name)


@dataclass(frozen=True)
class Selection:
    """Episodes one at a time, and about how many they are."""

    count: int
    episodes: Iterator[Exported]


def recorded(source: Path, split: str | None = None, size: tuple[int, int] | None = None) -> Selection:
    """The episodes of shards, or of recordings, split by split. Raises: LssvwmError, also for a damaged recording."""
    splits = SPLITS if split is None else (split,)
    if (source / INDEX_FILE).exists():
        shards = [open_shards(source, name) for name in splits if name in read_index(source).splits]
        stored = ((one, episode) for one in shards for episode in one.episodes)
        return Selection(
            sum(len(one.episodes) for one in shards),
            (Exported(_stored(one, episode), one.split) for one, episode in stored),
        )
    found = find_recordings(source, options=ReaderOptions(size=size))
    recordings = [recording for name in splits for recording in found if recording.split == name]
    return Selection(
        len(recordings),
        (Exported(episode, recording.split) for recording in recordings for episode in recording.episodes()),
    )


def rolled_out(world: World, source: Path, context: int, seed: int = 0) -> Selection:
    """Validation episodes of which the world saw `context` frames, and made the others by the recorded actions.

    Raises: LssvwmError, also for an episode that is not longer than the context.
    """
    count = episode_count(source, world)
    return Selection(count, (_rolled_out(world, source, number, context, seed + number) for number in range(count)))


def _rolled_out(world: World, source: Path, number: int, context: int, seed: int) -> Exported:
    episode = load_episode(world, source, number)
    if not 0 <= context < len(episode):
        raise LssvwmError(f"--context {context}: episode {episode.id} has {len(episode)} frames")
    frames = _rollout(world, episode, context, seed)
    conditions = episode.actions, episode.poses, episode.layout
    return Exported(_with_rows(world.header, episode.id, frames, *conditions), VALIDATION)


def _rollout(world: World, episode: EncodedEpisode, context: int, seed: int) -> FrameParts:
    def frames() -> Iterator[NDArray[np.uint8]]:
        rollout = world.rollout(seed)
        rollout.observe(episode.latents[:context], episode.conditions[:context])
        shown = episode.frames
        yield (
            shown[:context] if shown is not None else world.decode(torch.from_numpy(episode.latents[:context]).float())
        )
        done = context
        for chunk in rollout.run(episode.conditions[context:]):
            yield chunk.frames[: len(episode) - done]
            done = min(len(episode), done + len(chunk.frames))

    return FrameParts(frames, len(episode))


def _stored(shards: ShardSet, stored: StoredEpisode) -> Episode:
    actions = shards.read(stored, "actions")
    assert actions is not None  # every shard has them
    frames = FrameParts(lambda: _stored_frames(shards, stored), stored.length)
    return _with_rows(shards.header, stored.id, frames, actions, shards.read(stored, "poses"), shards.layout(stored))


def _stored_frames(shards: ShardSet, stored: StoredEpisode) -> Iterator[NDArray[np.uint8]]:
    """Exact frames where they are kept, else decoded latents."""
    for start in range(0, stored.length, PART_FRAMES):
        stop = min(start + PART_FRAMES, stored.length)
        frames = shards.read(stored, "frames", start, stop)
        yield frames if frames is not None else _decoded(shards, shards.read(stored, "latents", start, stop))


@torch.inference_mode()
def _decoded(shards: ShardSet, latents: NDArray[np.float16] | None) -> NDArray[np.uint8]:
    folder = shards.folder / AUTOENCODER_FOLDER
    if latents_sha256(folder) != shards.header.autoencoder_sha256:
        raise LssvwmError(f"{folder}: not the autoencoder that made the shards ({shards.header.autoencoder})")
    return load_autoencoder(folder).decode(torch.from_numpy(latents)).numpy()


def _with_rows(
    header: ShardHeader,
    id: str,
    frames: FrameParts,
    actions: NDArray[np.float32],
    poses: NDArray[np.float32] | None,
    layout: NDArray[np.uint8] | None,
) -> Episode:
    return Episode(
        id=id,
        frames=frames,
        frame_size=header.frame_size,
        actions=actions,
        action_names=header.action_names,
        action_units=header.action_units or ("number",) * len(header.action_names),
        source_alignment=header.source_alignment,
        fps=header.fps,
        poses=poses if header.pose_names else None,
        pose_names=header.pose_names,
        pose_kinds=header.pose_kinds,
        layout=layout,
    )


def _safe(part: str) -> str:
    """A part of a name that any file system takes, and that is neither hidden nor leads elsewhere."""
    part = UNSAFE.sub("_", part.encode("utf-8", "replace").decode())[:LONGEST_NAME].strip()
    return f"_{part[1:]}" if part.startswith(".") or not part else part
