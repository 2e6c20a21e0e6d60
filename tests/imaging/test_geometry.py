from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from nibabel.affines import apply_affine
from scipy.spatial.transform import Rotation

from spleen.errors import InputError
from spleen.imaging.geometry import (
    check_affine,
    check_same_grid,
    grid_distance_mm,
    orientation,
    reorient_to_ras,
    restore_orientation,
    spacing_mm,
)
from spleen.imaging.nifti import read_image
from spleen.imaging.slicing import to_slices
from tests._helpers.nifti import ORIENTATIONS, SHAPE, SPACING_MM, counting, ras_affine, save, stored_as


def _voxels_at(array, affine):
    """Each voxel value with its world position in mm, which reorientation must preserve."""
    index = np.moveaxis(np.indices(array.shape), 0, -1).reshape(-1, 3)
    return {
        value: tuple(place) for value, place in zip(array.ravel(), apply_affine(affine, index).round(6), strict=True)
    }


def _oblique():
    """RAS rotated by 20° and 10°, as in an oblique scan."""
    affine = ras_affine()
    affine[:3, :3] = Rotation.from_euler("xz", [20, 10], degrees=True).as_matrix() @ affine[:3, :3]
    return affine


@pytest.mark.parametrize("world", [ras_affine(), _oblique()], ids=["axis-aligned", "oblique"])
@pytest.mark.parametrize("stored", ORIENTATIONS)
def test_every_orientation_is_converted_to_ras_and_back(stored, world):
    array, affine = stored_as(stored, counting(), world)
    assert orientation(affine) == stored
    ras, reoriented = reorient_to_ras(array, affine)
    np.testing.assert_array_equal(ras, counting())
    np.testing.assert_allclose(reoriented, world, atol=1e-9)
    assert _voxels_at(ras, reoriented) == _voxels_at(array, affine)
    np.testing.assert_array_equal(restore_orientation(ras, affine), array)


def test_spacing_follows_the_array_axes_of_an_oblique_volume():
    _, affine = stored_as("SLP", counting(), _oblique())
    assert spacing_mm(affine) == pytest.approx((5.0, 0.8, 0.8))


@pytest.mark.parametrize("stored", ["RAS", "PIR", "LSA", "ASL", "IPL"])
@pytest.mark.parametrize(
    ("axis", "across", "rows", "columns"), [("sagittal", 0, 2, 1), ("coronal", 1, 2, 0), ("axial", 2, 1, 0)]
)
def test_slices_follow_the_anatomy_not_the_array_axes(tmp_path: Path, stored, axis, across, rows, columns):
    """Three files whose voxels hold their world x, y or z in mm: constant in a slice, or rising along one axis."""
    index = np.moveaxis(np.indices(SHAPE), 0, -1)
    world = apply_affine(ras_affine(), index).astype(np.float32)
    stacks = []
    for direction in range(3):
        path = save(tmp_path / f"{direction}.nii", *stored_as(stored, world[..., direction], ras_affine()))
        stacks.append(to_slices(read_image(path).array, axis))
    assert np.ptp(stacks[across], axis=(1, 2)).max() == 0
    assert len(stacks[across]) == SHAPE[across]
    np.testing.assert_allclose(np.diff(stacks[across], axis=0), SPACING_MM[across], rtol=1e-5)
    np.testing.assert_allclose(np.diff(stacks[rows], axis=1), SPACING_MM[rows], rtol=1e-5)
    np.testing.assert_allclose(np.diff(stacks[columns], axis=2), SPACING_MM[columns], rtol=1e-5)


def test_the_grid_distance_is_that_of_the_farthest_voxels():
    turned = ras_affine()
    turned[:3, 0] = (0.8, 0.3, 0.4)  # 0.5 mm off per step along i, over 4 steps
    assert grid_distance_mm(SHAPE, ras_affine(), turned) == pytest.approx(4 * 0.5)


def test_grids_beyond_the_tolerance_are_rejected_with_their_distance():
    shifted = ras_affine()
    shifted[1, 3] += 1.0
    with pytest.raises(InputError, match=r"1 mm apart, the tolerance is 0\.5 mm.*resample"):
        check_same_grid((SHAPE, SHAPE), (ras_affine(), shifted), 0.5)
    check_same_grid((SHAPE, SHAPE), (ras_affine(), shifted), 1.001)


def test_grids_of_different_shapes_are_rejected_with_both_shapes():
    with pytest.raises(InputError, match=r"5 × 7 × 3 and 5 × 7 × 4"):
        check_same_grid((SHAPE, (5, 7, 4)), (ras_affine(), ras_affine()), 1e6)


@pytest.mark.parametrize(
    ("column", "message"),
    [
        ((0.0, 0.0, 0.0), "singular"),
        ((1.6, 0.0, 0.0), "singular"),  # parallel to the first axis
        ((-4e9, 0.8, 0.0), "singular"),  # nearly parallel to the first axis
        ((-4e34, 0.8, 0.0), r"lengths over 1e\+12 mm"),
        ((np.nan, 0.8, 0.0), "NaN"),
    ],
)
def test_a_degenerate_affine_is_rejected(column, message):
    affine = ras_affine()
    affine[:3, 1] = column
    with pytest.raises(InputError, match=message):
        check_affine(affine)


def test_a_spacing_of_half_a_micrometre_is_accepted():
    affine = ras_affine((0.0005, 0.0005, 0.0005))
    check_affine(affine)
    assert nib.aff2axcodes(affine) == ("R", "A", "S")
