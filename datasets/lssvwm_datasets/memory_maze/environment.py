"""The real Memory Maze environment, found without gym and made several times faster.

`memory_maze/__init__` imports the long-dead `gym`, which the package does not even declare, and picks an OpenGL for the
process, so its submodules are imported without it. Two functions of dm-control take most of an episode's time;
`fast_physics` replaces them by equivalents that give the same pixels bit for bit (the tests replay a recording in the
untouched environment).
"""

import contextlib
import functools
import logging
import os
import threading
from collections.abc import Callable, Iterator
from typing import Any

from lssvwm_datasets.errors import LssvwmError
from lssvwm_datasets.imports import import_without_parent

_patching = threading.RLock()


def set_up_process() -> None:
    """Settings that recording wants of its process: software rendering on one thread, no warning an episode.

    For commands and the worker processes that they start, before anything else; OpenGL reads them once.
    """
    os.environ.setdefault("MUJOCO_GL", "osmesa")
    os.environ.setdefault("LP_NUM_THREADS", "0")  # software rendering: one thread a process
    logging.getLogger("absl").setLevel(logging.ERROR)  # a warning an episode, about a walker that needs no velocity


@functools.cache
def load_tasks() -> Any:
    """Import `memory_maze.tasks`. A process that does not call `set_up_process` sets `MUJOCO_GL` (egl or osmesa) first.

    Raises: LssvwmError when the `maze` extra or an OpenGL library is missing.
    """
    try:
        return import_without_parent("memory_maze.tasks")
    except (ImportError, AttributeError, OSError) as error:
        raise LssvwmError(
            f"the Memory Maze environment does not load: {error}\n"
            "Install it with: pip install 'lssvwm[maze]'   (Python 3.11 or 3.12)\n"
            "and its OpenGL:  apt-get install libosmesa6   (or set MUJOCO_GL=egl on a GPU machine)"
        ) from error


def make_environment(size: str, seed: int, camera_resolution: int = 64) -> Any:
    """A dm_env environment with every observable of the offline dataset; `close()` it after use."""
    make = getattr(load_tasks(), f"memory_maze_{size}")
    return make(global_observables=True, seed=seed, camera_resolution=camera_resolution)


@contextlib.contextmanager
def fast_physics() -> Iterator[None]:
    """Within this context environments run 3 to 5 times faster, with identical observations. Threads take turns.

    1. A target sphere reads its contacts from MuJoCo's int array instead of building a Python object for each contact
       (150 times a frame).
    2. A physics keeps its camera, and so its scene, instead of building one for every picture.
    """
    with _patching:
        replaced = _faster_functions()
        stock = [(owner, name, owner.__dict__[name]) for owner, name, _ in replaced]
        for owner, name, function in replaced:
            setattr(owner, name, function)
        try:
            yield
        finally:
            for owner, name, function in stock:
                setattr(owner, name, function)


def _faster_functions() -> list[tuple[type, str, Callable[..., Any]]]:
    """(class, name of the method, what replaces it)."""
    load_tasks()
    from dm_control.locomotion.props.target_sphere import TargetSphere
    from dm_control.mujoco import engine

    def update_activation(self: Any, physics: Any) -> None:
        if self._activated:
            return
        geoms = physics.data.ptr.contact.geom  # (contacts, 2)
        for geom1, geom2 in geoms[(geoms == self._geom_id).any(axis=1)].tolist():
            colliders = self._specific_collision_geom_ids
            if not colliders or geom1 in colliders or geom2 in colliders:
                self._activated = True
                physics.bind(self._material).rgba[-1] = 0

    def render(self: Any, height: int = 240, width: int = 320, camera_id: Any = -1, **options: Any) -> Any:
        cameras = self.__dict__.setdefault("_kept_cameras", {})
        camera = cameras.get((height, width, camera_id))
        if camera is None:
            camera = engine.Camera(physics=self, height=height, width=width, camera_id=camera_id)
            cameras[height, width, camera_id] = camera
        return camera.render(
            **{key: value for key, value in options.items() if key != "scene_callback"}  # never set by the environment
        )

    def free(self: Any) -> None:
        for camera in self.__dict__.pop("_kept_cameras", {}).values():
            camera._scene.free()
        stock_free(self)

    stock_free = engine.Physics.free
    return [
        (TargetSphere, "_update_activation", update_activation),
        (engine.Physics, "render", render),
        (engine.Physics, "free", free),
    ]
