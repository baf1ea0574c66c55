"""Long-context state-space video world models: the model and everything that computes. torch lives here and only here.

    from lssvwm_core import load_episode, load_world

    world = load_world("maze-world")                        # a run, a folder, a shipped name or a hub id
    episode = load_episode(world)                           # a recorded walk: frames, actions, poses
    rollout = world.rollout(seed=0)
    rollout.observe(episode.frames[:240], episode.conditions[:240])
    video = [chunk.frames for chunk in rollout.run(episode.conditions[240:480])]

What `__all__` lists is public, and so are the names below it that docs/python.md lists; everything else may change.
Names are loaded when they are first used, so that importing the package is quick.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lssvwm_core.conditions import Conditions
    from lssvwm_core.episodes import EncodedEpisode, load_episode
    from lssvwm_core.hub.pretrained import PretrainedWorld
    from lssvwm_core.rendering import RenderOptions, render
    from lssvwm_core.rollout import Chunk, Rollout
    from lssvwm_core.world import World, load_world
    from lssvwm_datasets.errors import LssvwmError

_HOMES = {
    "Chunk": "lssvwm_core.rollout",
    "Conditions": "lssvwm_core.conditions",
    "EncodedEpisode": "lssvwm_core.episodes",
    "LssvwmError": "lssvwm_datasets.errors",
    "PretrainedWorld": "lssvwm_core.hub.pretrained",
    "RenderOptions": "lssvwm_core.rendering",
    "Rollout": "lssvwm_core.rollout",
    "World": "lssvwm_core.world",
    "load_episode": "lssvwm_core.episodes",
    "load_world": "lssvwm_core.world",
    "render": "lssvwm_core.rendering",
}
__all__ = [
    "Chunk",
    "Conditions",
    "EncodedEpisode",
    "LssvwmError",
    "PretrainedWorld",
    "RenderOptions",
    "Rollout",
    "World",
    "load_episode",
    "load_world",
    "render",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
