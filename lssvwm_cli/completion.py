"""What the shell offers for values that are known; nothing heavy is imported."""

from collections.abc import Callable
from pathlib import Path


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
