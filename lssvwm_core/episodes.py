"""Episodes to start a rollout from: out of shards, or out of recordings that are encoded on the fly."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lssvwm_core.conditions import Conditions
from lssvwm_core.prepare.encode import encode_frames
from lssvwm_core.resolve import resolve_data
from lssvwm_core.world import World
from lssvwm_datasets.errors import DamagedRecording, LssvwmError
from lssvwm_datasets.format import ReaderOptions
from lssvwm_datasets.shards import INDEX_FILE, open_shards
from lssvwm_datasets.sources import VALIDATION, Recording, find_recordings
from lssvwm_datasets.streams import STREAMS, columns_of


@dataclass(frozen=True)
class EncodedEpisode:
    """A recorded episode of T frames as a rollout needs it.

    Attributes:
        latents: (T, C, h, w) float16, of the world's autoencoder.
        actions, poses: (T, A) and (T, P) float32; poses None where the recording has none.
        frames: (T, H, W, 3) uint8, exact; None where the shards keep none.
        layout: (N, N) uint8 map, 1 = free, or None.
        stream_rows: (T, columns) float32 of further condition streams, by name.
    """

    id: str
    latents: NDArray[np.float16]
    actions: NDArray[np.float32]
    poses: NDArray[np.float32] | None
    frames: NDArray[np.uint8] | None
    layout: NDArray[np.uint8] | None
    fps: float
    stream_rows: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.latents)

    @property
    def conditions(self) -> Conditions:
        """What led to each frame, as recorded."""
        streams = {name: self.rows(name) for name in STREAMS}
        return Conditions({name: rows for name, rows in streams.items() if rows is not None and rows.shape[1]})

    def rows(self, stream: str) -> NDArray[np.float32] | None:
        """(T, columns) of a condition stream; None where the recording has none."""
        return {"action": self.actions, "pose": self.poses, **self.stream_rows}.get(stream)


def load_episode(world: World, source: str | Path | None = None, number: int = 0) -> EncodedEpisode:
    """The `number`-th validation episode of a folder of shards or of recordings, encoded for `world`.

    Args:
        source: a folder, or a hub id; None: `data/<the world's data set>` where it is prepared, else the recordings
            that ship with the package.

    Raises: LssvwmError when the source does not fit the world, or has no such episode.
    """
    source = resolve_data(source, world.header.dataset, samples=True)
    episode = (
        _from_shards(source, world, number) if (source / INDEX_FILE).exists() else _recorded(source, world, number)
    )
    for name in STREAMS:
        rows, names = episode.rows(name), columns_of(world.header, name)
        found = 0 if rows is None else rows.shape[1]
        if found != len(names):
            raise LssvwmError(
                f"{source}: {name}s have {found} columns; the world was trained with {len(names)}: {names}"
            )
    return episode


def episode_count(source: Path, world: World) -> int:
    """How many validation episodes a folder of shards or of recordings has. Raises: LssvwmError."""
    if (source / INDEX_FILE).exists():
        return len(open_shards(source, VALIDATION).episodes)
    return len(_held_out(source, world))


def _from_shards(folder: Path, world: World, number: int) -> EncodedEpisode:
    shards = open_shards(folder, VALIDATION)
    if shards.header.autoencoder_sha256 != world.header.autoencoder_sha256:
        raise LssvwmError(
            f"{folder}: encoded by {shards.header.autoencoder} ({shards.header.autoencoder_sha256[:12]}); the world "
            f"was trained on latents of {world.header.autoencoder} ({world.header.autoencoder_sha256[:12]})"
        )
    _check_number(folder, number, len(shards.episodes))
    stored = shards.episodes[number]
    latents, actions = shards.read(stored, "latents"), shards.read(stored, "actions")
    assert latents is not None  # every shard has both
    assert actions is not None
    further = {name: shards.read(stored, STREAMS[name].stored) for name in shards.header.stream_names}
    return EncodedEpisode(
        stored.id,
        latents,
        actions,
        shards.read(stored, "poses"),
        shards.read(stored, "frames"),
        shards.layout(stored),
        shards.header.fps,
        {name: rows for name, rows in further.items() if rows is not None},
    )


def _recorded(source: Path, world: World, number: int) -> EncodedEpisode:
    chosen = _held_out(source, world)
    _check_number(source, number, len(chosen))
    try:
        episode = next(chosen[number].episodes())
        if world.header.source_alignment not in ("", episode.source_alignment):
            raise LssvwmError(
                f"{source}: actions are aligned as {episode.source_alignment!r}, the world's as "
                f"{world.header.source_alignment!r}; prepare the recordings the same way and roll out from the shards"
            )
        frames = np.concatenate(list(episode.frames))
    except DamagedRecording as error:
        raise LssvwmError(f"{error}; choose another --episode") from error
    latents = encode_frames(world.autoencoder, frames)
    conditions = episode.actions, episode.poses
    return EncodedEpisode(
        episode.id, latents, *conditions, frames, episode.layout, episode.fps, dict(episode.stream_rows)
    )


def _held_out(source: Path, world: World) -> list[Recording]:
    """The validation recordings of a folder, or all where none is held out."""
    recordings = find_recordings(source, world.header.dataset, ReaderOptions(size=world.header.frame_size))
    return [recording for recording in recordings if recording.split == VALIDATION] or recordings


def _check_number(source: Path, number: int, count: int) -> None:
    if not 0 <= number < count:
        raise LssvwmError(f"{source}: episode {number}; it has validation episodes 0..{count - 1}")
