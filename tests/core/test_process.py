"""A library call leaves the process as it was, also when two threads make it at once: settings are the command's."""

import ctypes
import logging
import os
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lssvwm_core.bench.subject import Subject
from lssvwm_core.bench.timing import Timing
from lssvwm_core.bench.train import bench_train
from lssvwm_core.installation import describe
from lssvwm_core.model.autoencoder import load_autoencoder
from lssvwm_core.plots import Plot, save_plots
from lssvwm_core.prepare.encode import encode_frames
from lssvwm_core.process import COMPILED_CODE, keep_compiled_code, one_thread, set_up_worker
from lssvwm_core.resolve import shipped_models
from lssvwm_core.scan import mamba_ssm_backend
from lssvwm_datasets.errors import LssvwmError
from lssvwm_datasets.files import write_json
from lssvwm_datasets.memory_maze.environment import load_tasks
from lssvwm_datasets.memory_maze.recorder import record_episode
from lssvwm_datasets.parallel import run_units

CPU = torch.device("cpu")
KERNELS = "def mamba_chunk_scan_combined(): pass"


def settings() -> dict[str, Any]:
    """What a process can be changed in, as this thread sees it and as one that torch has not seen yet."""
    with ThreadPoolExecutor(1) as unseen:
        threads = unseen.submit(torch.get_num_threads).result()
    umask = os.umask(0o022)
    os.umask(umask)
    ours = {name for name in sys.modules if name.partition(".")[0] in ("memory_maze", "mamba_ssm")}
    loggers = [logging.getLogger(name) for name in (None, "absl", "accelerate", "matplotlib", "lssvwm_core")]
    return {
        "threads": (torch.get_num_threads(), threads, torch.get_num_interop_threads()),
        "gradients": torch.is_grad_enabled(),
        "compiler": torch.compiler.config.recompile_limit,
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "environment": dict(os.environ),
        "modules of packages that are not imported as a whole": ours,
        "warnings": list(warnings.filters),
        "levels": [(logger.name, logger.level, len(logger.handlers)) for logger in loggers],
        "umask": umask,
        "folder": Path.cwd(),
        "streams": (sys.stdout, sys.stderr, sys.stdin),
        "hooks": (sys.excepthook, threading.excepthook),
    }


def encode(_: Path) -> object:
    autoencoder = load_autoencoder(shipped_models()["maze-autoencoder"])
    return encode_frames(autoencoder, np.zeros((3, 64, 64, 3), np.uint8))


def find_kernels(_: Path) -> object:
    mamba_ssm_backend._kernels.cache_clear()
    return mamba_ssm_backend.why_unavailable()


def record(_: Path) -> object:
    load_tasks.cache_clear()
    try:
        load_tasks()
    except LssvwmError as error:
        pytest.skip(str(error))
    return record_episode("9x9", 3, 2)


def plot(folder: Path) -> object:
    return save_plots(folder / f"{threading.get_ident()}.png", [Plot("x", "y", {"a": ([1, 2], [1, 2])})])


def time_training(_: Path) -> object:
    small = {"width": 32, "depth": 1, "headdim": 16, "d_state": 16}
    return list(bench_train(Subject(model=small), ("ours",), (5,), Timing(1), CPU))


def write(folder: Path) -> object:
    return write_json(folder / f"{threading.get_ident()}.json", {})


CALLS: list[Callable[[Path], object]] = [
    encode,
    find_kernels,
    record,
    plot,
    time_training,
    write,
    lambda _: describe(),
]


@pytest.fixture
def without_extensions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A mamba_ssm package that fails to import as a whole."""
    for folder, text in (("", "import mamba_ssm.ops\nimport selective_scan_cuda"), ("ops", ""), ("ops/triton", "")):
        package = tmp_path / "packages/mamba_ssm" / folder
        package.mkdir(parents=True)
        (package / "__init__.py").write_text(text)
    (tmp_path / "packages/mamba_ssm/ops/triton/ssd_combined.py").write_text(KERNELS)
    for left in [name for name in sys.modules if name.partition(".")[0] == "mamba_ssm"]:  # by tests before this one
        monkeypatch.delitem(sys.modules, left)
    monkeypatch.syspath_prepend(tmp_path / "packages")


@pytest.mark.usefixtures("without_extensions")
@pytest.mark.parametrize("call", CALLS, ids=lambda call: call.__name__.strip("<>"))
def test_a_call_leaves_the_process_as_it_was(call: Callable[[Path], object], tmp_path: Path) -> None:
    call(tmp_path)  # what is imported and cached once is no setting
    before = settings()
    call(tmp_path)
    assert settings() == before
    with ThreadPoolExecutor(2) as pool:
        for done in [pool.submit(call, tmp_path) for _ in range(2)]:
            done.result()
    assert settings() == before


@pytest.mark.usefixtures("without_extensions")
def test_kernels_are_found_without_their_package_and_nothing_of_it_is_left() -> None:
    mamba_ssm_backend._kernels.cache_clear()
    assert mamba_ssm_backend.why_unavailable() is None
    assert not [name for name in sys.modules if name.partition(".")[0] == "mamba_ssm"]
    mamba_ssm_backend._kernels.cache_clear()


def test_computing_on_one_thread_ends_with_the_number_there_was_whoever_comes_and_goes() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        inside, entered = [], threading.Barrier(8)

        def enter() -> int:
            entered.wait()
            torch.ones(200_000).add(1)  # torch sees this thread, perhaps while another one is inside
            with one_thread():
                inside.append(torch.get_num_threads())
                torch.ones(200_000).add(1)
            return torch.get_num_threads()

        with ThreadPoolExecutor(8) as pool:
            after = [done.result() for done in [pool.submit(enter) for _ in range(8)]]
        assert inside == [1] * 8
        assert after == [3] * 8
        assert settings()["threads"][:2] == (3, 3)
        with pytest.raises(RuntimeError, match="inside"), one_thread():
            raise RuntimeError("inside")
        assert settings()["threads"][:2] == (3, 3)
    finally:
        torch.set_num_threads(before)


def tell_threads(_: int) -> tuple[int, int]:
    return os.getpid(), torch.get_num_threads()


def test_worker_processes_are_set_up_and_this_one_is_not() -> None:
    before = settings()
    for process, threads in run_units(tell_threads, range(2), 2, set_up_worker):
        assert (process != os.getpid(), threads) == (True, 1)
    assert list(run_units(tell_threads, [0], 1, set_up_worker)) == [(os.getpid(), torch.get_num_threads())]
    assert settings() == before


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the allocator of glibc")
def test_only_a_command_changes_the_allocator() -> None:
    """A block larger than the threshold is a mapping of its own, unless mappings were turned off."""
    script = (
        "import ctypes, sys\n"
        "from pathlib import Path\n"
        "from lssvwm_core.process import keep_freed_memory\n"
        "{}\n"
        "class Info(ctypes.Structure): _fields_ = [(n, ctypes.c_size_t) for n in 'abcdefghij']\n"
        "libc = ctypes.CDLL('libc.so.6'); libc.malloc.restype = ctypes.c_void_p; libc.mallinfo2.restype = Info\n"
        "before = libc.mallinfo2().d; libc.malloc(ctypes.c_size_t(64 << 20)); print(libc.mallinfo2().d - before)\n"
    )
    if not hasattr(ctypes.CDLL("libc.so.6"), "mallinfo2"):
        pytest.skip("no mallinfo2 in this C library")
    for call, mapped in (("", "1"), ("keep_freed_memory()", "0")):
        done = subprocess.run([sys.executable, "-c", script.format(call)], capture_output=True, text=True, check=True)
        assert done.stdout.strip() == mapped


@pytest.mark.parametrize(
    ("before", "caches", "kept"),
    [
        (None, "caches", "caches/lssvwm/compiled"),
        (None, "", "home/.cache/lssvwm/compiled"),
        ("temporary/torchinductor_somebody", "caches", "caches/lssvwm/compiled"),  # torch's own choice
        ("chosen", "caches", "chosen"),
    ],
)
def test_compiled_code_is_kept_where_it_outlives_a_restart(
    before: str | None, caches: str, kept: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / caches) if caches else "")
    monkeypatch.setenv(COMPILED_CODE, str(tmp_path / before) if before else "")
    assert keep_compiled_code() == tmp_path / kept
    assert os.environ[COMPILED_CODE] == str(tmp_path / kept)
