"""Dead reckoning: exact where motion is what it knows, the same in pieces, lost where an action is unknown."""

import math

import pytest
import torch

from lssvwm_core.model.config import ModelConfig
from lssvwm_core.model.odometer import Odometer
from lssvwm_core.model.world_model import WorldModel

POSE_NAMES = ("x", "y", "cos", "sin")

ACTIONS = ("noop", "forward", "left")
FRAMES = 30
# two lags: walking starts and stops slowly, turning coasts
ODOMETRY = ((0, 0, 0), (0.2, 0.01, 0), (0, 0, 0.3), (0, 0, 0), (0.05, 0, 0), (0, -0.01, 0.1))


@pytest.fixture
def odometer():
    return Odometer(ODOMETRY, len(ACTIONS))


@pytest.fixture
def actions():
    ids = torch.randint(3, (2, FRAMES), generator=torch.Generator().manual_seed(0))
    return torch.nn.functional.one_hot(ids, 3).float()


def walked(actions, start=(2.0, 3.0, 0.5)):
    """The poses that these actions lead through, one step after the other, in float64."""
    x, y, heading = start
    before, poses = torch.zeros(3), []
    for row in actions:
        forward, left, turn = (torch.cat([row, before]).double() @ torch.tensor(ODOMETRY).double()).tolist()
        along = heading + turn / 2
        x += forward * math.cos(along) - left * math.sin(along)
        y += forward * math.sin(along) + left * math.cos(along)
        heading, before = heading + turn, row
        poses.append((x, y, math.cos(heading), math.sin(heading)))
    return torch.tensor(poses, dtype=torch.float32)


def test_poses_follow_from_actions_after_the_last_that_is_known(odometer, actions):
    truth = torch.stack([walked(rows) for rows in actions])
    poses = truth.clone()
    poses[0, 10:] = torch.nan
    poses[1, 3:9] = poses[1, 20:] = torch.nan
    reckoned, state = odometer(poses, actions, odometer.initial_state(2), FRAMES)
    torch.testing.assert_close(reckoned, truth, rtol=0, atol=1e-5)
    assert torch.equal(reckoned[~poses.isnan()], truth[~poses.isnan()]), "known poses are left as they are"
    torch.testing.assert_close(state["pose"], truth[:, -1], rtol=0, atol=1e-5)


def test_without_any_pose_the_walk_begins_at_the_origin(odometer, actions):
    truth = torch.stack([walked(rows, (0.0, 0.0, 0.0)) for rows in actions])
    reckoned, _ = odometer(None, actions, odometer.initial_state(2), FRAMES)
    torch.testing.assert_close(reckoned, truth, rtol=0, atol=1e-5)


def test_successive_actions_may_do_something_together(actions):
    """Turning after walking turns less."""
    pairs = torch.zeros(9, 3)
    pairs[2 * 3 + 1, 2] = -0.1  # left, forward before
    odometer = Odometer([*ODOMETRY, *pairs.tolist()], len(ACTIONS), pairs=1)
    assert odometer.lags == 2
    poses, _ = odometer(None, actions, odometer.initial_state(2), FRAMES)
    turned = torch.atan2(poses[..., 3], poses[..., 2]).diff(dim=1)
    plain, _ = Odometer(ODOMETRY, len(ACTIONS))(None, actions, odometer.initial_state(2), FRAMES)
    expected = torch.atan2(plain[..., 3], plain[..., 2]).diff(dim=1) - 0.1 * actions[:, 1:, 2] * actions[:, :-1, 1]
    torch.testing.assert_close(turned.cos(), expected.cos(), rtol=0, atol=1e-5)
    torch.testing.assert_close(turned.sin(), expected.sin(), rtol=0, atol=1e-5)


@pytest.mark.parametrize("pairs", [0, 1])
@pytest.mark.parametrize("piece", [1, 5, 15])
def test_in_pieces_as_in_one(actions, piece, pairs):
    odometer = Odometer([*ODOMETRY, *torch.rand(9 * pairs, 3).mul(0.1).tolist()], len(ACTIONS), pairs=pairs)
    poses = torch.stack([walked(rows) for rows in actions])
    poses[:, 7:] = torch.nan
    whole, final = odometer(poses, actions, odometer.initial_state(2), FRAMES)
    state, parts = odometer.initial_state(2), []
    for start in range(0, FRAMES, piece):
        rows = slice(start, start + piece)
        part, state = odometer(poses[:, rows], actions[:, rows], state, piece)
        parts.append(part)
    torch.testing.assert_close(torch.cat(parts, dim=1), whole, rtol=0, atol=1e-5)
    torch.testing.assert_close(state, final, rtol=0, atol=1e-5)


def test_an_unknown_action_loses_the_way_until_a_pose_is_known(odometer, actions):
    poses = torch.full((2, FRAMES, 4), torch.nan)
    poses[:, 20] = torch.tensor([1.0, 2.0, 1.0, 0.0])
    actions[:, 10] = torch.nan
    reckoned, _ = odometer(poses, actions, odometer.initial_state(2), FRAMES)
    lost = reckoned.isnan().any(dim=-1)
    assert not lost[:, :10].any()
    assert lost[:, 10:20].all()
    assert not lost[:, 20:].any()
    nothing, state = odometer(None, None, odometer.initial_state(2), FRAMES)
    assert nothing.isnan().all()
    assert odometer(None, actions[:, :5], state, 5)[0].isnan().all(), "lost for good"


def test_after_a_full_turn_by_actions_a_world_reads_where_it_wrote():
    """Half a turn from there it does not."""
    turn = 2 * math.pi / 20
    config = ModelConfig(
        (4, 2, 2), ACTIONS, POSE_NAMES, odometry=((0, 0, 0), (0, 0, 0), (0, 0, turn)), width=32, depth=1,
        headdim=16, d_state=64, block_sizes=((1, 1),), mixers=("scan",), frame_window=5,
    )  # fmt: skip
    model = WorldModel(config)
    assert model.odometer is not None
    address = model.layers[0].mixers[0].address
    actions = torch.tensor([0.0, 0.0, 1.0]).repeat(1, 40, 1)
    poses, _ = model.odometer(None, actions, model.initial_state(1).mixers[-1], 40)
    written, read = address(poses)
    likeness = (written @ read.transpose(1, 2))[0]  # (40, 40)
    assert torch.allclose(likeness[:20, :20].diagonal(), likeness[20:, :20].diagonal(), rtol=1e-3)
    assert (likeness[20:, :20].diagonal() > likeness[10:30, :20].diagonal() + 10).all()


def test_other_columns_of_a_pose_are_reckoned_beside_its_plane(odometer, actions):
    """A height that the second action adds to, and a pitch that the third does; columns in another order."""
    kinds = ("z", "sin", "x", "pitch", "y", "cos")
    added = torch.tensor([[0, 0], [0.5, 0], [0, -0.1]] + [[0, 0]] * 3)
    other = Odometer(torch.cat([torch.tensor(ODOMETRY), added], dim=1).tolist(), len(ACTIONS), kinds)
    plane = torch.stack([walked(rows) for rows in actions])
    others = (actions @ added[:3]).cumsum(dim=1) + torch.tensor([64.0, 0.3])
    names = ("x", "y", "cos", "sin", "z", "pitch")
    columns = dict(zip(names, torch.cat([plane, others], dim=2).unbind(-1), strict=True))
    truth = torch.stack([columns[kind] for kind in kinds], dim=-1)
    poses = truth.clone()
    poses[0, 10:] = poses[1, 3:9] = torch.nan
    poses[1, 12:, 0] = torch.nan  # a row of which the height alone is unknown
    reckoned, state = other(poses, actions, other.initial_state(2), FRAMES)
    torch.testing.assert_close(reckoned, truth, rtol=0, atol=1e-4)
    assert torch.equal(reckoned[~poses.isnan()], poses[~poses.isnan()])
    torch.testing.assert_close(state["pose"], truth[:, -1], rtol=0, atol=1e-4)
    origin = dict(zip(kinds, other.initial_state(1)["pose"][0].tolist(), strict=True))
    assert origin == {"x": 0, "y": 0, "z": 0, "pitch": 0, "cos": 1, "sin": 0}


def test_a_world_whose_poses_have_a_height_reckons_them_too():
    names = ("x", "y", "z", "cos", "sin", "pitch")
    rows = [[0.0] * 5, [0.2, 0, 0, 0.1, 0], [0, 0, 0.3, 0, 0]]
    config = ModelConfig(
        (4, 2, 2), ACTIONS, names, odometry=rows, width=32, depth=1, headdim=16, d_state=16,
        block_sizes=((1, 1),), mixers=("scan",), frame_window=5,
    )  # fmt: skip
    model = WorldModel(config)
    state = model.initial_state(1)
    actions = torch.eye(3)[[1, 1, 2, 1, 0]][None]
    _, state = model(torch.zeros(1, 5, 4, 2, 2), torch.zeros(1, 5), {"action": actions}, state, 5)
    expected = [0.4 + 0.2 * math.cos(0.3), 0.2 * math.sin(0.3), 0.3, math.cos(0.3), math.sin(0.3), 0.0]
    torch.testing.assert_close(state.mixers[-1]["pose"][0], torch.tensor(expected))


def test_odometry_that_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="each of 5 numbers"):
        ModelConfig((4, 2, 2), ACTIONS, ("x", "y", "z", "cos", "sin", "pitch"), odometry=((0.0, 0.0, 0.0),) * 3)
    with pytest.raises(ValueError, match="odometry has 4 rows, expected a multiple of the 3 actions"):
        ModelConfig((4, 2, 2), ACTIONS, POSE_NAMES, odometry=((0.0, 0.0, 0.0),) * 4)
    with pytest.raises(ValueError, match=r"odometry has 9 rows, .* 9 more for each of 1 pairs"):
        ModelConfig((4, 2, 2), ACTIONS, POSE_NAMES, odometry=((0.0, 0.0, 0.0),) * 9, odometry_pairs=1)
    with pytest.raises(ValueError, match="odometry is for actions and poses with a position"):
        ModelConfig((4, 2, 2), ACTIONS, ("x", "yaw"), odometry=((0.0, 0.0, 0.0),) * 3)
