"""Canonical poses: whatever a recording's columns, units and order, the same world gives the same poses."""

import numpy as np
import pytest
from numpy.typing import NDArray

from lssvwm_datasets.poses import Plane, canonical, kinds_of, plane_of

T = 50


@pytest.fixture
def walk() -> dict[str, NDArray[np.float64]]:
    rng = np.random.default_rng(0)
    angles = {kind: rng.uniform(-3, 3, T) for kind in ("heading", "pitch")}
    return {kind: rng.normal(size=T).cumsum() for kind in ("x", "y", "z")} | angles


def stacked(walk: dict[str, NDArray[np.float64]], *kinds: str) -> NDArray[np.float64]:
    return np.stack([walk[kind] for kind in kinds], axis=1)


def test_units_and_order_do_not_matter(walk: dict[str, NDArray[np.float64]]) -> None:
    kinds = ("x", "y", "z", "heading", "pitch")
    poses, names = canonical(stacked(walk, *kinds), kinds)
    assert names == ("x", "y", "z", "cos", "sin", "pitch")
    assert poses.dtype == np.float32
    other = {kind: np.degrees(rows) if kind in ("heading", "pitch") else 64 * rows for kind, rows in walk.items()}
    order = ("pitch", "z", "heading", "y", "x")
    again, same = canonical(stacked(other, *order), order, degrees=True, unit=64)
    assert same == names
    np.testing.assert_allclose(again, poses, atol=1e-6)
    np.testing.assert_allclose(np.arctan2(poses[:, 4], poses[:, 3]), walk["heading"], atol=1e-6)


def test_turns_have_no_seam() -> None:
    degrees = np.array([[359.0], [1.0], [-359.0], [361.0], [181.0]])
    poses, names = canonical(degrees, ("heading",), degrees=True)
    assert names == ("cos", "sin")
    np.testing.assert_allclose(poses[1], poses[3], atol=1e-6)
    np.testing.assert_allclose(poses[1], poses[2], atol=1e-6)
    assert np.linalg.norm(poses[0] - poses[1]) == pytest.approx(np.radians(2), rel=1e-3)
    assert np.linalg.norm(poses[1] - poses[4]) == pytest.approx(2)


def test_positions_from_the_first_frame_on_keep_their_distances_however_far(
    walk: dict[str, NDArray[np.float64]],
) -> None:
    kinds = ("x", "z", "heading")
    near, _ = canonical(stacked(walk, *kinds), kinds, relative=True)
    far, _ = canonical(stacked(walk, *kinds) + np.array([3e7, 1e5, 0]), kinds, relative=True)
    np.testing.assert_array_equal(near[0, :2], 0)
    np.testing.assert_allclose(far, near, atol=1e-4)


def test_what_is_canonical_stays_as_it_is(walk: dict[str, NDArray[np.float64]]) -> None:
    poses, names = canonical(stacked(walk, "x", "y", "heading"), ("x", "y", "heading"))
    again, same = canonical(poses, names)
    assert same == names
    np.testing.assert_array_equal(again, poses)


@pytest.mark.parametrize(
    "kinds",
    [("x", "y"), ("x", "y", "other"), ("x", "x", "y"), ("x", "y", "cos"), ("cos", "sin", "heading"), ("x", "y", "yaw")],
)
def test_kinds_that_do_not_fit_are_refused(kinds: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match="kinds"):
        canonical(np.zeros((T, 3)), kinds)


@pytest.mark.parametrize(
    ("names", "kinds"),
    [
        (("x", "y", "cos", "sin"), ("x", "y", "cos", "sin")),
        (("x", "y"), ("x", "y")),
        ((), ()),
        (("x", "y", "z", "pitch", "yaw"), ("other",) * 5),
    ],
)
def test_names_tell_kinds_where_all_of_them_do(names: tuple[str, ...], kinds: tuple[str, ...]) -> None:
    """The last are WorldMem's as they were prepared before: y is a height there, and angles are degrees."""
    assert kinds_of(names) == kinds


def test_a_plane_is_found_by_kinds_wherever_it_is() -> None:
    assert plane_of(("z", "sin", "y", "cos", "x")) == Plane(x=4, y=2, cos=3, sin=1)
    assert plane_of(("a", "b", "c", "d"), ("cos", "sin", "y", "x")) == Plane(x=3, y=2, cos=0, sin=1)
    assert plane_of(("x", "y", "z", "pitch")) is None
    assert plane_of(("x", "y", "z", "pitch", "yaw")) is None
    for kinds in (("x",), ("x", "height")):
        with pytest.raises(ValueError, match="expected one of x, y, z, cos, sin, pitch, other"):
            kinds_of(("a", "b"), kinds)
