"""The files below a folder, linked folders included; what cannot be entered, and what is passed over, is told."""

import contextlib
import os
from dataclasses import dataclass, field
from pathlib import Path

from lssvwm_datasets.opening import MISSING, reason_of


@dataclass
class Listing:
    """What was found below a folder.

    Attributes:
        files: everything that is no folder, sorted; links that lead nowhere among them.
        sizes: bytes of each; 0 where a link leads nowhere.
        passed_over: folders that are not entered, and why.
        unreadable: folders that the machine could not look into, and files whose size it could not tell, and why.
    """

    files: list[Path] = field(default_factory=list)
    sizes: dict[Path, int] = field(default_factory=dict)
    passed_over: dict[Path, str] = field(default_factory=dict)
    unreadable: dict[Path, str] = field(default_factory=dict)


def list_folder(root: Path, recursive: bool = True) -> Listing:
    """Everything below `root` but what is hidden. Each folder is entered once, links to folders after all others."""
    listing = Listing()
    entered: set[tuple[int, int]] = set()
    above = set()
    for folder in root.resolve().parents:
        with contextlib.suppress(OSError):
            above.add(_identity(folder))
    waiting, links = [root], list[Path]()
    while waiting or links:
        folder = waiting.pop() if waiting else links.pop(0)
        try:
            identity = _identity(folder)
            if identity in entered or identity in above:
                listing.passed_over[folder] = f"a link to {folder.resolve()}, which is read already or leads back"
                continue
            entered.add(identity)
            with os.scandir(folder) as entries:
                for entry in sorted(entries, key=lambda entry: entry.name):
                    if entry.name.startswith("."):
                        continue
                    path = folder / entry.name
                    if not _is_folder(entry, listing):
                        listing.files.append(path)
                    elif recursive:
                        (links if entry.is_symlink() else waiting).append(path)
        except OSError as error:
            listing.unreadable[folder] = error.strerror or reason_of(error)
    listing.files.sort()
    return listing


def _is_folder(entry: "os.DirEntry[str]", listing: Listing) -> bool:
    """Whether to enter it; the size of what is none is noted."""
    path = Path(entry.path)
    try:
        if entry.is_dir():
            return True
        listing.sizes[path] = entry.stat().st_size
    except OSError as error:
        listing.sizes[path] = 0
        if error.errno not in MISSING:
            listing.unreadable[path] = error.strerror or reason_of(error)
    return False


def _identity(folder: Path) -> tuple[int, int]:
    """What a folder is, whatever it is called."""
    found = folder.stat()
    return found.st_dev, found.st_ino
