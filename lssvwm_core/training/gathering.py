"""What small networks learn from: examples out of every episode of recordings, encoded or not."""

import logging
from collections.abc import Callable, Iterable
from typing import TypeVar

from lssvwm_datasets.episode import Episode
from lssvwm_datasets.errors import DamagedRecording
from lssvwm_datasets.sources import Recording

T = TypeVar("T")
Update = Callable[[int, str], None]  # is told how many recordings are done

logger = logging.getLogger(__name__)


def gathered(
    recordings: list[Recording], split: str, examples: Callable[[Episode], Iterable[T]], update: Update | None = None
) -> list[T]:
    """The examples of all episodes of a split; damaged recordings are skipped and named. Raises: OSError."""
    update = update or (lambda done, note: None)
    chosen = [recording for recording in recordings if recording.split == split]
    found: list[T] = []
    for done, recording in enumerate(chosen):
        update(done, "")
        try:
            for episode in recording.episodes():
                found += examples(episode)
        except DamagedRecording as error:
            logger.warning("skipped %s", error)
    update(len(chosen), "")
    return found
