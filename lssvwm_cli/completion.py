"""What the shell offers for values that are known; nothing heavy is imported before it is asked for."""

from collections.abc import Callable
from pathlib import Path

import typer


def choices(*values: str) -> Callable[[str], list[str]]:
    def matching(incomplete: str) -> list[str]:
        return [value for value in values if value.startswith(incomplete)]

    return matching


def presets(incomplete: str) -> list[str]:
    from lssvwm_core.presets import PRESETS

    return choices(*PRESETS)(incomplete)


def runs(incomplete: str) -> list[str]:
    """Those that have a checkpoint, by name, in this folder."""
    return choices(*sorted(path.parent.name for path in Path("runs").glob("*/checkpoints")))(incomplete)


def formats(incomplete: str) -> list[str]:
    """Formats of recordings that are read."""
    from lssvwm_datasets.sources import format_names

    return choices(*format_names())(incomplete)


def environments(incomplete: str) -> list[str]:
    """Those that can be recorded here."""
    from lssvwm_datasets.environments import ENVIRONMENTS

    return choices(*(name for name, one in ENVIRONMENTS.items() if one.recorder is not None))(incomplete)


def episodes(context: typer.Context, incomplete: str) -> list[str]:
    """Numbers of the validation episodes of --data, else of data/maze, else of the recordings that ship."""
    from lssvwm_datasets.errors import LssvwmError
    from lssvwm_datasets.index import INDEX_FILE, read_index
    from lssvwm_datasets.sources import VALIDATION, find_recordings, sample_recordings

    source = Path(context.params.get("data") or "data/maze")
    try:
        if (source / INDEX_FILE).exists():
            count = sum(shard.episodes for shard in read_index(source).shards if shard.split == VALIDATION)
        else:
            found = find_recordings(source if source.is_dir() else sample_recordings())
            count = sum(recording.split == VALIDATION for recording in found)
    except (LssvwmError, OSError):
        count = 0
    return choices(*map(str, range(count)))(incomplete)
