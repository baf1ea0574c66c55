"""Which shard holds which recordings, and what every shard says of itself."""

import hashlib
import json
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path

from lssvwm_core.model.autoencoder import load_autoencoder
from lssvwm_core.model.frame_codec import FrameCodec
from lssvwm_core.model.storage import AUTOENCODER_FOLDER, CONFIG_FILE, latents_sha256, weights_file
from lssvwm_datasets.episode import Episode
from lssvwm_datasets.errors import DamagedRecording, LssvwmError, UnreadableNow
from lssvwm_datasets.files import written_whole
from lssvwm_datasets.format import DEFAULTS
from lssvwm_datasets.shards import ShardHeader
from lssvwm_datasets.sources import SPLITS, Recording

SHARDS = "[!.]*.h5"  # of a folder; hidden ones are unfinished
KEEP_FRAMES = ("validation", "all", "none")


@dataclass(frozen=True)
class ShardJob:
    """Everything a process needs to write one shard."""

    path: Path
    split: str
    recordings: tuple[Recording, ...]
    header: ShardHeader
    shards: tuple[tuple[str, int], ...]  # how many each split has, in the whole plan
    autoencoder: Path
    device: str
    keep_frames: bool
    strict: bool
    reconstruction_psnr: float | None = None  # dB, of the autoencoder on a sample of all recordings (`quality`)

    @property
    def plan(self) -> str:
        """Identifies what the shard is made from: a shard of another plan is never taken for this one."""
        sources = [(recording.id, recording.bytes) for recording in self.recordings]
        options = [asdict(recording.options) for recording in self.recordings[:1]]  # the same for all
        for chosen in options:
            if chosen["max_memory"] == DEFAULTS.max_memory:
                del chosen["max_memory"]  # a plan from before there was a choice is the same plan
        header = asdict(self.header)
        for later in ("pose_kinds", "stream_names"):  # a plan from before there were any is the same plan
            if not header[later]:
                del header[later]
        content = [sources, options, header, self.shards, self.keep_frames]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def shard_name(split: str, number: int, count: int) -> str:
    return f"{split}-{number:05d}-of-{count:05d}.h5"


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
    parts: dict[str, list[tuple[Recording, ...]]] = {}
    for split in splits:
        if chosen := [recording for recording in recordings if recording.split == split]:
            starts = range(0, len(chosen), shard_size)
            parts[split] = [tuple(chosen[start : start + shard_size]) for start in starts]
    if not parts:
        raise LssvwmError(f"no recordings in the {' or '.join(splits)} split")
    shards = tuple((split, len(of_split)) for split, of_split in parts.items())
    return [
        ShardJob(
            path=out / shard_name(split, number, len(of_split)),
            split=split,
            recordings=part,
            header=header,
            shards=shards,
            autoencoder=autoencoder,
            device=device,
            keep_frames=keep_frames in ("all", split),
            strict=strict,
        )
        for split, of_split in parts.items()
        for number, part in enumerate(of_split)
    ]


def part_of(jobs: list[ShardJob], part: str) -> list[ShardJob]:
    """Every n-th shard from the i-th on, for `i/n`: the parts 1/n to n/n together are all. Raises: LssvwmError."""
    number, slash, count = part.partition("/")
    if not (slash and number.isdigit() and count.isdigit() and 1 <= int(number) <= int(count)):
        raise LssvwmError(f"part {part!r}: expected i/n, with i from 1 to n")
    return jobs[int(number) - 1 :: int(count)]


def copy_autoencoder(autoencoder: Path, out: Path) -> Path:
    """Keep the autoencoder beside its shards, in `<out>/autoencoder`, and return that folder.

    Raises: LssvwmError when shards of another autoencoder are there.
    """
    folder = out / AUTOENCODER_FOLDER
    if weights_file(folder).exists():
        if latents_sha256(folder) != latents_sha256(autoencoder):
            raise LssvwmError(
                f"{folder}: the shards there are of another autoencoder; delete {out} or choose another --out"
            )
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    for name in (CONFIG_FILE, weights_file(autoencoder).name):  # weights last: where they are, all of it is
        with written_whole(folder / name) as partial:
            shutil.copyfile(autoencoder / name, partial)
    return folder


def header_of(episode: Episode, dataset: str, autoencoder: FrameCodec, folder: Path) -> ShardHeader:
    """The header that shards of such episodes have. Raises: ValueError when the frames do not fit the autoencoder."""
    return ShardHeader(
        dataset=dataset,
        fps=episode.fps,
        frame_size=episode.frame_size,
        action_names=episode.action_names,
        pose_names=episode.pose_names,
        autoencoder=autoencoder.name,
        autoencoder_sha256=latents_sha256(folder),
        latent_shape=autoencoder.latent_shape(*episode.frame_size),
        action_units=episode.action_units,
        source_alignment=episode.source_alignment,
        pose_kinds=episode.pose_kinds,
        stream_names=dict(episode.stream_names),
    )


def check_fits(episode: Episode, header: ShardHeader) -> None:
    """Check that an episode is as the first one of its data set. Raises: DamagedRecording if not."""
    fits = {
        "actions": (episode.action_names, header.action_names),
        "action units": (episode.action_units, header.action_units),
        "poses": (episode.pose_names, header.pose_names),
        "kinds of poses": (episode.pose_kinds, header.pose_kinds),
        "condition streams": (dict(episode.stream_names), header.stream_names),
        "frame size": (episode.frame_size, header.frame_size),
        "frames a second": (episode.fps, header.fps),
        "source alignment": (episode.source_alignment, header.source_alignment),
    }
    for what, (found, expected) in fits.items():
        if found != expected:
            raise DamagedRecording(f"{episode.id}: {what} {found}, expected {expected} as in the other recordings")


def _header_for(recordings: list[Recording], folder: Path) -> ShardHeader:
    """The header by the first recording that can be read."""
    autoencoder = load_autoencoder(folder)
    reasons: list[LssvwmError] = []
    for recording in recordings:
        try:
            return header_of(next(recording.episodes()), recording.format.name, autoencoder, folder)
        except ValueError as error:
            raise LssvwmError(f"{recording.path}: {error}; choose another --size or --autoencoder") from error
        except (DamagedRecording, UnreadableNow) as error:
            reasons.append(error)
    raise next((reason for reason in reasons if isinstance(reason, UnreadableNow)), None) or LssvwmError(
        f"none of the {len(recordings)} recordings can be read; the first: {reasons[0]}"
    )
