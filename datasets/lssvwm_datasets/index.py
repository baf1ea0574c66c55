"""`dataset.json`, the index of a prepared folder, as one typed record; what it names are files of that folder alone."""

import math
from dataclasses import dataclass, field, fields
from pathlib import Path, PureWindowsPath

from lssvwm_datasets.errors import LssvwmError
from lssvwm_datasets.poses import kinds_of
from lssvwm_datasets.schema import convert, read_json
from lssvwm_datasets.streams import check_further

FORMAT = "lssvwm-shard"
FORMAT_VERSION = 2
SHARD_SUFFIX = ".h5"
INDEX_FILE = "dataset.json"
LARGEST_SIDE = 2**14  # pixels of a frame


@dataclass(frozen=True)
class ShardHeader:
    """What every shard of a dataset has in common; a model trained on one header refuses shards of another."""

    dataset: str
    fps: float
    frame_size: tuple[int, int]  # (H, W)
    action_names: tuple[str, ...]
    pose_names: tuple[str, ...]
    autoencoder: str  # name
    autoencoder_sha256: str  # of its weights, or of those whose encoder it has
    latent_shape: tuple[int, int, int]  # (C, h, w)
    action_units: tuple[str, ...] = ()  # one a column: one-hot, binary, degrees
    source_alignment: str = ""  # how the source pairs actions with frames, in words
    pose_kinds: tuple[str, ...] = ()  # one a column (`poses`); empty: what the names say
    stream_names: dict[str, tuple[str, ...]] = field(default_factory=dict)  # columns of further streams (`streams`)

    def __post_init__(self) -> None:
        check_further(self.stream_names)
        kinds_of(self.pose_names, self.pose_kinds)  # raises where they do not fit
        sizes = (*self.frame_size, *self.latent_shape)
        if not (min(sizes) > 0 and max(sizes) <= LARGEST_SIDE and 0 < self.fps < math.inf):
            raise ValueError(
                f"frames of {self.frame_size} and latents of {self.latent_shape} at {self.fps} Hz; expected sides of 1 "
                f"to {LARGEST_SIDE}, and a rate above 0"
            )

    @property
    def continuous_actions(self) -> list[int]:
        """Numbers of the action columns that hold more than 0 and 1."""
        return [number for number, unit in enumerate(self.action_units) if unit not in ("one-hot", "binary")]


@dataclass(frozen=True)
class ShardEntry:
    """One shard, as the index describes it."""

    file: str  # a bare name: the shard lies beside the index
    split: str
    episodes: int
    frames: int | None = None
    latent_mean: tuple[float, ...] = ()  # one a channel
    latent_std: tuple[float, ...] = ()
    sha256: str = ""

    def __post_init__(self) -> None:
        bare = self.file == PureWindowsPath(self.file).name and self.file.isprintable()  # no / \ or C: anywhere
        if not bare or self.file.startswith(".") or not self.file.endswith(SHARD_SUFFIX):
            raise ValueError(f"file {self.file!r}: expected the bare name of a shard, such as train-00000-of-00001.h5")
        if self.episodes < 0 or (self.frames or 0) < 0:
            raise ValueError(f"{self.file}: {self.episodes} episodes and {self.frames} frames; expected none or more")


@dataclass(frozen=True)
class EpisodeTable:
    """The episodes of a shard in their order, so that a folder is opened without opening each of its shards."""

    ids: tuple[str, ...]
    lengths: tuple[int, ...]


@dataclass(frozen=True)
class Skipped:
    """A recording that could not be read."""

    id: str
    reason: str


@dataclass(frozen=True)
class Note:
    """What was odd about an episode, and how it was handled."""

    id: str
    note: str


@dataclass(frozen=True)
class Statistics:
    """Mean and deviation of a column of actions over the train split."""

    mean: float
    std: float


@dataclass(frozen=True, kw_only=True)
class Index(ShardHeader):
    """The header that all shards share, and what each of them holds.

    Attributes:
        action_counts: frames in which each action is not zero, by name.
        action_statistics: of the continuous actions, by name.
        episodes, frames: of all shards together.
        skipped, notes: recordings that were left out, and what was odd about those that were not.
        tables: of the shards, by file.
        reconstruction_psnr: dB, of frames of these recordings that were encoded and decoded.
    """

    format: str
    format_version: int
    shards: tuple[ShardEntry, ...]
    tool: str = ""
    action_counts: dict[str, int] = field(default_factory=dict)
    action_statistics: dict[str, Statistics] = field(default_factory=dict)
    episodes: int = 0
    frames: int = 0
    skipped: tuple[Skipped, ...] = ()
    notes: tuple[Note, ...] = ()
    tables: dict[str, EpisodeTable] = field(default_factory=dict)
    reconstruction_psnr: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if len({entry.file for entry in self.shards}) < len(self.shards):
            raise ValueError("shards: a file is named twice")

    @property
    def header(self) -> ShardHeader:
        return ShardHeader(**{each.name: getattr(self, each.name) for each in fields(ShardHeader)})

    def table(self, entry: ShardEntry) -> EpisodeTable | None:
        """The episodes of a shard; None in indexes of earlier versions, or where it is not the one of this entry."""
        table = self.tables.get(entry.file)
        if table is None or entry.frames is None or min(table.lengths, default=0) < 0:
            return None
        agrees = len(table.ids) == len(table.lengths) == entry.episodes and sum(table.lengths) == entry.frames
        return table if agrees else None

    @property
    def splits(self) -> list[str]:
        """The splits that hold episodes, sorted."""
        return sorted({entry.split for entry in self.shards if entry.episodes})


def read_index(folder: Path) -> Index:
    """The index of a prepared folder. Raises: LssvwmError when it is missing, damaged or of another version."""
    path = folder / INDEX_FILE
    advice = "prepare again"
    try:
        content = read_json(path, object, advice)
    except FileNotFoundError as error:
        raise LssvwmError(f"{path}: no such file; make it with: lssvwm prepare maze --out {folder}") from error
    found = (content.get("format"), content.get("format_version")) if isinstance(content, dict) else None
    if found != (FORMAT, FORMAT_VERSION):
        raise LssvwmError(f"{path}: not an index of {FORMAT} version {FORMAT_VERSION}; prepare again with this release")
    return convert(str(path), content, Index, advice)
