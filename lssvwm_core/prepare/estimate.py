"""What a plan will take before it is carried out: frames, bytes on disk and time, from a look of a few seconds."""

import contextlib
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lssvwm_core.model.autoencoder import load_autoencoder
from lssvwm_core.prepare.encode import encode_frames
from lssvwm_core.prepare.plan import ShardJob
from lssvwm_datasets.episode import Episode
from lssvwm_datasets.errors import DamagedRecording, LssvwmError, UnreadableNow
from lssvwm_datasets.shards import CHUNK_FRAMES
from lssvwm_datasets.sources import Recording
from lssvwm_datasets.streams import STREAMS, columns_of

LOOK_SECONDS = 2.0  # for the lengths of recordings
SAMPLE_SECONDS = 1.5  # of decoding, and of encoding
SHARD_OVERHEAD = 32 * 1024  # bytes: HDF5's own tables


@dataclass(frozen=True)
class Lengths:
    """Frames of each recording; estimated by file size for those that were not looked at."""

    frames: dict[str, int]  # by the recording's id
    looked_at: int

    @property
    def exact(self) -> bool:
        return self.looked_at == len(self.frames)


def look_at_lengths(recordings: list[Recording], seconds: float = LOOK_SECONDS) -> Lengths:
    """Open recordings, in random order, until all are seen or the time is up."""
    order = np.random.default_rng(0).permutation(len(recordings))
    started, frames, size = time.monotonic(), {}, 0
    for number in order:
        recording = recordings[number]
        frames[recording.id] = sum(episode.length for episode in _readable(recording))
        size += recording.bytes
        if time.monotonic() - started > seconds:
            break
    looked_at = len(frames)
    per_byte = sum(frames.values()) / max(1, size)
    rest = {r.id: round(per_byte * r.bytes) for r in recordings if r.id not in frames}
    return Lengths(frames | rest, looked_at)


def bytes_on_disk(jobs: list[ShardJob], lengths: Lengths) -> int:
    """The bytes of the shards that `jobs` will write; HDF5 fills its last chunk up."""
    total = 0
    for job in jobs:
        header = job.header
        row = 2 * int(np.prod(header.latent_shape)) + 4 * sum(len(columns_of(header, name)) for name in STREAMS)
        row += 3 * int(np.prod(header.frame_size)) if job.keep_frames else 0
        frames = sum(lengths.frames[recording.id] for recording in job.recordings)
        total += -(-frames // CHUNK_FRAMES) * CHUNK_FRAMES * row + SHARD_OVERHEAD
    return total


def decoding_speed(jobs: list[ShardJob], sample: list[NDArray[np.uint8]] | None = None) -> float | None:
    """Frames/s that one process decodes, from the first recording that can be read; None when there is none.

    The frames are left in `sample`.
    """
    for recording in (recording for job in jobs for recording in job.recordings):
        started, frames = time.monotonic(), 0
        with contextlib.suppress(DamagedRecording, UnreadableNow):
            for part in (part for episode in recording.episodes() for part in episode.frames):
                frames += len(part)
                if sample is not None:
                    sample.append(part)
                if time.monotonic() - started > SAMPLE_SECONDS:
                    break
        if frames:
            return frames / (time.monotonic() - started)
    return None


def encoding_speed(job: ShardJob, sample: list[NDArray[np.uint8]]) -> float:
    """Frames/s that one process encodes."""
    autoencoder = load_autoencoder(job.autoencoder).to(job.device)
    encode_frames(autoencoder, sample[0])  # the first time is slow
    started, frames = time.monotonic(), 0
    for part in sample:
        encode_frames(autoencoder, part)
        frames += len(part)
        if time.monotonic() - started > SAMPLE_SECONDS:
            break
    return frames / (time.monotonic() - started)


def require_space(folder: Path, jobs: list[ShardJob]) -> None:
    """Check the free disk. Raises: LssvwmError when it has no room for the shards."""
    if not jobs:
        return
    need = bytes_on_disk(jobs, look_at_lengths([recording for job in jobs for recording in job.recordings]))
    free = shutil.disk_usage(folder).free
    if need > free:
        raise LssvwmError(
            f"{folder}: the shards need about {size_text(need)}, {size_text(free)} are free; make room, choose "
            "another --out, or keep fewer frames with --keep-frames none"
        )


def size_text(size: int) -> str:
    return f"{size / 1e9:.2f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB"


def _readable(recording: Recording) -> Iterator[Episode]:
    """The episodes until one cannot be read."""
    try:
        yield from recording.episodes()
    except (DamagedRecording, UnreadableNow):
        return
