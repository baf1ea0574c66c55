"""Writes the shards of a plan, several at once, and says why when the disk does not hold them."""

import errno
import functools
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import compress
from pathlib import Path

from lssvwm_core.model.autoencoder import load_autoencoder
from lssvwm_core.model.frame_codec import FrameCodec
from lssvwm_core.prepare.encode import encode_frames
from lssvwm_core.prepare.estimate import require_space
from lssvwm_core.prepare.index import write_index
from lssvwm_core.prepare.plan import SHARDS, ShardJob, check_fits, shard_name
from lssvwm_core.process import set_up_worker
from lssvwm_datasets.counted import counted
from lssvwm_datasets.episode import Episode
from lssvwm_datasets.errors import DamagedRecording, LssvwmError, UnreadableNow, printable
from lssvwm_datasets.files import remove_partial_files, written_whole
from lssvwm_datasets.frames import FrameParts
from lssvwm_datasets.parallel import ahead, run_units, run_units_on_ray
from lssvwm_datasets.shard_file import Shard
from lssvwm_datasets.shard_writer import ShardWriter
from lssvwm_datasets.sources import Recording

LISTED = 10  # recordings named in a message
FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


@dataclass(frozen=True)
class WrittenShard:
    """A shard that is there, by this run or an earlier one."""

    job: ShardJob
    frames: int
    new: bool


@dataclass(frozen=True)
class UnfinishedShard:
    """A shard that is not written, since the machine could not read some of its recordings; why, for each of them."""

    job: ShardJob
    reasons: tuple[str, ...]


def write_shards(jobs: list[ShardJob], processes: int, executor: str = "processes") -> Iterator[WrittenShard]:
    """Write the shards that are missing, yielding each as it is done; then the index, where `jobs` are a whole plan.

    Raises: LssvwmError when the disk is too small or full, when a shard of another plan is in the way, or, in strict
    mode, at a damaged recording; UnreadableNow when all is written but what needs recordings not readable for now.
    """
    folder = jobs[0].path.parent
    planned = {folder / shard_name(split, k, count) for split, count in jobs[0].shards for k in range(count)}
    whole = len(jobs) == len(planned)
    for name in ["*"] if whole else [job.path.stem for job in jobs]:  # other parts may be at work beside this one
        remove_partial_files(folder, name)
    others = set(folder.glob(SHARDS)) - planned
    if others:
        raise LssvwmError(
            f"{min(others)}: a shard of another plan (other recordings or --shard-size); delete {folder} or choose "
            "another --out"
        )
    there = [job.path.exists() and _is_of_plan(job) for job in counted(jobs, f"shards of {folder} looked for")]
    done, missing = (
        list(compress(jobs, there)),
        [job for job, is_there in zip(jobs, there, strict=True) if not is_there],
    )
    require_space(folder, missing)
    for job in done:
        yield WrittenShard(job, _frames_of(job.path), new=False)
    unfinished: list[UnfinishedShard] = []
    try:
        if executor == "ray":
            gpus = 1.0 if missing and missing[0].device.startswith("cuda") else 0.0
            shards = run_units_on_ray(write_shard, missing, gpus, set_up_worker)
        else:
            shards = run_units(write_shard, missing, max(1, min(processes, len(missing))), set_up_worker)
        for shard in shards:
            if isinstance(shard, UnfinishedShard):
                unfinished.append(shard)
            else:
                yield shard
        if unfinished:
            raise _unreadable(folder, unfinished, len(jobs))
        if whole:
            write_index(folder)
    except OSError as error:
        if error.errno not in FULL:
            raise
        finished = sum(job.path.exists() for job in jobs)
        raise LssvwmError(
            f"{folder}: the disk is full; {finished} of {len(jobs)} shards are finished and kept. Make room and give "
            "the same command again: it goes on with the shards that are missing"
        ) from error


def write_shard(job: ShardJob) -> WrittenShard | UnfinishedShard:
    """Write one shard under its final name, whole, or not at all where the machine cannot read a recording for now.

    Raises: LssvwmError in strict mode at a damaged recording.
    """
    encode = functools.partial(encode_frames, _autoencoder(job.autoencoder, job.header.autoencoder_sha256, job.device))
    try:
        with (
            written_whole(job.path) as partial,
            ShardWriter(partial, job.header, job.split, job.plan, job.keep_frames) as writer,
        ):
            writer.file.attrs["shards"] = json.dumps(job.shards)
            if job.reconstruction_psnr is not None:
                writer.file.attrs["reconstruction_psnr"] = job.reconstruction_psnr
            for recording, episode in ahead(_episodes(job.recordings), 1):
                try:
                    if isinstance(episode, DamagedRecording):
                        raise episode
                    check_fits(episode, job.header)
                    writer.add(replace(episode, frames=_decoded_ahead(episode.frames)), encode)
                except DamagedRecording as error:
                    if job.strict:
                        raise
                    writer.skip(recording.id, printable(str(error)))
    except UnreadableNow as error:
        return UnfinishedShard(job, tuple(dict.fromkeys([str(error), *_inaccessible(job.recordings)])))
    return WrittenShard(job, sum(writer.lengths), new=True)


def _inaccessible(recordings: tuple[Recording, ...]) -> Iterator[str]:
    """Which recordings of a shard cannot be opened for now, so that all are told at once."""
    for recording in recordings:
        try:
            recording.check_access()
        except UnreadableNow as error:
            yield str(error)


def _unreadable(folder: Path, unfinished: list[UnfinishedShard], shards: int) -> UnreadableNow:
    reasons = [reason for shard in unfinished for reason in shard.reasons]
    more = f"\n… and {len(reasons) - LISTED} more" if len(reasons) > LISTED else ""
    return UnreadableNow(
        "\n".join(reasons[:LISTED])
        + f"{more}\n{folder}: {len(unfinished)} of {shards} shards are unfinished because of that; the others are "
        "kept. Mend it and give the same command again: it goes on with the shards that are missing"
    )


def _episodes(recordings: tuple[Recording, ...]) -> Iterator[tuple[Recording, Episode | DamagedRecording]]:
    """The episodes of all recordings; the reason in place of what cannot be read."""
    for recording in recordings:
        try:
            for episode in recording.episodes():
                yield recording, episode
        except DamagedRecording as error:
            yield recording, error


def _decoded_ahead(frames: FrameParts) -> FrameParts:
    """The same frames, decoded in a thread of their own while the parts before are encoded."""
    return FrameParts(lambda: ahead(frames, 2), frames.length)


def _frames_of(path: Path) -> int:
    with Shard(path) as shard:
        return shard.frames


def _is_of_plan(job: ShardJob) -> bool:
    with Shard(job.path) as shard:
        found = shard.attribute("plan", str)
    if found != job.plan:
        raise LssvwmError(
            f"{job.path}: made from other recordings, options or another autoencoder; "
            f"delete {job.path.parent} or choose another --out"
        )
    return True


@functools.lru_cache(maxsize=1)
def _autoencoder(folder: Path, sha256: str, device: str) -> FrameCodec:
    """Loaded once for the shards of a process; other weights at the same place are another autoencoder."""
    return load_autoencoder(folder).to(device)
