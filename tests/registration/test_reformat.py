"""Stacks along any plane, against SimpleITK's and SciPy's resampling."""

import numpy as np
import pytest
from scipy.ndimage import map_coordinates

from spleen.errors import InputError
from spleen.registration.reformat import basis_of_normal, edge_letters, plane_basis, slice_through, stack_grid
from spleen.registration.resampling import resample_onto
from tests._helpers.two_scans import AFFINE, body, volume

sitk = pytest.importorskip("SimpleITK")

HU = body()[0].astype(np.float32)
VOLUME = volume(HU)


@pytest.mark.parametrize(
    ("plane", "axes"),
    [("axial", (0, 1, 2)), ("coronal", (0, 2, 1)), ("sagittal", (1, 2, 0))],
    ids=lambda each: str(each),
)
def test_anatomical_planes_at_the_voxels_own_spacing_hold_the_voxels(plane, axes) -> None:
    spacing = tuple(VOLUME.spacing_mm[axis] for axis in axes)
    grid = stack_grid(VOLUME, plane_basis(plane), spacing_mm=spacing)
    assert grid.shape == tuple(HU.shape[axis] for axis in axes)
    np.testing.assert_allclose(resample_onto(VOLUME, grid), HU.transpose(axes), atol=1e-3)


def test_an_oblique_stack_holds_what_simpleitk_and_scipy_find_there() -> None:
    basis = plane_basis("coronal", [("superior_inferior", 25.0), ("left_right", -10.0)])
    grid = stack_grid(VOLUME, basis, spacing_mm=(2.0, 2.5, 3.0))
    found = resample_onto(VOLUME, grid)

    # SimpleITK, its image and grid made here: LPS turns the first two axes of RAS.
    image = sitk.GetImageFromArray(HU.transpose(2, 1, 0))
    image.SetSpacing([4.0, 4.0, 6.0])
    image.SetDirection([-1, 0, 0, 0, -1, 0, 0, 0, 1])
    image.SetOrigin([90.0, 75.0, 30.0])
    lps = np.diag([-1.0, -1.0, 1.0])
    directions, origin = lps @ basis, lps @ grid.affine[:3, 3]
    there = sitk.Resample(
        image, grid.shape, sitk.Transform(), sitk.sitkLinear, origin.tolist(), (2.0, 2.5, 3.0),
        directions.ravel().tolist(), -1000.0,
    )  # fmt: skip
    np.testing.assert_allclose(found, sitk.GetArrayFromImage(there).transpose(2, 1, 0), atol=1e-2)

    places = (
        np.linalg.inv(AFFINE) @ grid.affine @ np.vstack([np.indices(grid.shape).reshape(3, -1), np.ones(found.size)])
    )
    inside = ((places[:3] > 0) & (places[:3] < np.array(HU.shape)[:, None] - 1)).all(axis=0)
    by_scipy = map_coordinates(HU, places[:3], order=1)
    assert inside.mean() > 0.3
    np.testing.assert_allclose(found.ravel()[inside], by_scipy[inside], atol=0.5)


def test_a_turn_follows_the_right_hand() -> None:
    """About the axis to the right, anterior goes to superior and superior to posterior."""
    basis = plane_basis("axial", [("left_right", 90.0)])
    np.testing.assert_allclose(basis, np.array([[1, 0, 0], [0, 0, 1], [0, -1, 0]]).T, atol=1e-12)


@pytest.mark.parametrize("normal", [(0, 2, 0), (0, -3, 0)])
def test_a_normal_and_its_opposite_give_the_anatomical_plane(normal) -> None:
    np.testing.assert_allclose(basis_of_normal(np.array(normal, float)), plane_basis("coronal"), atol=1e-12)


@pytest.mark.parametrize("normal", [(1.0, 0.6, 0.8), (0.2, -0.9, 0.1), (1.0, 1.0, 1.0)])
def test_a_basis_is_perpendicular_and_of_length_1(normal) -> None:
    basis = basis_of_normal(np.array(normal))
    np.testing.assert_allclose(basis.T @ basis, np.eye(3), atol=1e-12)
    np.testing.assert_allclose(np.abs(basis[:, 2] @ np.array(normal)), np.linalg.norm(normal))


def test_a_slice_goes_through_the_point() -> None:
    point, basis = np.array([-33.0, 5.0, 101.0]), basis_of_normal(np.array([1.0, 2.0, 3.0]))
    stack = stack_grid(VOLUME, basis, point)
    distances = (stack.affine[:3, 3] - point) @ basis[:, 2] / stack.spacing_mm[2]
    assert distances == pytest.approx(round(distances), abs=1e-9)
    single = slice_through(VOLUME, stack, point)
    assert single.shape[2] == 1
    assert (single.affine[:3, 3] - point) @ basis[:, 2] == pytest.approx(0, abs=1e-9)


def test_a_stack_covers_the_volume() -> None:
    grid = stack_grid(VOLUME, basis_of_normal(np.array([1.0, 1.0, 1.0])))
    inside = resample_onto(volume(np.ones_like(HU)), grid, outside=0)
    volume_mm3 = inside.sum() * np.prod(grid.spacing_mm)
    assert volume_mm3 == pytest.approx(HU.size * 4 * 4 * 6, rel=0.02)


def test_the_letters_of_the_edges() -> None:
    assert edge_letters(plane_basis("axial")) == ("R", "L", "A", "P")
    assert edge_letters(plane_basis("coronal")) == ("R", "L", "S", "I")
    assert edge_letters(plane_basis("sagittal")) == ("A", "P", "S", "I")
    assert edge_letters(plane_basis("axial", [("left_right", 30.0)])) == ("R", "L", "AS", "PI")


def test_a_point_outside_and_a_normal_without_length_are_refused() -> None:
    with pytest.raises(InputError, match=r"300,0,0 lies outside .* -92 to 84, -77 to 83, 27 to 171 mm"):
        stack_grid(VOLUME, plane_basis("axial"), np.array([300.0, 0.0, 0.0]))
    with pytest.raises(InputError, match="must be a direction"):
        basis_of_normal(np.zeros(3))
    with pytest.raises(InputError, match="turned about left_right"):
        plane_basis("axial", [("sideways", 10.0)])
