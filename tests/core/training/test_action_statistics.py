"""One-hot, binary and continuous action columns: statistics in the index, and all of them in the model."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from lssvwm_core.model.config import ModelConfig
from lssvwm_core.model.world_model import WorldModel
from lssvwm_core.prepare.index import write_index
from lssvwm_core.training.run.folder import Run
from lssvwm_core.world import load_model, load_world
from lssvwm_datasets.episode import Episode
from lssvwm_datasets.frames import FrameParts
from lssvwm_datasets.shard_writer import ShardWriter
from lssvwm_datasets.shards import open_shards
from tests.conftest import lssvwm, train_command

NAMES = ("stay", "go", "jump", "attack", "camera_pitch", "camera_yaw")
UNITS = ("one-hot", "one-hot", "binary", "binary", "degrees", "degrees")
LENGTHS = {"train": (60, 45), "validation": (40,)}


def actions(rng: np.random.Generator, length: int) -> np.ndarray:
    one_hot = np.eye(2)[rng.integers(0, 2, length)]
    rows = np.concatenate([one_hot, rng.integers(0, 2, (length, 2)), rng.normal((0, 5), (2, 30), (length, 2))], axis=1)
    rows[0] = 0
    return rows.astype(np.float32)


@pytest.fixture(scope="module")
def mixed(workspace: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, np.ndarray]:
    """A user's folder with shards of mixed actions, data/mixed, and the actions of its train split."""
    folder = tmp_path_factory.mktemp("mixed")
    data = folder / "data/mixed"
    shutil.copytree(workspace / "data/maze/autoencoder", data / "autoencoder")
    header = replace(
        open_shards(workspace / "data/maze", "train").header,
        dataset="mixed",
        action_names=NAMES,
        action_units=UNITS,
        pose_names=(),
    )
    rng, train = np.random.default_rng(0), []
    for split, lengths in LENGTHS.items():
        name = f"{split}-00000-of-00001.h5"
        with ShardWriter(data / name, header, split, "plan", keep_frames=False) as writer:
            writer.file.attrs["shards"] = json.dumps([(split, 1) for split in LENGTHS])
            for number, length in enumerate(lengths):
                rows = actions(rng, length)
                frames = FrameParts.of(np.zeros((length, 64, 64, 3), np.uint8))
                episode = Episode(
                    f"{split}{number}", frames, (64, 64), rows, NAMES, UNITS, header.source_alignment, header.fps
                )
                writer.add(episode, lambda part: rng.normal(size=(len(part), *header.latent_shape)).astype(np.float16))
                train += [rows] if split == "train" else []
    write_index(data)
    return folder, np.concatenate(train)


def test_the_index_has_statistics_of_continuous_columns_alone(mixed: tuple[Path, np.ndarray]) -> None:
    folder, train = mixed
    index = json.loads((folder / "data/mixed/dataset.json").read_text())
    assert list(index["action_statistics"]) == ["camera_pitch", "camera_yaw"]
    for column, name in ((4, "camera_pitch"), (5, "camera_yaw")):
        assert index["action_statistics"][name]["mean"] == pytest.approx(train[:, column].mean(), rel=1e-4)
        assert index["action_statistics"][name]["std"] == pytest.approx(train[:, column].std(), rel=1e-4)
    assert index["action_counts"]["jump"] >= (train[:, 2] != 0).sum()


def test_a_model_normalises_as_its_saved_header_says(mixed: tuple[Path, np.ndarray]) -> None:
    folder, train = mixed
    data = ("--data", "data/mixed", "--set", "model.recall=0")  # no poses to remember by
    lssvwm(folder, *train_command("run", 2, *data))
    world = Run(folder / "runs/run").world
    scaling = json.loads((world / "config.json").read_text())["model"]["action_scaling"]
    assert scaling[:4] == [[0, 1]] * 4
    model, _, _ = load_model(world)
    stream = model.streams["action"]
    seen: list[torch.Tensor] = []
    stream.embed.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    stream(torch.from_numpy(train)[None], (1, len(train)))
    np.testing.assert_array_equal(seen[0][0, :, :4], train[:, :4])
    np.testing.assert_allclose(seen[0][0, :, 4:].mean(dim=0), 0, atol=1e-4)
    np.testing.assert_allclose(seen[0][0, :, 4:].std(dim=0, correction=0), 1, rtol=1e-4)

    shutil.copytree(folder / "data/mixed", folder / "data/later")  # other statistics: the weights know the first ones
    index = json.loads((folder / "data/later/dataset.json").read_text())
    index["action_statistics"]["camera_yaw"] = {"mean": 100.0, "std": 1.0}
    (folder / "data/later/dataset.json").write_text(json.dumps(index))
    lssvwm(folder, *train_command("child", 2, "--data", "data/later", "--init-from", "run", "--set", "model.recall=0"))
    assert load_model(Run(folder / "runs/child").world)[0].config == model.config
    world_loaded = load_world(world, torch.device("cpu"))
    assert torch.equal(world_loaded.model.streams["action"].std, stream.std)


def test_every_column_reaches_the_velocity() -> None:
    torch.manual_seed(0)
    scaling = ((0.0, 1.0),) * 4 + ((0.0, 2.0), (5.0, 30.0))
    small = {"width": 32, "depth": 1, "headdim": 16, "d_state": 8, "block_sizes": ((1, 1),)}
    config = ModelConfig((4, 2, 2), NAMES, action_scaling=scaling, **small)
    model = WorldModel(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    rows = torch.randn(1, 5, len(NAMES), requires_grad=True)
    velocity, _ = model(torch.randn(1, 5, 4, 2, 2), torch.ones(1, 5), {"action": rows})
    velocity.square().sum().backward()
    assert rows.grad is not None
    assert (rows.grad.abs().sum(dim=(0, 1)) > 0).all()


def test_scaling_of_other_columns_is_refused() -> None:
    with pytest.raises(ValueError, match="action_scaling has 1 rows for 6 actions"):
        ModelConfig((4, 4, 4), NAMES, action_scaling=((0.0, 1.0),))
