"""The one loop of all rollouts: pieces, pauses, branches, saved moments, and a memory that is cut."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from lssvwm_core import Conditions, EncodedEpisode, Rollout, World, load_episode, load_world
from lssvwm_core.model.world_model import WorldModel
from lssvwm_datasets.errors import LssvwmError

GOLDEN = Path(__file__).parents[1] / "golden"


@pytest.fixture(scope="module")
def world() -> World:
    return load_world(GOLDEN / "runs/test", "cpu").sampled_with(steps=2)


@pytest.fixture(scope="module")
def episode(world: World) -> EncodedEpisode:
    return load_episode(world, GOLDEN / "data/maze")


def started(world: World, episode: EncodedEpisode, context: int = 20, **options: object) -> Rollout:
    rollout = world.rollout(**options)  # type: ignore[arg-type]
    rollout.observe(episode.latents[:context], episode.conditions[:context])
    return rollout


def latents(rollout: Rollout, conditions: Conditions) -> torch.Tensor:
    return torch.cat([chunk.latents for chunk in rollout.run(conditions)], dim=1)


def test_running_is_sampling_and_committing_in_turn(world: World, episode: EncodedEpisode) -> None:
    expected, rollout = latents(started(world, episode), episode.conditions[20:35]), started(world, episode)
    for first in (20, 25, 30):
        chunk = rollout.sample(episode.conditions[first : first + 5])
        assert rollout.frames_seen == first, "shown, but not yet remembered"
        assert torch.equal(chunk.latents, expected[:, first - 20 : first - 15])
        assert chunk.frames.shape == (5, 64, 64, 3)
        rollout.commit()
    with pytest.raises(ValueError, match="nothing was sampled"):
        rollout.commit()


def test_a_chunk_that_is_not_covered_goes_on_with_the_last_row(world: World, episode: EncodedEpisode) -> None:
    rows = episode.conditions[20:27]
    assert torch.equal(latents(started(world, episode), rows), latents(started(world, episode), rows.padded(30 - 20)))


def test_the_same_seed_gives_the_same_frames_alone_and_in_a_batch(world: World, episode: EncodedEpisode) -> None:
    alone = [latents(started(world, episode, seed=seed), episode.conditions[20:30]) for seed in (3, 4)]
    assert not torch.equal(*alone)
    both = Rollout(world, (3, 4))
    two = Conditions.stack([episode.conditions[:30]] * 2)
    both.observe(np.stack([episode.latents[:20]] * 2), two[:20])
    torch.testing.assert_close(latents(both, two[20:]), torch.cat(alone), atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("chunk", [1, 5])
@pytest.mark.usefixtures("float32")
@pytest.mark.parametrize("context", [3, 20, 23])
def test_a_cut_memory_is_a_fresh_world_that_sees_the_window(
    world: World, episode: EncodedEpisode, chunk: int, context: int
) -> None:
    """Whatever was before; and the memory goes on underneath, as if it had not been cut."""
    world = replace(world, chunk=chunk)
    rollout = started(world, episode, context, memory_cut=True)
    window = (world.model.config.frame_window - chunk) // chunk * chunk
    seen = torch.from_numpy(episode.latents[:context])[None].float()
    for first in range(context, context + 3 * chunk, chunk):
        kept = slice(max(0, first - window), first)
        fresh = world.reset()
        world.observe(fresh, seen[:, kept], episode.conditions[kept])
        generator = torch.Generator()
        generator.set_state(rollout.generators[0].get_state())
        rows = episode.conditions[first : first + chunk]
        expected = world.sample(fresh, rows, generator)
        assert torch.equal(rollout.sample(rows).latents, expected)
        rollout.commit()
        seen = torch.cat([seen, expected], dim=1)
    whole = started(world, episode, context)
    whole.observe(seen[:, context:], episode.conditions[context : context + 3 * chunk])
    rollout.memory_cut = False
    rows = episode.conditions[60 : 60 + chunk]
    whole.reseed(1)
    rollout.reseed(1)
    torch.testing.assert_close(rollout.sample(rows).latents, whole.sample(rows).latents, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("chunk", [1, 3, 5])
def test_guidance_leads_away_from_the_cut_memory(world: World, episode: EncodedEpisode, chunk: int) -> None:
    """One Euler step, by hand; the memory that goes on is the whole one.

    Chunks of 1 and 5 have both in one pass; of 3 frames the window of 10 is no multiple, and the cut memory sees less.
    """
    model = WorldModel(replace(world.model.config, chunk_sizes=(5, 3, 1))).eval()
    model.load_state_dict(world.model.state_dict())
    passes = []
    model.register_forward_pre_hook(lambda _, given: passes.append(len(given[0])))
    world = replace(world, model=model)
    plain, guided = (replace(world, chunk=chunk).sampled_with(1, guidance=g) for g in (0.0, 0.7))
    rollout, whole, cut = started(guided, episode), started(plain, episode), started(plain, episode, memory_cut=True)
    for first in (20, 20 + chunk):
        rows = episode.conditions[first : first + chunk]
        with_memory, without = whole.sample(rows).latents, cut.sample(rows).latents
        passes.clear()
        found = rollout.sample(rows).latents
        assert passes[-2:] == ([1, 1] if chunk == 3 else [1, 2]), "what the cut memory sees, then both"
        torch.testing.assert_close(found, with_memory + 0.7 * (with_memory - without), atol=1e-5, rtol=1e-4)
        assert not torch.equal(found, with_memory)
        rollout.commit()
        for other in (whole, cut):
            assert other._sampled is not None
            other._sampled.latents = found
            other.commit()


@pytest.mark.parametrize("chunk", [1, 5])
def test_a_loop_of_ones_own_is_guided_too_also_from_a_saved_state(
    world: World, episode: EncodedEpisode, tmp_path: Path, chunk: int
) -> None:
    guided = replace(world, chunk=chunk).sampled_with(guidance=0.7)
    rollout, state, rng = started(guided, episode), guided.reset(), torch.Generator().manual_seed(0)
    guided.observe(state, episode.latents[:20], episode.conditions[:20])
    rows = episode.conditions[20 : 20 + 3 * chunk]
    for number, expected in enumerate(rollout.run(rows)):
        found = guided.generate(state, rows[number * chunk : (number + 1) * chunk], rng)
        assert torch.equal(found, expected.latents)
        state.save(tmp_path / "state.safetensors")
        state = guided.reset()
        assert state.restore(tmp_path / "state.safetensors") == {}
    branch = state.copy()
    guided.generate(branch, rows[:chunk], rng)
    assert torch.equal(state.recent.latents, rollout.recent.latents)


def test_a_moment_saved_frame_by_frame_goes_on_with_guidance_in_chunks_of_five(
    world: World, episode: EncodedEpisode, tmp_path: Path
) -> None:
    """It holds nine frames, and a chunk of five attends to five."""
    single, guided = (replace(world, chunk=chunk).sampled_with(guidance=0.7) for chunk in (1, 5))
    before = started(single, episode)
    before.save(tmp_path / "moment.safetensors")
    rollout = guided.rollout()
    rollout.load(tmp_path / "moment.safetensors")
    assert (rollout.recent.frames, guided.without_memory(rollout.state).frames_seen) == (9, 5)
    rows, both = episode.conditions[20:25], Rollout.joined([before.branch(guided, 1), rollout])
    both.reseed(0, 0)
    found = both.sample(Conditions.stack([rows] * 2)).latents
    rollout.reseed(0)
    torch.testing.assert_close(found, rollout.sample(rows).latents.repeat(2, 1, 1, 1, 1), atol=1e-4, rtol=1e-3)


def test_guidance_is_nothing_where_memory_and_window_are_the_same(world: World, episode: EncodedEpisode) -> None:
    guided, rows = world.sampled_with(guidance=1.0), episode.conditions[20:30]
    for options in ({"context": 3}, {"context": 5}, {"memory_cut": True}):
        found, expected = (latents(started(w, episode, **options), rows[:5]) for w in (guided, world))  # type: ignore[arg-type]
        assert torch.equal(found, expected), options
    with pytest.raises(LssvwmError, match="a guidance of -1; expected 0 to 100"):
        world.sampled_with(guidance=-1)


@pytest.mark.parametrize("memory_cut", [False, True])
@pytest.mark.parametrize("batch", [1, 2])
def test_a_saved_moment_goes_on_identically(
    world: World, episode: EncodedEpisode, tmp_path: Path, memory_cut: bool, batch: int
) -> None:
    rows = Conditions.stack([episode.conditions] * batch)
    rollout = Rollout(world, range(batch), memory_cut)
    rollout.observe(np.stack([episode.latents[:20]] * batch), rows[:20])
    latents(rollout, rows[20:30])
    rollout.save(tmp_path / "a.safetensors", {"pose": torch.ones(4)})
    expected = latents(rollout, rows[30:40])
    other = Rollout(world, [7] * batch, memory_cut)
    assert torch.equal(other.load(tmp_path / "a.safetensors")["pose"], torch.ones(4))
    assert torch.equal(latents(other, rows[30:40]), expected)
    with pytest.raises(LssvwmError, match="another model or batch"):
        Rollout(world, [0] * (batch + 1)).load(tmp_path / "a.safetensors")


def test_branches_go_their_own_ways(world: World, episode: EncodedEpisode) -> None:
    rollout = started(world, episode, seed=5)
    branch = rollout.branch(world, 5)
    latents(branch, episode.conditions[20:40])
    expected = latents(started(world, episode, seed=5), episode.conditions[20:30])
    assert torch.equal(latents(rollout, episode.conditions[20:30]), expected)


def test_frames_are_seen_as_their_latents(world: World, episode: EncodedEpisode) -> None:
    frames = world.decode(torch.from_numpy(episode.latents[:10]).float())
    encoded = world.encode(frames)
    assert encoded.shape == (10, 4, 4, 4)
    one, other = world.rollout(), world.rollout()
    one.observe(frames, episode.conditions[:10])
    other.observe(encoded, episode.conditions[:10])
    rows = episode.conditions[10:15]
    assert torch.equal(one.sample(rows).latents, other.sample(rows).latents)
    state = world.reset()
    made = world.generate_frames(state, rows, torch.Generator().manual_seed(0))
    assert made.shape == (1, 5, 64, 64, 3)
    assert made.dtype == np.uint8


@pytest.mark.parametrize(
    ("frames", "message"),
    [
        (np.zeros((5, 32, 32, 3), np.uint8), "expected uint8 .*64, 64, 3"),
        (np.zeros((5, 4, 8, 8), np.float32), r"expected \(1, T, 4, 4, 4\)"),
        (np.zeros((2, 5, 4, 4, 4), np.float32), r"expected \(1, T, 4, 4, 4\)"),
    ],
)
def test_frames_that_do_not_fit_are_refused(world: World, frames: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        world.rollout().observe(frames)


def test_frames_and_conditions_are_as_many(world: World, episode: EncodedEpisode) -> None:
    with pytest.raises(ValueError, match="10 frames, but 9 rows"):
        world.rollout().observe(episode.latents[:10], episode.conditions[:9])


def test_what_fits_no_chunk_is_left_out_and_said(
    world: World, episode: EncodedEpisode, caplog: pytest.LogCaptureFixture
) -> None:
    """A world that knows chunks of 5 alone sees the last 20 of 23 frames."""
    config = replace(world.model.config, chunk_sizes=(5,))
    model = type(world.model)(config).eval()
    model.load_state_dict(world.model.state_dict())
    only_fives = replace(world, model=model)
    rollout, expected = started(only_fives, episode, 23), only_fives.rollout()
    expected.observe(episode.latents[3:23], episode.conditions[3:23])
    assert "the first 3 of 23 frames are left out" in caplog.text
    rows = episode.conditions[23:28]
    assert torch.equal(rollout.sample(rows).latents, expected.sample(rows).latents)


@pytest.mark.parametrize("name", ["scan", "convolution", "values"])
def test_numbers_that_run_away_are_told_not_shown(world: World, episode: EncodedEpisode, name: str) -> None:
    """Finite numbers, as a state of elsewhere may hold, from which no frame follows."""
    rollout = started(world, episode)
    with torch.inference_mode():
        for key, tensor in rollout.state.tensors.items():
            if key.endswith(f".{name}"):
                tensor.fill_(torch.finfo(tensor.dtype).max)
    before = rollout.frames_seen
    with pytest.raises(LssvwmError, match="no frame follows: the numbers of the world's memory or weights run away"):
        for _ in rollout.run(Conditions(action=episode.actions[20:30], pose=episode.poses[20:30])):
            pass
    assert rollout.frames_seen < before + 10
