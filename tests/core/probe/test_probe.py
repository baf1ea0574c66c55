"""What a memory knows: reads of its state, examples of recordings, and a probe that finds what is there."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from lssvwm_cli.app import app
from lssvwm_core import World, load_episode, load_world
from lssvwm_core.model.config import ModelConfig
from lssvwm_core.model.world_model import WorldModel
from lssvwm_core.probe import report
from lssvwm_core.probe.examples import CUT, MEMORY, POSE, Examples, cell_centres, gather, views
from lssvwm_core.probe.map_probe import cells_of, errors, new_probe, train_probe
from lssvwm_core.probe.reads import WIDTH, MemoryReads
from lssvwm_datasets.errors import LssvwmError
from lssvwm_datasets.poses import Plane
from lssvwm_datasets.sources import VALIDATION, find_recordings, sample_recordings

GOLDEN = Path(__file__).parents[2] / "golden"
SIDE, OBJECTS, FEATURES = 5, 2, 6


@pytest.fixture(scope="module")
def world() -> World:
    return load_world(GOLDEN / "runs/test", "cpu")


def examples(seed: int, count: int = 120) -> Examples:
    """Maps whose memory holds, among noise, walls in its first number and objects in the next; cut, it has noise."""
    generator = torch.Generator().manual_seed(seed)
    free = (torch.rand(count, SIDE**2, generator=generator) < 0.6).float()
    objects = torch.rand(count, OBJECTS, 2, generator=generator) * SIDE
    places = torch.rand(count, 2, generator=generator) * SIDE
    reads = {name: torch.randn(count, SIDE**2, FEATURES, generator=generator) for name in (MEMORY, CUT)}
    found = Examples(
        reads,
        torch.tensor([100, 500]).repeat(count // 2),
        torch.cat([places, torch.tensor([[1.0, 0.0]]).expand(count, 2)], dim=1),
        free,
        objects,
        SIDE,
    )
    reads[MEMORY][..., 0] += 5 * free
    reads[MEMORY][..., 1 : 1 + OBJECTS] += 5 * torch.nn.functional.one_hot(cells_of(found), SIDE**2).mT
    return found


def test_a_probe_finds_what_the_memory_holds_and_nothing_where_it_holds_nothing() -> None:
    train, held_out = examples(0), examples(1)
    found = {}
    for what in (MEMORY, CUT, POSE):
        probe = new_probe(train, what, 32, 0)
        assert list(train_probe(probe, train, what, 400, 0)) == list(range(1, 401))
        found[what] = errors(probe, held_out, what)
    found["constant"] = report.constant(train, held_out)
    figures = report.figures(found, held_out.steps)
    everything = {name: groups["500 and more"] for name, groups in figures.items()}
    assert everything[MEMORY]["walls"] > 0.95
    assert everything[MEMORY]["objects"] < 1.0
    for name in (CUT, POSE, "constant"):
        assert everything[name]["walls"] < 0.7
        assert everything[name]["objects"] > 1.5
    assert set(figures[MEMORY]) == {"100", "500", "500 and more"}
    text = report.markdown(figures)
    for name, both in everything.items():
        assert f"| {both['walls']:.1%} |" in text, name
        assert f"| {both['objects']:.2f} |" in text, name


def test_reads_are_what_a_layer_looks_up(world: World) -> None:
    """A projection of h·C of every pose-addressed scan: linear in the state, other at other poses, no side effects."""
    reads = MemoryReads(world.model)
    scans = [mixer for mixer in world.model.mixers if mixer.uses_poses]
    assert reads.width == WIDTH * len(scans)
    episode = load_episode(world, GOLDEN / "data/maze")
    rollout = world.rollout()
    rollout.observe(episode.latents[:40], episode.conditions[:40])
    before = {name: tensor.clone() for name, tensor in rollout.state.tensors.items()}
    poses = episode.conditions["pose"][:, :6]
    found = reads(rollout.state, poses)
    assert found.shape == (1, 6, reads.width)
    assert all(torch.equal(before[name], tensor) for name, tensor in rollout.state.tensors.items())
    assert not torch.allclose(found[:, 0], reads(rollout.state, poses + 3)[:, 0])
    assert not reads(world.reset(), poses).any(), "a world that has seen nothing"
    doubled = rollout.state.copy()
    for part in doubled.mixers:
        for tensor in part.values():
            tensor *= 2
    torch.testing.assert_close(reads(doubled, poses), 2 * found)


def test_a_memory_by_least_squares_is_read_too() -> None:
    config = ModelConfig(
        (4, 4, 4), ("a",), pose_names=("x", "y", "cos", "sin"), width=32, depth=1, headdim=16, d_state=16, recall=16
    )
    model = WorldModel(config).eval()
    reads = MemoryReads(model)
    found = reads(model.initial_state(2), torch.zeros(2, 3, 4))
    assert found.shape == (2, 3, reads.width)
    torch.testing.assert_close(found[..., -1], torch.ones(2, 3))  # everything is new
    with pytest.raises(ValueError, match="no memory of this model is addressed by poses"):
        MemoryReads(WorldModel(ModelConfig((4, 4, 4), ("a",), width=32, depth=1, headdim=16, d_state=16)))


def test_examples_are_of_the_recorded_map(world: World) -> None:
    recordings = [one for one in find_recordings(sample_recordings()) if one.split == VALIDATION]
    done: list[int] = []
    found = gather(recordings, VALIDATION, world, lambda count, note: done.append(count), (50, 100, 5000))
    assert done == [0, 1]
    assert found.steps.tolist() == [50, 100], "the recording has no 5000 steps"
    arrays = np.load(recordings[0].path)
    assert np.array_equal(found.free[0].reshape(9, 9).numpy(), arrays["maze_layout"][0])
    np.testing.assert_allclose(found.objects[0], arrays["targets_pos"][0], atol=1e-5)
    np.testing.assert_allclose(report.from_agent(found), arrays["targets_vec"][[50, 100]], atol=1e-4)
    assert not torch.equal(found.reads[MEMORY], found.reads[CUT])
    x, y = cell_centres(9)[9 * 3 + 5].tolist()
    assert (x, y) == (5.5, 3.5)
    looked = views(np.array([1, 2, 0, 1], np.float32), Plane(0, 1, 2, 3), 9)
    assert looked.shape == (81 * 4, 4)
    np.testing.assert_allclose(looked[4 * (9 * 3 + 5) + 1], [5.5, 3.5, 0, 1], atol=1e-6)


def test_recordings_that_tell_no_map_are_refused(world: World, tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()
    images, poses = np.zeros((60, 64, 64, 3), np.uint8), np.zeros((60, 2))
    np.savez(tmp_path / "train/a.npz", image=images, action=np.zeros(60, int), agent_pos=poses, agent_dir=poses)
    with pytest.raises(LssvwmError, match="no recordings; a probe needs recordings of at least 20 steps"):
        gather(find_recordings(tmp_path), "train", world, lambda count, note: None, (20,))


def test_the_command_probes_the_samples(tmp_path: Path) -> None:
    command = ["probe", "--checkpoint", str(GOLDEN / "runs/test"), "--steps", "20,40", "--training-steps", "2"]
    done = CliRunner().invoke(app, [*command, "--width", "8", "--out", str(tmp_path), "--json"])
    assert done.exit_code == 0, done.output
    figures = json.loads(done.stdout)
    assert set(figures) == {MEMORY, CUT, POSE, "constant"}
    assert json.loads((tmp_path / "probe.json").read_text())["train_examples"] == 6
    assert "walls, accuracy" in (tmp_path / "probe.md").read_text()
    failed = CliRunner().invoke(app, [*command[:-2], "--steps", "x"])
    assert isinstance(failed.exception, LssvwmError)
