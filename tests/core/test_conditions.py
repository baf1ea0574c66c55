"""Streams by name, sliced, joined and dropped together."""

import numpy as np
import pytest
import torch

from lssvwm_core.conditions import Conditions


def rows(frames: int = 6) -> Conditions:
    return Conditions(
        action=np.arange(2.0 * frames).reshape(frames, 2), pose=torch.arange(3.0 * frames).reshape(1, frames, 3)
    )


def test_a_mapping_of_float32_rows() -> None:
    conditions = rows()
    assert {name: tuple(tensor.shape) for name, tensor in conditions.items()} == {
        "action": (1, 6, 2),
        "pose": (1, 6, 3),
    }
    assert all(tensor.dtype == torch.float32 for tensor in conditions.values())
    assert (conditions.frames, conditions.batch, conditions.get("mood")) == (6, 1, None)
    assert (Conditions().frames, Conditions().batch, len(Conditions()[2:4])) == (0, 0, 0)


def test_pieces_put_together_are_the_whole() -> None:
    conditions = rows()
    joined = Conditions.cat([conditions[:2], conditions[2:5], conditions[5:]])
    assert all(torch.equal(joined[name], conditions[name]) for name in conditions)
    side_by_side = Conditions.stack([conditions, conditions])
    assert side_by_side.batch == 2
    assert torch.equal(side_by_side["pose"][1:], conditions["pose"])


def test_the_last_row_is_repeated() -> None:
    padded = rows().padded(8)
    assert padded.frames == 8
    assert torch.equal(padded["action"][:, 6:], padded["action"][:, 5:6].expand(-1, 2, -1))
    assert torch.equal(padded[:6]["pose"], rows()["pose"])


def test_streams_are_left_out_or_unknown() -> None:
    assert list(rows().only(["pose", "mood"])) == ["pose"]
    blind = rows().unknown("pose")
    assert blind["pose"].isnan().all()
    assert torch.equal(blind["action"], rows()["action"])


@pytest.mark.parametrize(
    "wrong", [{"action": np.zeros((6, 2)), "pose": np.zeros((5, 3))}, {"action": np.zeros(6)}, {"action": 3}]
)
def test_shapes_that_do_not_fit_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"different batches or frames|expected \(frames, columns\)"):
        Conditions(wrong)
