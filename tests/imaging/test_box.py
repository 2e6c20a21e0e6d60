"""Boxes of voxels: around a mask, with a margin in millimetres, and without specks; all worked by hand."""

import numpy as np
import pytest

from spleen.imaging.geometry import Box, box_around
from spleen.imaging.postprocessing import without_specks

SHAPE = (20, 9, 12)


def test_the_box_around_a_mask_is_the_smallest_one() -> None:
    mask = np.zeros(SHAPE, bool)
    mask[3, 2, 11] = mask[7, 5, 4] = True
    assert box_around(mask) == Box((3, 2, 4), (8, 6, 12))
    assert Box((3, 2, 4), (8, 6, 12)).shape == (5, 4, 8)
    assert mask[Box((3, 2, 4), (8, 6, 12)).slices].sum() == 2
    assert box_around(np.zeros(SHAPE, bool)) is None


def test_a_margin_is_in_millimetres_along_each_axis_and_ends_at_the_border() -> None:
    """10 mm are 12.5 voxels of 0.8 mm, 8 voxels of 1.25 mm, and 2 of 5 mm: exactly, so that nothing is rounded up."""
    affine = np.diag([0.8, 1.25, 5.0, 1.0]).astype(np.float32).astype(np.float64)
    grown = Box((15, 4, 4), (17, 5, 9)).grown(10, affine, (40, 9, 12))
    assert grown == Box((2, 0, 2), (30, 9, 11))
    assert Box((15, 4, 4), (17, 5, 9)).grown(0, affine, (40, 9, 12)) == Box((15, 4, 4), (17, 5, 9))


def test_a_rotation_changes_no_margin_and_a_shear_widens_it() -> None:
    spacing, angle = np.diag([2.0, 3.0, 4.0]), np.radians(20)
    rotation = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    oblique, sheared = np.eye(4), np.eye(4)
    oblique[:3, :3] = rotation @ spacing
    assert Box((9, 4, 5), (10, 5, 6)).grown(6, oblique, SHAPE) == Box((6, 2, 3), (13, 7, 8))
    # k leans by 60° towards j: planes across j are 3 × cos 60° = 1.5 mm apart, so 6 mm are 4 of them.
    sheared[:3, :3] = np.column_stack([(2, 0, 0), (0, 3, 0), (0, 4 * np.sin(np.radians(60)), 2)])
    assert Box((9, 4, 5), (10, 5, 6)).grown(6, sheared, SHAPE) == Box((6, 0, 2), (13, 9, 9))


@pytest.mark.parametrize(("fraction", "kept"), [(0.1, [8, 2]), (0.25, [8, 2]), (0.26, [8])])
def test_specks_are_components_below_a_fraction_of_the_largest(fraction: float, kept: list[int]) -> None:
    mask = np.zeros(SHAPE, bool)
    mask[1:3, 1:3, 1:3] = True  # 8 voxels
    mask[10, 5:7, 7] = True  # 2 voxels
    cleaned = without_specks(mask, fraction)
    assert cleaned.sum() == sum(kept)
    assert cleaned[1:3, 1:3, 1:3].all()
    assert not without_specks(np.zeros(SHAPE, bool), 0.1).any()
