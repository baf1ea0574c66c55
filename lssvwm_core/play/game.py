"""A world being played: an action in, a frame out, one at a time; and its saved moments.

A recorded start gives the context that the world sees first. From then on poses are reckoned from the actions, with the
walls of the recording's layout where it has one.
"""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from lssvwm_core.conditions import Conditions
from lssvwm_core.episodes import EncodedEpisode, load_episode
from lssvwm_core.model.state import ModelState
from lssvwm_core.rollout import Rollout
from lssvwm_core.world import World
from lssvwm_datasets.errors import LssvwmError
from lssvwm_datasets.memory_maze import ACTION_NAMES, POSE_NAMES
from lssvwm_datasets.memory_maze.explorer import walk

SLOT_NAME = re.compile(r"[a-z0-9-]{1,32}")
MAX_SLOTS = 100
PATH_POINTS = 1000  # of the way walked that are kept for the map
MAX_SEED = 2**31 - 1


class Game:
    """One world, one frame at a time.

    Attributes:
        rollout: the world going on: its memory, and whether that is cut.
        frame: (H, W, 3) uint8, the last one.
        pose: (P,) where the agent stands; None where unknown.
        layout: (N, N) uint8, 1 = free; None where unknown.
        path: [x, y] of the last frames, oldest first; empty where poses are unknown.
        generated: frames since the last jump.
        scene: counts the jumps: restarts and loads.
        actions_only: tell the world no poses.
    """

    rollout: Rollout
    frame: NDArray[np.uint8]
    pose: NDArray[np.float32] | None
    layout: NDArray[np.uint8] | None
    path: list[list[float]]
    generated: int

    def __init__(self, world: World, source: Path, slots: Path, context: int = 100, seed: int = 0) -> None:
        """Start at the first validation episode of `source`. Raises: LssvwmError."""
        if 1 not in world.model.config.chunk_sizes:
            raise LssvwmError(f"the world was trained for chunks of {world.model.config.chunk_sizes}; play needs 1")
        self.source, self.slots_folder, self.context, self.seed = source, slots, context, seed
        self.rollout = replace(world, chunk=1).rollout(seed)
        self.actions_only = False
        self.scene = 0
        self._episode: tuple[int, EncodedEpisode] | None = None
        self.restart(0, 0)

    @property
    def world(self) -> World:
        return self.rollout.world

    @property
    def state(self) -> ModelState:
        """The memory of everything seen and generated."""
        return self.rollout.state

    @property
    def cut_memory(self) -> bool:
        """Generate from the frames of the attention window alone; the memory itself goes on underneath."""
        return self.rollout.memory_cut

    @cut_memory.setter
    def cut_memory(self, cut: bool) -> None:
        self.rollout.memory_cut = cut

    def set_steps(self, steps: int) -> None:
        """Take so many denoising steps a frame from now on."""
        self.rollout.world = self.world.sampled_with(steps)

    def set_seed(self, seed: int) -> None:
        self.seed = seed
        self.rollout.reseed(seed)

    def restart(self, episode: int, first: int) -> None:
        """See `context` frames of a recording, from frame `first` on, and forget all else. Raises: LssvwmError."""
        if self._episode is None or self._episode[0] != episode:
            self._episode = episode, load_episode(self.world, self.source, episode)
        recording = self._episode[1]
        rows = slice(first, first + self.context)
        if not 0 <= first <= len(recording) - self.context:
            raise LssvwmError(
                f"episode {recording.id} has {len(recording)} frames; no {self.context} of them begin at {first}"
            )
        poses = recording.poses[rows] if recording.poses is not None else None
        self.rollout = Rollout(self.world, (self.seed,), self.cut_memory)
        self.rollout.observe(recording.latents[rows], self._conditions(recording.actions[rows], poses))
        self._jump(poses[-1] if poses is not None else None, recording.layout)
        if self.pose is not None and poses is not None:
            self.path = poses[-PATH_POINTS:, :2].tolist()

    def step(self, action: int) -> NDArray[np.uint8]:
        """Take an action, a column of the world's actions, and return the frame it leads to: `show`, `commit`."""
        frame = self.show(action)
        self.commit()
        return frame

    def show(self, action: int) -> NDArray[np.uint8]:
        """The frame that an action leads to; `commit` is to follow, when the frame has been shown."""
        actions = np.zeros((1, len(self.world.header.action_names)), np.float32)
        actions[:, action : action + 1] = 1
        if self.pose is not None:
            self.pose = walk(self.layout, self.pose, action)
            self.path = [*self.path[1 - PATH_POINTS :], self.pose[:2].tolist()]
        conditions = self._conditions(actions, None if self.pose is None else self.pose[None])
        self.frame = self.rollout.sample(conditions).frames[0]
        self.generated += 1
        return self.frame

    def commit(self) -> None:
        """Let the memory see the frame that was just shown."""
        self.rollout.commit()

    @property
    def slots(self) -> list[str]:
        return sorted(path.stem for path in self.slots_folder.glob("*.safetensors") if SLOT_NAME.fullmatch(path.stem))

    def save(self, slot: str) -> None:
        """Keep this moment, in place of what the slot held. Raises: LssvwmError."""
        path = self._slot(slot)
        if not path.exists() and len(self.slots) >= MAX_SLOTS:
            raise LssvwmError(f"{self.slots_folder} is full: {MAX_SLOTS} saved worlds")
        extra = {"pose": self.pose, "layout": self.layout, "path": np.array(self.path, np.float32).reshape(-1, 2)}
        self.rollout.save(
            path, {name: torch.from_numpy(np.array(value)) for name, value in extra.items() if value is not None}
        )

    def branch(self, slot: str) -> None:
        """Keep this moment under a name that is not taken yet. Raises: LssvwmError."""
        if self._slot(slot).exists():
            raise LssvwmError(f"{slot} is taken; branch under another name, or save over it")
        self.save(slot)

    def load(self, slot: str) -> None:
        """Go back to a saved moment, also one of `rollout --save-state`. Raises: LssvwmError; the game then goes on."""
        path = self._slot(slot)
        if not path.exists():
            raise LssvwmError(f"nothing is saved as {slot}")
        loaded = Rollout(self.world, (self.seed,), self.cut_memory)
        extra = loaded.load(path)
        pose = extra["pose"].numpy() if "pose" in extra else None
        if pose is not None and pose.shape != (len(self.world.header.pose_names),):
            raise LssvwmError(f"{path}: a pose of {pose.shape}; expected {self.world.header.pose_names}")
        self.rollout = loaded
        self._jump(pose, extra["layout"].numpy() if "layout" in extra else None)
        if self.pose is not None and "path" in extra:
            self.path = extra["path"].tolist()

    def _slot(self, slot: str) -> Path:
        if not SLOT_NAME.fullmatch(slot):
            raise LssvwmError("a name has 1 to 32 of a-z, 0-9 and -")
        return self.slots_folder / f"{slot}.safetensors"

    def _conditions(self, actions: NDArray[np.float32], poses: NDArray[np.float32] | None) -> Conditions:
        known = {"action": actions} if poses is None or self.actions_only else {"action": actions, "pose": poses}
        return Conditions(known).only(self.world.model.config.streams)

    def _jump(self, pose: NDArray[np.float32] | None, layout: NDArray[np.uint8] | None) -> None:
        header = self.world.header
        reckoned = header.action_names == ACTION_NAMES and header.pose_names == POSE_NAMES
        self.pose = pose if reckoned and pose is not None and np.isfinite(pose).all() else None
        self.layout = layout
        self.path = []
        self.scene += 1
        self.generated = 0
        if self.rollout.recent.shape[1]:
            self.frame = self.world.decode(self.rollout.recent[0, -1:])[0]
