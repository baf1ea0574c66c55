"""Settings of the whole process.

They belong to the command line, and to the worker processes that it starts: those call the functions here that change
them for good. What the library does for others leaves them as they were.
"""

import contextlib
import ctypes
import os
import sys
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch

COMPILED_CODE = "TORCHINDUCTOR_CACHE_DIR"  # torch's name for it

_one_at_a_time = threading.Lock()


def set_up_worker() -> None:
    """What a worker process wants that shares the machine with others, one a core: one thread, and its memory kept."""
    torch.set_num_threads(1)
    keep_freed_memory()


def keep_freed_memory() -> None:
    """Tell glibc to keep freed memory instead of returning it to the system after every large temporary.

    Page faults otherwise take a large part of a CPU training step. Does nothing on other C libraries.
    """
    if not sys.platform.startswith("linux"):
        return
    with contextlib.suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL("libc.so.6").mallopt
        m_trim_threshold, m_top_pad, m_mmap_max = -1, -2, -4
        mallopt(m_mmap_max, 0)
        mallopt(m_trim_threshold, 2**31 - 1)
        mallopt(m_top_pad, 64 * 2**20)


def keep_compiled_code() -> Path:
    """Let torch.compile keep what it makes in the user's cache folder: torch's own choice does not outlive a restart.

    For this process and those that it starts. Returns: the folder, or what the user chose by TORCHINDUCTOR_CACHE_DIR.
    """
    chosen, temporary = os.environ.get(COMPILED_CODE, ""), Path(tempfile.gettempdir())
    if not chosen or Path(chosen).parent == temporary:  # torch writes its own choice there when it is imported
        caches = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        chosen = os.environ[COMPILED_CODE] = str(caches / "lssvwm" / "compiled")
    return Path(chosen)


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Compute on one thread within this context, so that sums have one order and results the same bytes every time.

    torch counts its threads for the whole process, so threads that enter take turns, and the last one leaves the
    number that was there before the first.
    """
    with _one_at_a_time:
        # a thread that torch has not seen yet tells the number of the process; this one may have been seen by it first
        # while another one was in here
        with ThreadPoolExecutor(1) as unseen:
            threads = unseen.submit(torch.get_num_threads).result()
        torch.set_num_threads(1)
        try:
            yield
        finally:
            torch.set_num_threads(threads)
