"""Writes WebDataset archives: tar files whose samples are episodes, `KEY.mp4`, `KEY.csv`, `KEY.poses.csv`, `KEY.toml`.

A sample's toml says of it what `recording.toml` says of a folder, so an archive that is unpacked is such a folder.
"""

import tarfile
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import tomli_w

from lssvwm_core.export.episodes import Exported
from lssvwm_core.export.folder import about, layout_rows, require_same, write_recording
from lssvwm_datasets.errors import LssvwmError
from lssvwm_datasets.files import write_text

ARCHIVE_EPISODES = 100


def write(episodes: Iterable[Exported], out: Path) -> Iterator[Exported]:
    """Archives `<split>-00000.tar` of `ARCHIVE_EPISODES` each. Raises: LssvwmError."""
    said, keys = None, set[str]()
    counts: dict[str, int] = {}
    for exported in episodes:
        episode = exported.episode
        said = said or about(episode)
        require_same(said, episode)
        key = exported.path.as_posix().replace(".", "_")  # a key ends at the first dot
        if key in keys:
            raise LssvwmError(f"{episode.id}: another episode has the key {key} already")
        keys.add(key)
        number = counts.get(exported.split, 0)
        counts[exported.split] = number + 1
        archive = out / f"{exported.split}-{number // ARCHIVE_EPISODES:05d}.tar"
        with tempfile.TemporaryDirectory(dir=out) as folder, tarfile.open(archive, "a") as tar:
            target = Path(folder) / key.rpartition("/")[2]
            files = write_recording(episode, target)
            own = {} if episode.layout is None else {"layout": layout_rows(episode.layout)}
            write_text(toml := target.with_name(f"{target.name}.toml"), tomli_w.dumps(said | own))
            for file in dict.fromkeys([*files, toml]):
                member = tar.gettarinfo(file, f"{key}{file.name.removeprefix(target.name)}")
                member.uid = member.gid = 0
                member.uname = member.gname = ""
                with file.open("rb") as content:
                    tar.addfile(member, content)
        yield exported
