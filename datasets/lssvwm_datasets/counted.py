"""Loops over many files tell, now and then, how far they are."""

import logging
import time
from collections.abc import Iterator, Sequence
from typing import TypeVar

Item = TypeVar("Item")

EVERY = 10.0  # seconds between lines

log = logging.getLogger(__name__)


def counted(items: Sequence[Item], what: str) -> Iterator[Item]:
    """Yield the items in their order; where that takes long, a warning says every ten seconds how many are done.

    Args:
        what: is done with what, as in "shards opened".
    """
    said = time.monotonic()
    for number, item in enumerate(items):
        if time.monotonic() - said >= EVERY:
            said = time.monotonic()
            log.warning("%d of %d %s", number, len(items), what)
        yield item
