"""The folder of saved moments: which names there are, and which file a name stands for."""

import re
from pathlib import Path

from lssvwm_datasets.errors import LssvwmError

SLOT_NAME = re.compile(r"[a-z0-9-]{1,32}")
MAX_SLOTS = 100


class Slots:
    """Saved moments of a folder, by names that are safe as file names.

    Raises, in every method: LssvwmError for a name that is none, or does not fit what is there; OSError.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def names(self) -> list[str]:
        files = self.folder.glob("*.safetensors")
        return sorted(file.stem for file in files if SLOT_NAME.fullmatch(file.stem) and file.is_file())

    def to_save(self, name: str, replacing: bool = True) -> Path:
        """The file to save a moment in: a new one, or with `replacing` also one that is there."""
        file = self._file(name)
        if not replacing and (file.exists() or file.is_symlink()):
            raise LssvwmError(f"{name} is taken; branch under another name, or save over it")
        if name not in (names := self.names) and len(names) >= MAX_SLOTS:
            raise LssvwmError(f"{self.folder} is full: {MAX_SLOTS} saved moments; remove some")
        return file

    def to_load(self, name: str) -> Path:
        """The file that a moment was saved in."""
        file = self._file(name)
        if not file.exists():
            raise LssvwmError(f"nothing is saved as {name}")
        return file

    def _file(self, name: str) -> Path:
        if not SLOT_NAME.fullmatch(name):
            raise LssvwmError("a name has 1 to 32 of a-z, 0-9 and -")
        return self.folder / f"{name}.safetensors"
