"""Episodes written for other programs: their frames exactly, their actions and poses by name.

Adding a format is a module with an `Export` and its line in `EXPORTS`; `lssvwm export` then knows it.
"""

import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from lssvwm_core.export import folder, lerobot, webdataset
from lssvwm_core.export.episodes import Exported
from lssvwm_datasets.errors import LssvwmError


@dataclass(frozen=True)
class Export:
    """A format to export to.

    Attributes:
        write: (episodes, new folder) -> writes them into the folder, yielding after each.
        again: how what was written is prepared again.
    """

    name: str
    write: Callable[[Iterable[Exported], Path], Iterator[Exported]]
    again: str


EXPORTS = {
    export.name: export
    for export in (
        Export("folder", folder.write, "lssvwm prepare folder {out}"),
        Export("lerobot", lerobot.write, "lssvwm prepare lerobot {out}"),
        Export(
            "webdataset",
            webdataset.write,
            "unpack its archives with tar -xf, then: lssvwm prepare folder",
        ),
    )
}


def export_episodes(episodes: Iterable[Exported], export: Export, out: Path) -> Iterator[Exported]:
    """Write episodes to the new folder `out`, which appears when all are written; yields after each.

    Raises: LssvwmError where `out` is there already, or there are no episodes.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise LssvwmError(f"{out}: is there already; choose another --out, or remove it")
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = out.with_name(f".{out.name}.{os.getpid()}.partial")
    try:
        partial.mkdir()
        written = 0
        for episode in export.write(episodes, partial):
            written += 1
            yield episode
        if not written:
            raise LssvwmError("there is no episode to export")
        os.replace(partial, out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
