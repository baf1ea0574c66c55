"""Frames a part at a time: the same parts however they are read."""

import numpy as np
import pytest

from lssvwm_datasets.frames import PART_FRAMES, FrameParts

FRAMES = np.arange(70, dtype=np.uint8)[:, None, None, None] * np.ones((1, 4, 6, 3), np.uint8)


@pytest.mark.parametrize("cuts", [[], [1], [0, 3, 3, 40], list(range(70)), [PART_FRAMES], [5, 69]])
def test_parts_are_the_same_however_they_are_read_and_can_be_read_again(cuts: list[int]) -> None:
    parts = FrameParts(lambda: np.split(FRAMES, cuts), len(FRAMES))
    for _ in range(2):
        read = list(parts)
        assert [len(part) for part in read] == [PART_FRAMES, PART_FRAMES, 70 - 2 * PART_FRAMES]
        np.testing.assert_array_equal(np.concatenate(read), FRAMES)


def test_frames_in_memory_are_not_copied() -> None:
    assert all(np.shares_memory(part, FRAMES) for part in FrameParts.of(FRAMES))


def test_another_number_of_frames_than_promised_is_an_error() -> None:
    with pytest.raises(ValueError, match="read 70 frames, expected 71"):
        list(FrameParts(lambda: [FRAMES], 71))
