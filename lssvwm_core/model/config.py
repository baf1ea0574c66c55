"""The shape of a world model: one frozen config."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from lssvwm_datasets.poses import kinds_of, plane_of
from lssvwm_datasets.streams import STREAMS, check_further, columns_of

DEFAULT_MIXERS = ("scan", "attention")
MOST = {"depth": 256, "frame_window": 4096, "recall": 2**20}  # weights do not tell these: more is a mistake, or malice
MOST_MIXERS = 16  # of a layer
MOST_CHUNK_SIZES = 16  # each is trained, and its cost measured, on its own
RENAMED_FIELDS = {"state_width": "d_state", "head_width": "headdim"}  # names in files of version 0.1, and today's


@dataclass(frozen=True)
class ModelConfig:
    """Every field can be set in a TOML file (`[model]`) or with `--set model.FIELD=VALUE`."""

    latent_shape: tuple[int, int, int]
    """(C, h, w) of a frame's latent; given by the shards."""
    action_names: tuple[str, ...] = ()
    """Columns of the `action` condition stream; empty: the model has none."""
    pose_names: tuple[str, ...] = ()
    """Columns of the `pose` condition stream."""
    pose_kinds: tuple[str, ...] = ()
    """What each column of a pose is: x, y, z, cos, sin, pitch or other; given by the shards. Empty: as it is named."""
    stream_names: dict[str, tuple[str, ...]] = field(default_factory=dict, hash=False)
    """Columns of further condition streams, by stream (`lssvwm_datasets.streams`); given by the shards."""
    action_scaling: tuple[tuple[float, float], ...] = ()
    """(mean, standard deviation) of each action column, to normalise by; given by the shards. Empty: none is."""
    odometry: tuple[tuple[float, ...], ...] = ()
    """(lags · A + pairs · A², P - 1): how actions move the agent, fitted to the shards, to reckon unknown poses. Empty:
    none are."""
    odometry_pairs: int = 0
    """Pairs of successive actions that `odometry` tells of; given by the shards."""
    width: int = 256
    """D, channels of a token."""
    depth: int = 3
    """Layers."""
    mixers: tuple[str, ...] = DEFAULT_MIXERS
    """The mixers of a layer, in order: `scan`, `attention` to a window of frames, `causal` attention to all of them."""
    block_sizes: tuple[tuple[int, int], ...] = ((2, 2), (1, 1), (1, 1), (1, 1))
    """(b_h, b_w) of the scan, taken in turn by the layers; each divides the grid of tokens."""
    expand: int = 2
    """Inner width of the scan over D."""
    d_state: int = 128
    """n of the scan: numbers that each channel remembers."""
    headdim: int = 64
    """Channels of a head, in the scan and in the attention."""
    pose_address: bool = True
    """Poses enter B and C of the scan: a frame is written and looked up by where it was seen from."""
    recall: int = 0
    """Frames that the memory by least squares keeps; any world may be given more. 0: there is no such memory."""
    recall_lengths: tuple[float, float] = (0.05, 0.5)
    """How far apart poses are alike, at least and at most, in their units; fitted to the shards when a run starts."""
    recall_ridge: float = 1e-3
    """How much it smooths: λ of ridge regression."""
    mlp_ratio: float = 3.0
    """Hidden width of the MLP over D."""
    patch: int = 1
    """Cells of the latent along one side of a token; channels · patch² numbers, which `width` should be enough for."""
    frame_window: int = 10
    """w: frames a chunk attends to, itself included (paper: 10)."""
    chunk_sizes: tuple[int, ...] = (5, 1)
    """Frames generated together, mixed in training; a rollout picks one (paper: 5; 1 answers frame by frame)."""

    def __post_init__(self) -> None:
        for one in fields(self):  # JSON and TOML know lists only
            object.__setattr__(self, one.name, _as_tuples(getattr(self, one.name)))
        check_further(self.stream_names)
        from lssvwm_core.model.mixers import MIXERS  # with torch, which those who look presets up can do without

        unknown = sorted(set(self.mixers) - set(MIXERS))
        if unknown or not 1 <= len(self.mixers) <= MOST_MIXERS:
            shown = self.mixers[:MOST_MIXERS]
            raise ValueError(f"mixers are {shown}; expected some of {', '.join(MIXERS)}, {MOST_MIXERS} at most")
        for name in ("width", "depth", "expand", "d_state", "headdim", "mlp_ratio", "patch"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; expected at least 1")
        for name, most in MOST.items():
            if getattr(self, name) > most:
                raise ValueError(f"{name} is {getattr(self, name)}; expected at most {most}")
        if min(self.latent_shape) < 1:
            raise ValueError(f"latent_shape is {self.latent_shape}; expected at least 1 channel, row and column")
        _, h, w = self.latent_shape
        if h % self.patch or w % self.patch:
            raise ValueError(f"patch {self.patch} does not divide the latent grid {h}x{w}")
        for b_h, b_w in self.block_sizes:
            if min(b_h, b_w) < 1 or self.grid[0] % b_h or self.grid[1] % b_w:
                raise ValueError(
                    f"block size {b_h}x{b_w} does not divide the grid of {self.grid[0]}x{self.grid[1]} tokens"
                )
        if self.width % self.headdim or self.headdim % 8:
            raise ValueError(f"width {self.width} must be a multiple of headdim, and headdim {self.headdim} of 8")
        if self.action_scaling and len(self.action_scaling) != len(self.action_names):
            raise ValueError(f"action_scaling has {len(self.action_scaling)} rows for {len(self.action_names)} actions")
        kinds_of(self.pose_names, self.pose_kinds)  # raises where they do not fit
        shortest, longest = self.recall_lengths
        if self.recall < 0 or (self.recall and not self.pose_names):
            raise ValueError(f"recall is {self.recall}; expected a number of frames, and 0 where there are no poses")
        if 0 < self.recall < max(self.chunk_sizes, default=0):
            raise ValueError(f"recall is {self.recall}; expected at least the largest of the chunks {self.chunk_sizes}")
        if not 0 < shortest <= longest or not self.recall_ridge > 0:
            raise ValueError(
                f"recall_lengths {self.recall_lengths} must ascend from above 0, and recall_ridge lie above 0"
            )
        if self.odometry:
            self._check_odometry()
        if not 1 <= len(self.chunk_sizes) <= MOST_CHUNK_SIZES:
            raise ValueError(f"{len(self.chunk_sizes)} chunk sizes; expected 1 to {MOST_CHUNK_SIZES}")
        if not all(1 <= chunk <= self.frame_window for chunk in self.chunk_sizes):
            raise ValueError(f"chunk sizes {self.chunk_sizes} must lie within 1..{self.frame_window} (frame_window)")

    def _check_odometry(self) -> None:
        if plane_of(self.pose_names, self.pose_kinds) is None or not self.action_names:
            raise ValueError(
                "odometry is for actions and poses with a position x, y and the cos and sin of a heading, "
                f"not for {self.pose_names}"
            )
        added, actions, pairs = len(self.pose_names) - 1, len(self.action_names), self.odometry_pairs
        lags = len(self.odometry) // actions - pairs * actions
        if len(self.odometry) % actions or any(len(row) != added for row in self.odometry) or not 0 <= pairs < lags:
            raise ValueError(
                f"odometry has {len(self.odometry)} rows, expected a multiple of the {actions} actions, and "
                f"{actions**2} more for each of {pairs} pairs, each of {added} numbers"
            )

    @property
    def grid(self) -> tuple[int, int]:
        """Tokens of a frame, (rows, columns)."""
        return self.latent_shape[1] // self.patch, self.latent_shape[2] // self.patch

    def recent_frames(self, chunk: int) -> int:
        """Frames before a chunk that it attends to, in whole chunks."""
        return (self.frame_window - chunk) // chunk * chunk

    @property
    def streams(self) -> dict[str, int]:
        """Condition streams and their columns."""
        columns = {name: len(columns_of(self, name)) for name in STREAMS}
        return {name: count for name, count in columns.items() if count > 0}


def with_current_names(model_fields: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of a ModelConfig under today's names; files, and users, may still give them their former ones."""
    return {RENAMED_FIELDS.get(name, name): value for name, value in model_fields.items()}


def _as_tuples(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _as_tuples(item) for name, item in value.items()}
    return tuple(_as_tuples(item) for item in value) if isinstance(value, list | tuple) else value
