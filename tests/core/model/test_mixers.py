"""A mixer is a module and a line of the registry: one made here goes through all that the model's own go through."""

import dataclasses
from collections.abc import Mapping

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from lssvwm_core.model.config import ModelConfig
from lssvwm_core.model.mixer import Mixer, MixerContext, MixerState
from lssvwm_core.model.mixers import MIXERS
from lssvwm_core.model.state import Growth
from lssvwm_core.model.world_model import WorldModel
from lssvwm_datasets.errors import LssvwmError

FRAMES, CHUNK = 20, 5


class Diary(Mixer):
    """Every token is told the mean of all frames up to its chunk; keeps a line a frame, and how often it was called."""

    def __init__(self, width: int, layer: int) -> None:
        super().__init__()
        self.layer = layer
        self.told = nn.Linear(width, width)

    @classmethod
    def from_config(cls, config: ModelConfig, layer: int) -> "Diary":
        return cls(config.width, layer)

    def initial_state(self, batch: int, grid: tuple[int, int]) -> MixerState:
        lines = torch.zeros(batch, 0, self.told.in_features, dtype=torch.float64)
        return {"lines": lines, "chunks": torch.zeros(batch, dtype=torch.int64)}

    def growth(self, grid: tuple[int, int]) -> Mapping[str, Growth]:
        return {"lines": Growth(dimension=1, a_frame=1)}

    def forward(self, x: Tensor, state: MixerState, context: MixerContext) -> tuple[Tensor, MixerState]:
        frames, seen = x.shape[1], context.frames_seen
        assert state["lines"].shape[1] == seen, "a state that grows needs the exact number of frames"
        lines = torch.cat([state["lines"], x.mean(dim=(2, 3)).double()], dim=1)  # (B, seen + T, D)
        ends = seen + (torch.arange(frames) // context.chunk + 1) * context.chunk
        means = (lines.cumsum(dim=1) / torch.arange(1, seen + frames + 1)[:, None])[:, ends - 1]
        told = self.told(means.to(x.dtype))[:, :, None, None].expand_as(x)
        return told, {"lines": lines, "chunks": state["chunks"] + frames // context.chunk}


@pytest.fixture
def diary(config: ModelConfig, randomised, monkeypatch: pytest.MonkeyPatch) -> WorldModel:
    monkeypatch.setitem(MIXERS, "diary", Diary)
    torch.manual_seed(0)
    return randomised(WorldModel(dataclasses.replace(config, mixers=("diary", "scan"))))


@torch.no_grad()
def stream(model, latents, pieces, state=None):
    parts = []
    for piece in latents.split(pieces, dim=1):
        velocity, state = model(piece, torch.zeros(piece.shape[:2]), {}, state, CHUNK)
        parts.append(velocity)
    return torch.cat(parts, dim=1), state


def test_it_is_built_for_each_layer_and_named_where_unknown(diary: WorldModel, config: ModelConfig) -> None:
    assert [type(mixer).__name__ for mixer in diary.mixers] == ["Diary", "BlockScan"] * config.depth
    assert [mixer.layer for mixer in diary.mixers if isinstance(mixer, Diary)] == list(range(config.depth))
    with pytest.raises(ValueError, match="expected some of scan, attention, causal, diary"):
        dataclasses.replace(config, mixers=("dairy",))


@pytest.mark.parametrize("pieces", [CHUNK, [10, 5, 5], [5, 15]])
def test_a_clip_in_pieces_is_the_whole_and_its_state_grows_as_declared(diary: WorldModel, normal, pieces) -> None:
    latents = normal(2, FRAMES, 3, 4, 4)
    whole, final = stream(diary, latents, FRAMES)
    velocity, state = stream(diary, latents, pieces)
    torch.testing.assert_close(velocity, whole, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(state.tensors, final.tensors, rtol=1e-3, atol=1e-4)
    assert {name: tensor.shape for name, tensor in state.tensors.items() if name in state.growth} == {
        "mixers.0.lines": (2, FRAMES, 64),
        "mixers.2.lines": (2, FRAMES, 64),
    }
    assert state.nbytes - diary.initial_state(2).nbytes == 2 * 2 * FRAMES * 64 * 8


def test_what_grows_is_saved_loaded_and_copied_with_its_types(diary: WorldModel, normal, tmp_path) -> None:
    latents, path = normal(2, FRAMES, 3, 4, 4), tmp_path / "state.safetensors"
    _, state = stream(diary, latents[:, :10], CHUNK)
    branch = state.copy()
    state.save(path)
    expected, _ = stream(diary, latents[:, 10:], CHUNK, state)
    _, used = stream(diary, latents, CHUNK)
    for restored in (diary.initial_state(2), used):
        assert restored.restore(path) == {}
        assert {name: t.dtype for name, t in restored.tensors.items()} == {n: t.dtype for n, t in state.tensors.items()}
        assert torch.equal(stream(diary, latents[:, 10:], CHUNK, restored)[0], expected)
    for tensor in state.tensors.values():
        tensor.zero_()
    assert torch.equal(stream(diary, latents[:, 10:], CHUNK, branch)[0], expected)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("mixers.0.lines", lambda lines: lines[:, :-1]),
        ("mixers.2.lines", lambda lines: torch.cat([lines, lines], dim=1)),
        ("mixers.2.chunks", lambda chunks: chunks.float()),
    ],
)
def test_a_state_that_grew_otherwise_than_its_frames_is_refused(diary, normal, tmp_path, name, change) -> None:
    path = tmp_path / "state.safetensors"
    _, state = stream(diary, normal(2, 10, 3, 4, 4), CHUNK)
    state.save(path)
    tensors = load_file(path)
    save_file(tensors | {name: change(tensors[name]).contiguous()}, path, {"lssvwm-state": '{"frames_seen": 10}'})
    with pytest.raises(LssvwmError, match=f"another model or batch size .{name} is .*, expected"):
        diary.initial_state(2).restore(path)
