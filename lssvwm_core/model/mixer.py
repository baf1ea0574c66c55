"""What a mixer is: the part of a layer in which frames see each other, and which remembers the frames before.

A new mixer is a module with a subclass of `Mixer`, and a line in `mixers.MIXERS`; configs then name it in `mixers`.
"""

from collections.abc import Mapping
from typing import NamedTuple, Self

from torch import Tensor, nn

from lssvwm_core.model.config import ModelConfig
from lssvwm_core.model.state import Growth

MixerState = dict[str, Tensor]


class MixerContext(NamedTuple):
    """What a mixer is told about the frames it mixes, beside their tokens.

    Attributes:
        frames_seen: frames before these, which the state has seen. Where no mixer of the model has a state that grows,
            it stops at the frame window: compiled layers are compiled anew for every number.
        chunk: c, the frames that are generated together and see each other in both directions.
        poses: (B, T, P) where each frame was seen from, rows of NaN where unknown; None: no pose is known.
        keep: whether the state after these frames is wanted. Otherwise a mixer may return the one before them.
    """

    frames_seen: int
    chunk: int
    poses: Tensor | None = None
    keep: bool = True


class Mixer(nn.Module):
    """Tokens (B, T, h, w, D) -> the same shape, where T is a multiple of the chunk.

    No frame may depend on a later chunk, and a clip in pieces of whole chunks must give what it gives as a whole: all
    that a mixer needs of the past is in its state. A state is a dict of tensors of any dtype with names of the mixer's
    own; it is copied, saved, loaded and counted without the mixer's help.
    """

    @classmethod
    def from_config(cls, config: ModelConfig, layer: int) -> Self:
        """The mixer that a config describes for its layer number `layer`."""
        raise NotImplementedError

    @property
    def uses_poses(self) -> bool:
        """Whether it reads `context.poses`: only then are unknown poses reckoned from the actions."""
        return False

    def initial_state(self, batch: int, grid: tuple[int, int]) -> MixerState:
        """The state before the first frame, on the mixer's device, for `batch` clips of frames of h × w tokens."""
        raise NotImplementedError

    def growth(self, grid: tuple[int, int]) -> Mapping[str, Growth]:
        """Which tensors of the state grow with the frames, and how; none, for a state of fixed size."""
        return {}

    def forward(self, x: Tensor, state: MixerState, context: MixerContext) -> tuple[Tensor, MixerState]:
        """Mix frames that follow `state`, which stays as it was; returns the state after them beside the tokens."""
        raise NotImplementedError
