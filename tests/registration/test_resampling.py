"""Resampling, against SciPy's interpolation in voxel coordinates."""

import numpy as np
import pytest
from scipy.ndimage import map_coordinates
from scipy.spatial.transform import Rotation

from spleen.errors import InputError
from spleen.registration.grids import Grid
from spleen.registration.resampling import resample_onto
from tests._helpers.nifti import counting, ras_affine, stored_as
from tests._helpers.two_scans import AFFINE, body, volume

sitk = pytest.importorskip("SimpleITK")

TURNED = Grid((30, 35, 20), np.eye(4))
TURNED.affine[:3, :3] = Rotation.from_euler("xyz", (8, -12, 20), degrees=True).as_matrix() * (3.0, 3.1, 4.0)
TURNED.affine[:3, 3] = (-50, -60, 55)
"""Turned against the axes of the body, and within it."""


def by_scipy(array, affine, grid, order):
    to_voxels = np.linalg.inv(affine) @ grid.affine
    indices = np.indices(grid.shape).reshape(3, -1)
    places = to_voxels[:3, :3] @ indices + to_voxels[:3, 3:]
    inside = ((places >= 0) & (places <= np.array(array.shape)[:, None] - 1)).all(axis=0)
    values = map_coordinates(array.astype(np.float64), places, order=order, mode="mirror")
    return values.reshape(grid.shape), inside.reshape(grid.shape)


@pytest.mark.parametrize(("interpolation", "order"), [("linear", 1), ("cubic", 3)])
def test_values_are_those_of_scipy(interpolation, order) -> None:
    hu = body()[0].astype(np.float32)
    found = resample_onto(volume(hu), TURNED, interpolation=interpolation)
    expected, inside = by_scipy(hu, AFFINE, TURNED, order)
    assert inside.mean() > 0.3
    np.testing.assert_allclose(found[inside], expected[inside], atol=0.5)


def test_the_own_grid_gives_the_same_voxels_in_every_orientation() -> None:
    for orientation in ("RAS", "LPS", "SAL", "IPR"):
        array, affine = stored_as(orientation, counting((9, 7, 5)), ras_affine())
        same = resample_onto(volume(array, affine), Grid(array.shape, affine))
        np.testing.assert_allclose(same, array, atol=1e-3)
        back = resample_onto(volume(array, affine), Grid((9, 7, 5), ras_affine()), interpolation="nearest")
        np.testing.assert_array_equal(back, counting((9, 7, 5)))


def test_a_transform_maps_points_of_the_grid_into_the_volume() -> None:
    """Two voxels of 4 mm to the right: LPS's first axis points left."""
    hu = body()[0]
    found = resample_onto(volume(hu), Grid(hu.shape, AFFINE), sitk.TranslationTransform(3, (-8.0, 0.0, 0.0)), "nearest")
    np.testing.assert_array_equal(found[:-2], hu[2:])


def test_integers_are_rounded_and_stay_in_their_range() -> None:
    hu = np.zeros((6, 6, 6), np.int16)
    hu[3:] = 3
    hu[:, :, 3:] = np.where(hu[:, :, 3:] > 0, 32767, 0)
    middle = ras_affine((1.0, 1.0, 1.0), (0.5, 0.0, 0.0))
    image = volume(hu, ras_affine((1.0, 1.0, 1.0), (0, 0, 0)))
    found = resample_onto(image, Grid((5, 6, 6), middle))
    assert found.dtype == np.int16
    assert found[2, 0, 0] == 2  # 1.5, half to even
    assert resample_onto(image, Grid((5, 6, 6), middle), interpolation="cubic").max() == 32767


@pytest.mark.parametrize("interpolation", ["nearest", "smooth_labels"])
def test_labels_keep_their_values_and_their_size(interpolation) -> None:
    label = body()[1] * np.uint8(200)
    label[10:14, 30:34, 5:9] = 7
    found = resample_onto(volume(label), TURNED, interpolation=interpolation)
    assert set(np.unique(found)) <= {0, 7, 200}
    voxels = np.prod(TURNED.spacing_mm)
    whole = Grid((70, 70, 50), TURNED.affine.copy())
    whole.affine[:3, 3] -= TURNED.affine[:3, :3] @ (20, 15, 10)
    size = np.count_nonzero(resample_onto(volume(label), whole, interpolation=interpolation) == 200) * voxels
    assert size == pytest.approx(np.count_nonzero(label == 200) * 4 * 4 * 6, rel=0.03)


def test_what_lies_outside_is_air_or_background() -> None:
    far = Grid((4, 4, 4), ras_affine((1.0, 1.0, 1.0), (900, 0, 0)))
    hu, label = body()
    assert (resample_onto(volume(hu), far) == hu.min()).all()
    assert (resample_onto(volume(label), far, interpolation="nearest") == 0).all()
    assert (resample_onto(volume(hu), far, outside=5) == 5).all()


def test_a_grid_larger_than_the_memory_is_refused() -> None:
    with pytest.raises(InputError, match="coarser spacing"):
        resample_onto(volume(body()[0]), Grid((10**5, 10**5, 10**5), AFFINE))


@pytest.mark.usefixtures("without_type_checks")
@pytest.mark.parametrize("interpolation", ["bspline", "Linear", 3])
def test_an_unknown_interpolation_is_reported_with_the_known_ones(interpolation) -> None:
    message = f"interpolation must be one of 'linear', 'cubic', 'nearest', 'smooth_labels'; got {interpolation!r}"
    with pytest.raises(InputError, match=message):
        resample_onto(volume(body()[0]), TURNED, interpolation=interpolation)
