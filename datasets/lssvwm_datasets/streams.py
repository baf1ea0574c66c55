"""Condition streams: what a world can be told of every frame beside its picture. Each is one line of `STREAMS`.

A reader that yields rows of a further stream names its columns in the episode (`stream_rows`, `stream_names`); shards
then store them, models have an embedding for them, and training drops them as their record says.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class Stream:
    """One condition of a frame: a row of numbers, NaN where it is unknown.

    Attributes:
        name: in models, `Conditions` and `--conditions`.
        stored: its data set in the shards, (N, columns) float32.
        of_steps: row t tells how frame t was reached from the frame before it, so that it is unknown in clips that go
            backwards; else it tells of the frame itself.
        periodic: embedded with sines and cosines of several wavelengths, as positions are; else as the numbers are.
        kept_in_folds: never dropped from clips that are walked out and back.
        drop: how often training leaves it unknown; for action and pose `[sampling]` has settings instead.
    """

    name: str
    stored: str
    of_steps: bool = False
    periodic: bool = False
    kept_in_folds: bool = False
    drop: float = 0.2


STREAMS = {
    stream.name: stream
    for stream in (
        Stream("action", "actions", of_steps=True),
        Stream("pose", "poses", periodic=True, kept_in_folds=True),
    )
}


class Columns(Protocol):
    """What has condition streams: an episode, a shard's header, a model's config."""

    @property
    def action_names(self) -> tuple[str, ...]: ...
    @property
    def pose_names(self) -> tuple[str, ...]: ...
    @property
    def stream_names(self) -> Mapping[str, tuple[str, ...]]: ...


def columns_of(data: Columns, stream: str) -> tuple[str, ...]:
    """The names of a stream's columns; empty where there is no such stream."""
    return {"action": data.action_names, "pose": data.pose_names, **data.stream_names}.get(stream, ())


def stored_streams(data: Columns) -> list[Stream]:
    """The streams of which shards of such data hold rows: actions always."""
    return [stream for stream in STREAMS.values() if stream.name == "action" or columns_of(data, stream.name)]


def check_further(stream_names: Mapping[str, tuple[str, ...]]) -> None:
    """Check the streams beside action and pose. Raises: ValueError for one not registered, or without columns."""
    for name, columns in stream_names.items():
        if name not in STREAMS or name in ("action", "pose") or not columns:
            known = ", ".join(sorted(set(STREAMS) - {"action", "pose"})) or "none"
            raise ValueError(f"condition stream {name!r} of columns {columns}: expected some of {known}")
