"""Recordings into shards: decode, encode in batches, write.

The unit of work is a shard: a fixed list of recordings, encoded episode by episode in batches of a fixed size. A shard
is a function of its recordings and the autoencoder alone, so an interrupted run continues with the shards that are
missing, and writes what an uninterrupted run writes.
"""

import functools
import hashlib
import json
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from lssvwm_core.device import keep_freed_memory
from lssvwm_core.model.autoencoder import load_autoencoder
from lssvwm_core.model.frame_codec import FrameCodec
from lssvwm_core.model.storage import AUTOENCODER_FOLDER, CONFIG_FILE, weights_file, weights_sha256
from lssvwm_datasets.episode import Episode
from lssvwm_datasets.errors import DamagedRecording, LssvwmError
from lssvwm_datasets.files import remove_partial_files, sha256_of, write_json, written_whole
from lssvwm_datasets.parallel import run_units
from lssvwm_datasets.shards import FORMAT, FORMAT_VERSION, INDEX_FILE, ShardHeader, ShardWriter, opened
from lssvwm_datasets.sources import SPLITS, Recording

ENCODE_PIXELS = 128 * 64 * 64  # encoded at once: bounds the memory of large frames
KEEP_FRAMES = ("validation", "all", "none")


@dataclass(frozen=True)
class ShardJob:
    """Everything a process needs to write one shard."""

    path: Path
    split: str
    recordings: tuple[Recording, ...]
    header: ShardHeader
    autoencoder: Path
    device: str
    keep_frames: bool
    strict: bool

    @property
    def plan(self) -> str:
        """Identifies what the shard is made from: a shard of another plan is never taken for this one."""
        sources = [(recording.id, recording.bytes) for recording in self.recordings]
        options = [asdict(recording.options) for recording in self.recordings[:1]]  # the same for all
        content = [sources, options, asdict(self.header), self.keep_frames]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def copy_autoencoder(autoencoder: Path, out: Path) -> Path:
    """Keep the autoencoder beside its shards, in `<out>/autoencoder`, and return that folder.

    Raises: LssvwmError when shards of another autoencoder are there.
    """
    folder = out / AUTOENCODER_FOLDER
    if weights_file(folder).exists() and weights_sha256(folder) != weights_sha256(autoencoder):
        raise LssvwmError(
            f"{folder}: the shards there are of another autoencoder; delete {out} or choose another --out"
        )
    folder.mkdir(parents=True, exist_ok=True)
    for name in (CONFIG_FILE, weights_file(autoencoder).name):
        if not (folder / name).exists():
            with written_whole(folder / name) as partial:
                shutil.copyfile(autoencoder / name, partial)
    return folder


def plan_shards(
    recordings: list[Recording],
    out: Path,
    autoencoder: Path,
    *,
    shard_size: int = 16,
    splits: tuple[str, ...] = SPLITS,
    keep_frames: str = "validation",
    device: str = "cpu",
    strict: bool = False,
) -> list[ShardJob]:
    """Share the recordings out to shards of `shard_size` files each. Raises: LssvwmError when none can be read."""
    if shard_size < 1:
        raise LssvwmError(f"shard size is {shard_size}; expected at least 1 recording a shard")
    if keep_frames not in KEEP_FRAMES:
        raise LssvwmError(f"keep frames is {keep_frames!r}; expected one of {', '.join(KEEP_FRAMES)}")
    header = _header_for(recordings, autoencoder)
    jobs = []
    for split in splits:
        chosen = [recording for recording in recordings if recording.split == split]
        parts = [tuple(chosen[start : start + shard_size]) for start in range(0, len(chosen), shard_size)]
        for number, part in enumerate(parts):
            path = out / f"{split}-{number:05d}-of-{len(parts):05d}.h5"
            keep = keep_frames in ("all", split)
            jobs.append(ShardJob(path, split, part, header, autoencoder, device, keep, strict))
    if not jobs:
        raise LssvwmError(f"no recordings in the {' or '.join(splits)} split")
    return jobs


def write_shards(jobs: list[ShardJob], processes: int) -> Iterator[ShardJob]:
    """Write the shards that are missing, yielding every job as it is done, then write the index.

    Raises: LssvwmError when a shard of another plan is in the way, or, in strict mode, at a damaged recording.
    """
    folder = jobs[0].path.parent
    remove_partial_files(folder)
    done = [job for job in jobs if job.path.exists() and _is_of_plan(job)]
    others = set(folder.glob("*.h5")) - {job.path for job in jobs}
    if others:
        raise LssvwmError(
            f"{min(others)}: a shard of another plan (other recordings or --shard-size); delete {folder} or choose "
            "another --out"
        )
    yield from done
    missing = [job for job in jobs if job not in done]
    yield from run_units(write_shard, missing, max(1, min(processes, len(missing))))
    write_index(folder, jobs)


def write_shard(job: ShardJob) -> ShardJob:
    """Write one shard under its final name, whole. Raises: LssvwmError in strict mode at a damaged recording."""
    keep_freed_memory()
    encode = functools.partial(encode_frames, _autoencoder(job.autoencoder, job.device))
    plan = job.plan
    with written_whole(job.path) as partial:
        writer = ShardWriter(partial, job.header, job.split, plan, job.keep_frames)
        for recording in job.recordings:
            try:
                for episode in recording.episodes():
                    _check_fits(episode, job.header)
                    writer.add(episode, encode)
            except DamagedRecording as error:
                if job.strict:
                    raise
                writer.skip(recording.id, str(error))
        writer.close()
    return job


@torch.inference_mode()
def encode_frames(autoencoder: FrameCodec, frames: NDArray[np.uint8]) -> NDArray[np.float16]:
    """(T, H, W, 3) uint8 -> latents (T, C, h, w) float16, on one thread and in float32: the same bytes every time."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        device = autoencoder.latent_mean.device
        parts = torch.from_numpy(frames).split(max(1, ENCODE_PIXELS // (frames.shape[1] * frames.shape[2])))
        return torch.cat([autoencoder.encode(part.to(device)).half().cpu() for part in parts]).numpy()
    finally:
        torch.set_num_threads(threads)


def write_index(folder: Path, jobs: list[ShardJob]) -> dict[str, Any]:
    """Write and return `dataset.json`, made from the shards alone."""
    shards: list[dict[str, Any]] = []
    skipped: list[dict[str, str]] = []
    notes: list[dict[str, str]] = []
    actions = np.zeros(len(jobs[0].header.action_names))
    for job in jobs:
        with opened(job.path) as file:
            actions += file["actions"][:].sum(axis=0, dtype=np.float64)
            skipped += json.loads(file.attrs["skipped"])
            notes += json.loads(file.attrs["notes"])
            shards.append(
                {
                    "file": job.path.name,
                    "split": job.split,
                    "episodes": len(file["episode_length"]),
                    "frames": len(file["latents"]),
                    "sha256": sha256_of(job.path),
                    "latent_mean": np.round(file.attrs["latent_mean"], 4).tolist(),
                    "latent_std": np.round(file.attrs["latent_std"], 4).tolist(),
                }
            )
    index = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "tool": f"lssvwm {version('lssvwm')}",
        **asdict(jobs[0].header),
        "action_counts": dict(zip(jobs[0].header.action_names, actions.round().astype(int).tolist(), strict=True)),
        "episodes": sum(shard["episodes"] for shard in shards),
        "frames": sum(shard["frames"] for shard in shards),
        "shards": shards,
        "skipped": skipped,
        "notes": notes,
    }
    write_json(folder / INDEX_FILE, index)
    return index


def header_of(episode: Episode, dataset: str, autoencoder: FrameCodec, folder: Path) -> ShardHeader:
    """The header that shards of such episodes have. Raises: ValueError when the frames do not fit the autoencoder."""
    return ShardHeader(
        dataset=dataset,
        fps=episode.fps,
        frame_size=episode.frame_size,
        action_names=episode.action_names,
        pose_names=episode.pose_names,
        autoencoder=autoencoder.name,
        autoencoder_sha256=weights_sha256(folder),
        latent_shape=autoencoder.latent_shape(*episode.frame_size),
        action_units=episode.action_units,
        source_alignment=episode.source_alignment,
    )


def _header_for(recordings: list[Recording], folder: Path) -> ShardHeader:
    """The header by the first recording that can be read."""
    autoencoder = load_autoencoder(folder)
    reasons = []
    for recording in recordings:
        try:
            return header_of(next(recording.episodes()), recording.format.name, autoencoder, folder)
        except ValueError as error:
            raise LssvwmError(f"{recording.path}: {error}; choose another --size or --autoencoder") from error
        except DamagedRecording as error:
            reasons.append(str(error))
    raise LssvwmError(f"none of the {len(recordings)} recordings can be read; the first: {reasons[0]}")


def _check_fits(episode: Episode, header: ShardHeader) -> None:
    fits = {
        "actions": (episode.action_names, header.action_names),
        "action units": (episode.action_units, header.action_units),
        "poses": (episode.pose_names, header.pose_names),
        "frame size": (episode.frame_size, header.frame_size),
        "frames a second": (episode.fps, header.fps),
        "source alignment": (episode.source_alignment, header.source_alignment),
    }
    for what, (found, expected) in fits.items():
        if found != expected:
            raise DamagedRecording(f"{episode.id}: {what} {found}, expected {expected} as in the other recordings")


def _is_of_plan(job: ShardJob) -> bool:
    with opened(job.path) as file:
        found = file.attrs.get("plan")
    if found != job.plan:
        raise LssvwmError(
            f"{job.path}: made from other recordings, options or another autoencoder; "
            f"delete {job.path.parent} or choose another --out"
        )
    return True


@functools.lru_cache(maxsize=1)
def _autoencoder(folder: Path, device: str) -> FrameCodec:
    return load_autoencoder(folder).to(device)
