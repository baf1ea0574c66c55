"""The backbone: causality, streaming, conditions, its state on disk, its config and presets."""

import copy
import dataclasses
import json
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from lssvwm_core.model import storage
from lssvwm_core.model.config import ModelConfig
from lssvwm_core.model.layer import Layer
from lssvwm_core.model.mixer import MixerContext
from lssvwm_core.model.world_model import WorldModel, patchify, unpatchify
from lssvwm_core.presets import preset
from lssvwm_datasets.errors import LssvwmError

FRAMES = 20
CHUNKS = (1, 5)


@pytest.fixture(scope="module")
def clip(normal):
    """Two clips: latents, noise levels and conditions."""
    return (
        normal(2, FRAMES, 3, 4, 4),
        torch.rand(2, FRAMES, generator=torch.Generator().manual_seed(1)),
        {"action": normal(2, FRAMES, 3, seed=2), "pose": normal(2, FRAMES, 2, seed=3)},
    )


def rows(clip, piece):
    latents, levels, conditions = clip
    return latents[:, piece], levels[:, piece], {name: tensor[:, piece] for name, tensor in conditions.items()}


@torch.no_grad()
def stream(model, clip, chunk, pieces, state=None):
    """Feed the clip in pieces; the velocities and the last state."""
    parts, start = [], 0
    for frames in pieces:
        velocity, state = model(*rows(clip, slice(start, start + frames)), state, chunk)
        parts.append(velocity)
        start += frames
    return torch.cat(parts, dim=1), state


@pytest.mark.parametrize("chunk", CHUNKS)
@pytest.mark.parametrize("changed", ["latents", "noise levels", "action", "pose"])
def test_a_change_reaches_its_chunk_and_the_future_only(model, clip, chunk, changed):
    """Exactly nothing before; and the last frame, far beyond the attention's window, still remembers."""
    before, _ = stream(model, clip, chunk, [FRAMES])
    for frame in (0, 7, 19):
        latents, levels, conditions = clip[0].clone(), clip[1].clone(), {k: v.clone() for k, v in clip[2].items()}
        tensor = {"latents": latents, "noise levels": levels, **conditions}[changed]
        tensor[:, frame] = 1 - tensor[:, frame]
        after, _ = stream(model, (latents, levels, conditions), chunk, [FRAMES])
        first = frame // chunk * chunk
        assert torch.equal(after[:, :first], before[:, :first])
        assert (after != before)[:, first:].flatten(2).any(-1).all()


@settings(max_examples=12, deadline=None)
@given(chunk=st.sampled_from(CHUNKS), data=st.data())
def test_a_stream_in_pieces_is_the_whole(model, clip, chunk, data):
    cuts = sorted(data.draw(st.sets(st.integers(1, FRAMES // chunk - 1), min_size=1, max_size=4)))
    edges = [0, *(chunk * cut for cut in cuts), FRAMES]
    pieces = [after - before for before, after in pairwise(edges)]
    whole, final = stream(model, clip, chunk, [FRAMES])
    velocity, state = stream(model, clip, chunk, pieces)
    torch.testing.assert_close(velocity, whole, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(state.mixers, final.mixers, rtol=1e-3, atol=1e-4)
    assert state.frames_seen == final.frames_seen == FRAMES


def test_a_layer_starts_as_the_identity(config, normal):
    layer, x = Layer(config, 0), normal(1, 5, *config.grid, config.width)
    states = [mixer.initial_state(1, config.grid) for mixer in layer.mixers]
    assert torch.equal(layer(x, normal(1, 5, config.width), states, MixerContext(0, 5))[0], x)


def test_training_starts_at_velocity_zero(config, clip):
    with torch.no_grad():
        velocity, _ = WorldModel(config)(*clip)
    assert velocity.shape == clip[0].shape
    assert not velocity.any()


def test_rows_of_nan_are_a_missing_stream(model, clip):
    latents, levels, conditions = clip
    with torch.no_grad():
        known = model(latents, levels, conditions)[0]
        missing = model(latents, levels, {"pose": conditions["pose"]})[0]
        nothing = torch.full_like(conditions["action"], torch.nan)
        assert torch.equal(model(latents, levels, conditions | {"action": nothing})[0], missing)
        assert (missing != known).flatten(2).any(-1).all()

        late = conditions["action"].clone()
        late[:, 10:] = torch.nan  # unknown from here on
        partly = model(latents, levels, conditions | {"action": late})[0]
    assert torch.equal(partly[:, :10], known[:, :10])
    assert (partly != known)[:, 10:].flatten(2).any(-1).all()


def test_unknown_rows_train_the_null_embedding_and_nothing_turns_nan(config, clip, randomised):
    model, (latents, levels, conditions) = randomised(WorldModel(config)), clip
    poses = conditions["pose"].clone()
    poses[:, ::2] = torch.nan
    model(latents, levels, {"pose": poses})[0].square().mean().backward()
    gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    assert all(gradient.isfinite().all() for gradient in gradients.values())
    assert all(gradients[f"streams.{name}.null"].any() for name in ("action", "pose"))


def test_activation_checkpointing_recomputes_the_same_gradients(config, clip, randomised):
    results = []
    for checkpointing in (False, True):
        torch.manual_seed(0)
        model = randomised(WorldModel(config)).train()
        model.activation_checkpointing = checkpointing
        calls = []
        model.layers[0].register_forward_pre_hook(lambda *_, calls=calls: calls.append(1))
        loss = model(*clip)[0].square().mean()
        loss.backward()
        results.append((loss.detach(), [p.grad for p in model.parameters()], len(calls)))
    (loss, gradients, once), (same_loss, same_gradients, twice) = results
    assert (once, twice) == (1, 2)
    torch.testing.assert_close(same_loss, loss)
    torch.testing.assert_close(same_gradients, gradients)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"chunk": 2}, "chunk size 2; the model knows 5, 1"),
        ({"frames": 7}, r"\(2, 7, 3, 4, 4\).*T a multiple of the chunk, 5"),
        ({"columns": slice(2)}, r"\(2, 20, 3, 4, 2\), expected \(B, T, 3, 4, 4\)"),
        ({"stream": "text"}, r"unknown condition streams \['text'\]; the model has \['action', 'pose'\]"),
    ],
)
def test_inputs_that_do_not_fit_are_refused_in_words(model, clip, arguments, words):
    latents, levels, conditions = rows(clip, slice(arguments.get("frames", FRAMES)))
    if "stream" in arguments:
        conditions = conditions | {arguments["stream"]: conditions["pose"]}
    with pytest.raises(ValueError, match=words):
        model(latents[..., arguments.get("columns", slice(None))], levels, conditions, chunk=arguments.get("chunk"))


# The state


@pytest.mark.parametrize("chunk", CHUNKS)
def test_the_state_has_one_size_in_memory_too(model, clip, chunk):
    """Not only the tensors: what they keep alive must not grow with the frames of the last call."""
    sizes, kept = set(), set()
    for pieces in ([5], [FRAMES], [FRAMES - 5, 5]):
        _, state = stream(model, clip, chunk, pieces)
        tensors = [tensor for mixer in state.mixers for tensor in mixer.values()]
        sizes.add(state.nbytes)
        kept.add(sum(tensor.untyped_storage().nbytes() for tensor in tensors))
    assert sizes == {model.initial_state(2).nbytes}
    assert len(kept) == 1


def test_a_branch_goes_its_own_way(model, clip):
    _, state = stream(model, clip, 5, [10])
    branch = state.copy()
    expected, _ = stream(model, clip, 5, [10], state)
    for mixer in branch.mixers:
        for tensor in mixer.values():
            tensor.zero_()
    branch.frames_seen = 0
    assert torch.equal(stream(model, clip, 5, [10], state)[0], expected)
    assert torch.equal(stream(model, clip, 5, [10], branch)[0], stream(model, clip, 5, [10])[0])


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_a_restored_state_goes_on_as_the_saved_one(model, clip, tmp_path, mode):
    """Into a fresh state and into a used one, whichever way it was used."""
    with mode():
        _, state = model(*clip)
        _, used = model(*rows(clip, slice(5)))
    last_frame = clip[0][:, -1]
    state.save(tmp_path / "pause.safetensors", {"last_frame": last_frame})
    expected, _ = stream(model, clip, 5, [5], state)
    for restored in (model.initial_state(2), used):
        extra = restored.restore(tmp_path / "pause.safetensors")
        assert restored.frames_seen == FRAMES
        assert torch.equal(stream(model, clip, 5, [5], restored)[0], expected)
        assert extra.keys() == {"last_frame"}
        assert torch.equal(extra["last_frame"], last_frame)
    assert [path.name for path in tmp_path.iterdir()] == ["pause.safetensors"]


def truncated(path, state):
    state.save(path)
    path.write_bytes(path.read_bytes()[:-100])


def without_header(path, state):
    state.save(path)
    save_file(load_file(path), path, {"lssvwm-state": "{}"})


FOREIGN_FILES = {
    "no file": (lambda path, state: None, "no such file"),
    "not safetensors": (lambda path, state: path.write_text("a saved game"), "damaged or not a safetensors file"),
    "truncated": (truncated, "damaged or not a safetensors file"),
    "someone's weights": (
        lambda path, state: save_file({"weight": torch.zeros(2)}, path),
        "not a world state of lssvwm",
    ),
    "no count of frames": (without_header, "missing required field frames_seen"),
}


@pytest.mark.parametrize(("write", "words"), FOREIGN_FILES.values(), ids=FOREIGN_FILES)
def test_a_file_that_holds_no_state_is_refused(model, tmp_path, write, words):
    path, state = tmp_path / "pause.safetensors", model.initial_state(2)
    write(path, state)
    with pytest.raises(LssvwmError, match=f"{path}: .*{words}"):
        state.restore(path)


@pytest.mark.parametrize("change", [{"depth": 3}, {"block_sizes": ((1, 1),)}, {"frame_window": 6}, {}])
def test_the_state_of_another_model_or_batch_is_refused_untouched(model, config, clip, tmp_path, change):
    path = tmp_path / "pause.safetensors"
    WorldModel(dataclasses.replace(config, **change)).initial_state(2 if change else 3).save(path)
    _, state = stream(model, clip, 5, [10])
    before = state.copy()
    with pytest.raises(LssvwmError, match=f"{path}: the state of another model or batch size .*mixers"):
        state.restore(path)
    assert state.frames_seen == 10
    torch.testing.assert_close(state.mixers, before.mixers, rtol=0, atol=0)


# The config


@pytest.mark.parametrize(("name", "low", "high"), [("tiny", 3e6, 6e6), ("small", 20e6, 30e6), ("base", 180e6, 220e6)])
def test_presets_have_the_sizes_they_promise(name, low, high):
    with torch.device("meta"):
        model = WorldModel(preset(name, (32, 4, 4), pose_names=("x", "y", "cos", "sin")))
    assert low < sum(parameter.numel() for parameter in model.parameters()) < high


@pytest.mark.parametrize(("cells", "tiny", "small"), [(4, 4, 16), (8, 16, 64), (16, 64, 64)])  # 16 would hold 512 each
def test_presets_keep_the_tokens_of_a_frame_few(cells, tiny, small):
    for name, tokens in (("tiny", tiny), ("small", small)):
        h, w = preset(name, (32, cells, cells)).grid
        assert h * w == tokens


@pytest.mark.parametrize(
    ("name", "overrides", "words"),
    [("huge", {}, "'huge'; expected one of tiny, small, base"), ("tiny", {"layers": 2}, "unknown model fields layers")],
)
def test_unknown_presets_and_fields_are_named(name, overrides, words):
    with pytest.raises(ValueError, match=words):
        preset(name, (32, 4, 4), **overrides)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"mixers": ("scan", "fourier")}, "fourier.*expected some of scan, attention"),
        ({"mixers": ()}, "mixers"),
        ({"latent_shape": (3, 5, 4)}, "patch 2 does not divide the latent grid 5x4"),
        ({"patch": 0}, "patch"),
        ({"block_sizes": ((2, 2), (1, 3))}, "block size 1x3 does not divide the grid of 2x2 tokens"),
        ({"block_sizes": ((0, 1),)}, "block size"),
        ({"width": 80}, "width 80 must be a multiple of headdim"),
        ({"headdim": 4}, "headdim 4 of 8"),
        ({"headdim": 0}, "headdim"),
        ({"chunk_sizes": ()}, "chunk sizes"),
        ({"chunk_sizes": (5, 11)}, r"chunk sizes \(5, 11\) must lie within 1..10"),
        ({"chunk_sizes": (0,)}, "chunk sizes"),
    ],
)
def test_a_config_that_cannot_be_is_refused_in_words(config, change, words):
    with pytest.raises(ValueError, match=words):
        dataclasses.replace(config, **change)


def test_a_model_is_rebuilt_from_its_folder(model, config, clip, tmp_path):
    storage.save_model(tmp_path, "world-model", dataclasses.asdict(config), model)
    loaded = storage.config_from(tmp_path, ModelConfig, storage.load_config(tmp_path, "world-model"))
    assert loaded == config
    assert hash(loaded) == hash(config)  # lists of the JSON became tuples, at every depth
    assert "kind" in json.loads((tmp_path / storage.CONFIG_FILE).read_text())
    other = WorldModel(loaded).eval()
    storage.load_weights(tmp_path, other)
    assert torch.equal(stream(other, clip, 5, [FRAMES])[0], stream(model, clip, 5, [FRAMES])[0])


@pytest.mark.parametrize("patch", [1, 2, 4])
def test_unpatchify_undoes_patchify(normal, patch):
    latents = normal(2, 3, 5, 4, 8)
    tokens = patchify(latents, patch)
    assert tokens.shape == (2, 3, 4 // patch, 8 // patch, 5 * patch * patch)
    assert torch.equal(tokens[1, 2, 0, -1].unflatten(0, (5, patch, patch)), latents[1, 2, :, :patch, -patch:])
    assert torch.equal(unpatchify(tokens, patch), latents)


def test_compiled_layers_are_whole_graphs_and_a_rollout_compiles_no_more_once_its_window_is_full(model):
    graphs = []

    def backend(graph, inputs):
        graphs.append(graph)
        return graph

    compiled = copy.deepcopy(model).eval()
    compiled.compile_layers(backend, fullgraph=True)
    states, counts = [None, None], []
    with torch.inference_mode():
        for number in range(6):
            noise = torch.randn(1, 5, 3, 4, 4, generator=torch.Generator().manual_seed(number))
            inputs = (noise, torch.zeros(1, 5), {"pose": torch.rand(1, 5, 2)})
            (velocity, states[0]), (expected, states[1]) = (
                net(*inputs, state, 5) for net, state in zip((compiled, model), states, strict=True)
            )
            torch.testing.assert_close(velocity, expected)
            counts.append(len(graphs))
    assert counts[1] == 0, "the first windows are shorter: not worth it"
    assert counts[2] > 0
    assert len(set(counts[2:])) == 1
    compiled.train()
    with torch.enable_grad():
        inputs = (torch.randn(2, 20, 3, 4, 4), torch.rand(2, 20), {"pose": torch.rand(2, 20, 2)})
        compiled(*inputs)[0].square().mean().backward()
    assert all(parameter.grad is not None for parameter in compiled.layers[0].mixers.parameters())
