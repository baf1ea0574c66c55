"""Poses as addresses: what is looked up is what was written from there."""

import pytest
import torch
from torch.nn import functional as F

from lssvwm_core.model.address import PoseAddress
from lssvwm_core.model.mamba import BlockScan
from lssvwm_core.model.mixer import MixerContext
from lssvwm_core.scan import ssd_scan


@pytest.fixture(scope="module")
def address():
    torch.manual_seed(0)
    return PoseAddress(2, 256)


@torch.no_grad()
def test_the_product_of_two_addresses_falls_with_their_distance(address):
    x = torch.linspace(0, 3, 31)
    written, read = address(torch.stack([x, torch.zeros(31)], dim=-1)[None])
    products = (written[0, :1] @ read[0].T)[0] / 128  # with the first pose
    assert products[0] == pytest.approx(1)
    assert (products[:6].diff() < 0).all()
    assert products[20:].abs().max() < 0.35


@torch.no_grad()
def test_an_unknown_pose_has_no_address(address, normal):
    poses = normal(2, 5, 2)
    poses[0, 3] = torch.nan
    for part in address(poses):
        assert (part[0, 3] == 0).all()
        assert part[1].abs().sum(dim=-1).min() > 0


@torch.no_grad()
def test_a_frame_reads_what_was_written_from_its_pose(address, normal):
    """Forty places, a value seen at each; walking back, every pose reads the value of its place."""
    places = 2.0 * torch.cartesian_prod(torch.arange(8), torch.arange(5))[None]
    values = normal(1, 40, 1, 64)
    poses, x = torch.cat([places, places.flip(1)], dim=1), torch.cat([values, torch.zeros_like(values)], dim=1)
    B, C = (part[:, :, None] for part in address(poses))
    y = ssd_scan(x, torch.full((1, 80, 1), 0.1), torch.tensor([-1e-3]), B, C)[0, 40:, 0].flip(0)
    similarity = F.cosine_similarity(y[:, None], values[0, :, 0][None], dim=-1)
    assert similarity.argmax(dim=1).tolist() == list(range(40))


@torch.no_grad()
def test_a_stream_with_poses_in_pieces_is_the_whole(normal):
    torch.manual_seed(0)
    scan = BlockScan(32, (1, 2), headdim=16, d_state=16, pose_columns=2)
    x, poses = normal(2, 7, 2, 4, 32), normal(2, 7, 2, seed=1)
    poses[0, 2] = torch.nan
    whole, _ = scan(x, scan.initial_state(2, (2, 4)), MixerContext(0, 1, poses))
    outputs, state = [], scan.initial_state(2, (2, 4))
    for piece, places in zip(x.split([3, 1, 3], dim=1), poses.split([3, 1, 3], dim=1), strict=True):
        y, state = scan(piece, state, MixerContext(0, 1, places))
        outputs.append(y)
    torch.testing.assert_close(torch.cat(outputs, dim=1), whole, rtol=1e-4, atol=1e-5)
