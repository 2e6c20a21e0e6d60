"""What transforms do to space, and their inverses."""

import numpy as np
import pytest

from spleen.registration.grids import Grid
from spleen.registration.transforms import inverse, jacobian_range, map_points, motion, write_transform
from tests._helpers.nifti import ras_affine
from tests._helpers.two_scans import body, volume

sitk = pytest.importorskip("SimpleITK")

GRID = Grid((41, 31, 21), ras_affine((1.0, 2.0, 3.0), (-20.0, -30.0, -30.0)))  # around 0, 0, 0


def test_points_are_those_of_ras() -> None:
    """ITK's first two axes point left and posterior."""
    shift = sitk.TranslationTransform(3, (1.0, 2.0, 3.0))
    np.testing.assert_allclose(map_points(shift, np.array([[10.0, 20.0, 30.0]])), [[9, 18, 33]])


def test_motion_of_a_rotation_about_the_middle() -> None:
    turned = sitk.Euler3DTransform((0, 0, 0), 0, 0, np.deg2rad(30), (4.0, -5.0, 6.0))
    found = motion(turned, GRID)
    assert found.rotation_degrees == pytest.approx(30)
    assert found.shift_mm == pytest.approx((-4, 5, 6))
    assert found.scales == pytest.approx((1, 1, 1))


def test_motion_of_a_stretch() -> None:
    stretched = sitk.AffineTransform(3)
    stretched.Scale((1.1, 1.0, 0.9))
    found = motion(stretched, GRID)
    assert found.scales == pytest.approx((1.1, 1.0, 0.9))
    assert found.rotation_degrees == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize("direction", [(1, 0, 0, 0, 1, 0, 0, 0, 1), (-1, 0, 0, 0, 0, 1, 0, 1, 0)])
def test_folds_are_counted_whatever_the_axes_of_the_image(direction) -> None:
    """x → x + 10 sin(2 π x / 40): the determinant is 1 + 1.571 cos, not positive where cos ≤ -0.637: in 28 %."""
    field = sitk.PhysicalPointSource(sitk.sitkVectorFloat64, [40, 12, 10])
    points = sitk.GetArrayFromImage(field)
    u = np.zeros_like(points)
    u[..., 0] = 10 * np.sin(2 * np.pi * points[..., 0] / 40)
    waves = sitk.DisplacementFieldTransform(sitk.GetImageFromArray(u, isVector=True))
    at = sitk.Image([40, 12, 10] if direction[0] == 1 else [40, 10, 12], sitk.sitkUInt8)
    at.SetDirection(direction)
    at.SetOrigin([0 if direction[0] == 1 else 39, 0, 0])
    smallest, largest, folded = jacobian_range(waves, at)
    assert smallest == pytest.approx(1 - np.pi / 2, abs=0.02)
    assert largest == pytest.approx(1 + np.pi / 2, abs=0.05)
    assert folded == pytest.approx(np.arccos(2 / np.pi) / np.pi, abs=0.03)


def test_the_inverse_of_a_deformation_undoes_it() -> None:
    fixed = volume(body()[0])
    reference = sitk.Image([44, 40, 24], sitk.sitkUInt8)
    reference.SetSpacing([4.0, 4.0, 6.0])
    reference.SetDirection([-1, 0, 0, 0, -1, 0, 0, 0, 1])
    reference.SetOrigin([90.0, 75.0, 30.0])
    spline = sitk.BSplineTransformInitializer(reference, [4, 4, 4], 3)
    spline.SetParameters(np.random.default_rng(2).normal(0, 5, len(spline.GetParameters())).tolist())
    linear = sitk.AffineTransform(3)
    linear.Scale((1.1, 0.95, 1.0))
    both = sitk.CompositeTransform([linear, spline])
    points = np.random.default_rng(3).uniform((-60, -50, 50), (50, 50, 150), (200, 3))
    there = map_points(both, points)
    assert np.linalg.norm(there - points, axis=1).mean() > 3
    np.testing.assert_allclose(map_points(inverse(both, fixed), there), points, atol=0.3)


@pytest.mark.parametrize("suffix", [".tfm", ".h5"])
def test_files_of_transforms_are_read_back_by_simpleitk(suffix, tmp_path) -> None:
    turned = sitk.Euler3DTransform((1, 2, 3), 0.1, 0.2, 0.3, (4.0, -5.0, 6.0))
    write_transform(tmp_path / f"out{suffix}", sitk.CompositeTransform([turned, sitk.AffineTransform(3)]))
    read = sitk.ReadTransform(str(tmp_path / f"out{suffix}"))
    assert read.TransformPoint((7.0, 8.0, 9.0)) == pytest.approx(turned.TransformPoint((7.0, 8.0, 9.0)))
    assert [path.name for path in tmp_path.iterdir()] == [f"out{suffix}"]
