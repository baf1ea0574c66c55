"""Writes shards, an episode at a time; `shards.py` describes the format."""

import contextlib
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from lssvwm_datasets.episode import ACTION_ALIGNMENT, Episode
from lssvwm_datasets.errors import DamagedRecording
from lssvwm_datasets.files import PatientFile
from lssvwm_datasets.index import FORMAT, FORMAT_VERSION, ShardHeader
from lssvwm_datasets.shards import CHUNK_FRAMES
from lssvwm_datasets.streams import columns_of, stored_streams

LIBRARY = ("v110", "v110")  # HDF5 1.10 and later; from then on all that HDF5 itself writes has checksums
HELD_BYTES = 32 * 2**20  # of an unfinished episode in memory; the rest waits in a temporary file


class ShardWriter:
    """Writes one shard; use it within `files.written_whole`, so that a shard appears whole or not at all."""

    def __init__(self, path: Path, header: ShardHeader, split: str, plan: str, keep_frames: bool) -> None:
        self.header, self.keep_frames, self.folder = header, keep_frames, path.parent
        self.disk = PatientFile(path, "w+")
        self.file = h5py.File(self.disk, "w", libver=LIBRARY)
        attributes = {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "dataset": header.dataset,
            "split": split,
            "fps": header.fps,
            "frame_size": header.frame_size,
            "action_names": json.dumps(header.action_names),
            "pose_names": json.dumps(header.pose_names),
            "pose_kinds": json.dumps(header.pose_kinds),
            "stream_names": json.dumps(header.stream_names),
            "action_units": json.dumps(header.action_units),
            "action_alignment": ACTION_ALIGNMENT,
            "source_alignment": header.source_alignment,
            "autoencoder": header.autoencoder,
            "autoencoder_sha256": header.autoencoder_sha256,
            "latent_shape": header.latent_shape,
            "plan": plan,
        }
        for name, value in attributes.items():
            self.file.attrs[name] = value
        rows: dict[str, tuple[tuple[int, ...], str]] = {"latents": (header.latent_shape, "f2")}
        for stream in stored_streams(header):
            rows[stream.stored] = ((len(columns_of(header, stream.name)),), "f4")
        if keep_frames:
            rows["frames"] = ((*header.frame_size, 3), "u1")
        for name, (shape, dtype) in rows.items():
            self.file.create_dataset(
                name,
                (0, *shape),
                dtype,
                maxshape=(None, *(length or None for length in shape)),  # HDF5 wants room in a chunk
                chunks=(CHUNK_FRAMES, *(length or 1 for length in shape)),  # also of video without actions
                fletcher32=True,  # a checksum a chunk: a flipped bit is an error when it is read
                track_times=False,
            )
        self.lengths: list[int] = []
        self.ids: list[str] = []
        self.layouts: list[NDArray[np.uint8]] = []
        self.skipped: list[dict[str, str]] = []
        self.notes: list[dict[str, str]] = []
        self.sums = np.zeros((2, header.latent_shape[0]))  # of latents and of their squares, a channel

    def add(self, episode: Episode, encode: Callable[[NDArray[np.uint8]], NDArray[np.float16]]) -> None:
        """Append an episode whose frames `encode` turns into latents (n, C, h, w), a part at a time.

        The parts wait outside the shard until all are there: whatever reading or encoding raises leaves no trace in it.
        Raises: ValueError when the episode does not fit the header; DamagedRecording for numbers that are not finite.
        """
        header = self.header
        found, expected = (
            (one.action_names, one.pose_names, one.pose_kinds, dict(one.stream_names), one.frame_size)
            for one in (episode, header)
        )
        if found != expected:
            raise ValueError(f"{episode.id}: actions, poses, streams and frame size are {found}, expected {expected}")
        if not np.isfinite(episode.actions).all():
            raise DamagedRecording(f"{episode.id}: an action is not a finite number")
        if episode.layout is not None and not np.isin(episode.layout, (0, 1)).all():
            raise DamagedRecording(f"{episode.id}: the layout holds other numbers than 0 and 1")
        sums = np.zeros_like(self.sums)
        parts = 0
        with tempfile.SpooledTemporaryFile(max_size=HELD_BYTES, mode="w+b", dir=str(self.folder)) as waiting:
            for frames in episode.frames:
                latents = encode(frames)
                if latents.shape != (len(frames), *header.latent_shape):
                    shape = (len(frames), *header.latent_shape)
                    raise ValueError(f"{episode.id}: latents have shape {latents.shape}, expected {shape}")
                if not np.isfinite(latents).all():
                    raise DamagedRecording(f"{episode.id}: the autoencoder makes latents of it that are not finite")
                exact = latents.astype(np.float64)
                sums += np.stack([exact.sum(axis=(0, 2, 3)), np.square(exact).sum(axis=(0, 2, 3))])
                np.save(waiting, latents)
                if self.keep_frames:
                    np.save(waiting, frames)
                parts += 1
            waiting.seek(0)
            for _ in range(parts):
                self._append("latents", np.load(waiting))
                if self.keep_frames:
                    self._append("frames", np.load(waiting))
        for stream in stored_streams(header):
            self._append(stream.stored, episode.rows(stream.name))
        if episode.layout is not None:
            self.layouts.append(episode.layout)
        self.lengths.append(episode.length)
        self.ids.append(episode.id)
        self.notes += [{"id": episode.id, "note": note} for note in episode.notes]
        self.sums += sums

    def skip(self, id: str, reason: str) -> None:
        """Note an episode that could not be read."""
        self.skipped.append({"id": id, "reason": reason})

    def __enter__(self) -> "ShardWriter":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Close the shard. Raises: OSError, what the disk said first, rather than what came of it."""
        if kind is None:
            self.close()
            return
        full = self.disk.error
        self.disk.error = full or OSError("abandoned")  # nothing more is written
        with contextlib.suppress(OSError):
            self._release()
        if full is not None:
            raise full

    def close(self) -> None:
        """Write the episode tables and flush. Raises: OSError when the disk is full."""
        try:
            self._write_tables()
        finally:
            self._release()

    def _write_tables(self) -> None:
        lengths = np.array(self.lengths, dtype=np.int64)
        tables: dict[str, Any] = {"episode_start": np.cumsum(lengths) - lengths, "episode_length": lengths}
        if self.layouts and len(self.layouts) == len(self.ids) and len({x.shape for x in self.layouts}) == 1:
            tables["layouts"] = np.stack(self.layouts)
        ids = [id.encode("utf-8", "surrogateescape") for id in self.ids]
        tables["episode_id"] = np.array(ids, h5py.string_dtype("utf-8", max(map(len, ids), default=1)))
        for name, table in tables.items():
            chunked = {"chunks": table.shape, "fletcher32": True} if table.size else {}
            self.file.create_dataset(name, data=table, track_times=False, **chunked)
        cells = max(1, int(lengths.sum()) * int(np.prod(self.header.latent_shape[1:])))
        mean, square = self.sums / cells
        self.file.attrs["latent_mean"] = mean
        self.file.attrs["latent_std"] = np.sqrt(np.maximum(square - mean**2, 0))
        self.file.attrs["skipped"] = json.dumps(self.skipped)
        self.file.attrs["notes"] = json.dumps(self.notes)

    def _release(self) -> None:
        """Raises: OSError, the disk's where it has one."""
        try:
            self.file.close()
        except (OSError, RuntimeError):
            if self.disk.error is None:
                raise
        finally:
            self.disk.close()
        self.disk.check()

    def _append(self, name: str, rows: Any) -> None:
        dataset = self.file[name]
        before = len(dataset)
        dataset.resize(before + len(rows), axis=0)
        dataset[before:] = rows
        self.disk.check()
