"""Alignments of images whose movement is known, since SimpleITK's own resampler made it."""

import nibabel as nib
import numpy as np
import pytest
from scipy.ndimage import binary_dilation

from spleen.data.phantom.render import make_phantom
from spleen.errors import InputError
from spleen.imaging.nifti import Volume
from spleen.registration.align import align
from spleen.registration.transforms import inverse, map_points
from tests._helpers.two_scans import AFFINE, SHAPE, SPACING_MM, body, volume

sitk = pytest.importorskip("SimpleITK")


@pytest.fixture(scope="module")
def ct(request):
    """The real CT and the mask of its spleen as SimpleITK reads them, and the points of the organ (LPS)."""
    folder = request.getfixturevalue("spleen_ct")
    image, label = (sitk.ReadImage(str(folder / f"{name}.nii.gz")) for name in ("image", "label"))
    return image, label, organ_points(label)


def organ_points(label):
    voxels = np.argwhere(sitk.GetArrayFromImage(label))[::40, ::-1]
    return [label.TransformIndexToPhysicalPoint([int(index) for index in voxel]) for voxel in voxels]


def middle(image):
    return image.TransformContinuousIndexToPhysicalPoint([(size - 1) / 2 for size in image.GetSize()])


def as_volume(image):
    """With nibabel's LPS to RAS convention written out: both first axes turn."""
    lps = np.eye(4)
    lps[:3, :3] = np.array(image.GetDirection()).reshape(3, 3) * image.GetSpacing()
    lps[:3, 3] = image.GetOrigin()
    affine = np.diag([-1.0, -1.0, 1.0, 1.0]) @ lps
    return Volume(sitk.GetArrayFromImage(image).transpose(2, 1, 0), affine, affine)


def moved(image, true, interpolator=None, outside=-1000.0):
    """The image that `true` maps into: its points are those of the image before."""
    return sitk.Resample(image, image, true, interpolator or sitk.sitkBSpline, outside)


def rigid(image, degrees, shift_mm):
    true = sitk.Euler3DTransform()
    true.SetCenter(middle(image))
    true.SetRotation(0.05, 0.03, float(np.deg2rad(degrees)))
    true.SetTranslation(shift_mm)
    return true


def mean_error_mm(true, found, points):
    """How far from home a point is after the found transform and the true one."""
    back = [true.TransformPoint(found.transform.TransformPoint(point)) for point in points]
    return float(np.linalg.norm(np.array(back) - np.array(points), axis=1).mean())


def dice(first, second):
    first, second = sitk.GetArrayFromImage(first) > 0, sitk.GetArrayFromImage(second) > 0
    return 2 * (first & second).sum() / (first.sum() + second.sum())


@pytest.mark.slow
def test_15_degrees_and_20_mm_of_the_real_ct_are_found(ct) -> None:
    image, _, points = ct
    true = rigid(image, 15, (16.0, -10.0, 6.4))
    assert np.linalg.norm(true.GetTranslation()) == pytest.approx(20, abs=0.1)
    found = align(as_volume(image), as_volume(moved(image, true)))
    assert mean_error_mm(true, found, points) < 0.3
    assert found.before is not None
    assert found.after > found.before
    assert found.jacobian == pytest.approx((1, 1), abs=1e-6)
    assert found.folded_fraction == 0


@pytest.mark.slow
def test_a_tenth_of_scale_is_found_by_an_affine_alignment(ct) -> None:
    image, _, points = ct
    true = sitk.AffineTransform(3)
    true.SetCenter(middle(image))
    true.Scale(1 / 1.1)
    found = align(as_volume(image), as_volume(moved(image, true)), "affine")
    assert mean_error_mm(true, found, points) < 0.3
    assert found.jacobian == pytest.approx((1.1**3, 1.1**3), abs=0.01)


@pytest.mark.slow
def test_a_deformable_alignment_brings_the_organ_nearer(ct) -> None:
    image, label, points = ct
    true = sitk.BSplineTransformInitializer(image, [5, 5, 3], 3)
    true.SetParameters(np.random.default_rng(0).normal(0, 8, len(true.GetParameters())).tolist())
    warped, warped_label = moved(image, true), moved(label, true, sitk.sitkNearestNeighbor, 0)
    fixed = as_volume(image)
    found = align(fixed, as_volume(warped), "deformable")
    after = sitk.Resample(warped_label, label, found.transform, sitk.sitkNearestNeighbor, 0)
    assert dice(after, label) > dice(warped_label, label) + 0.04
    assert (
        mean_error_mm(true, found, points)
        < 0.8 * np.linalg.norm(np.array([true.TransformPoint(point) for point in points]) - points, axis=1).mean()
    )
    assert found.folded_fraction == 0
    there_and_back = inverse(found.transform, fixed)
    back = [there_and_back.TransformPoint(found.transform.TransformPoint(point)) for point in points]
    distances = np.linalg.norm(np.array(back) - points, axis=1)
    assert distances.mean() < 0.2
    assert distances.max() < 1.5  # in the outermost slices


@pytest.mark.slow
def test_ct_and_mr_of_one_phantom_align() -> None:
    phantom = make_phantom(96, 60)
    ct = sitk.GetImageFromArray(phantom.hu.transpose(2, 1, 0).astype(np.float32))
    spacing = nib.affines.voxel_sizes(phantom.affine)
    ct.SetSpacing(spacing.tolist())
    label = sitk.GetImageFromArray(phantom.label.transpose(2, 1, 0))
    label.SetSpacing(spacing.tolist())
    true = rigid(ct, 10, (12.0, -8.0, 10.0))
    hu = sitk.GetArrayFromImage(moved(ct, true, sitk.sitkLinear))
    # Air and bone are dark, fat is bright, soft tissue is between: no function that only rises or falls.
    signal = np.interp(hu, [-1000, -500, -100, 0, 60, 150, 400, 1500], [0, 5, 400, 150, 220, 330, 80, 20])
    k, j, i = np.indices(hu.shape) / np.array(hu.shape)[:, None, None, None]
    bias = 1 + 0.3 * np.sin(2 * i) * np.cos(3 * j) + 0.1 * k
    mr = np.abs(signal * bias + np.random.default_rng(1).normal(0, 10, hu.shape))
    moving = sitk.GetImageFromArray(mr.astype(np.float32))
    moving.CopyInformation(ct)
    found = align(as_volume(ct), as_volume(moving))
    assert mean_error_mm(true, found, organ_points(label)) < 1.0  # a quarter of a voxel


@pytest.mark.slow
def test_a_shift_is_found_the_same_each_time() -> None:
    fixed, moving = (volume(body(shift)[0]) for shift in ((0, 0, 0), (8.0, -6.0, 9.0)))
    first, second = align(fixed, moving), align(fixed, moving)
    points = np.array([[-40.0, -10.0, 90.0], [10.0, 20.0, 100.0]])
    np.testing.assert_allclose(map_points(first.transform, points), points + np.array([8, -6, 9]), atol=0.7)
    assert first.transform.GetParameters() == second.transform.GetParameters()


@pytest.mark.slow
def test_images_that_the_scanner_placed_far_apart_align_by_their_centres() -> None:
    away = AFFINE.copy()
    away[:3, 3] += (900, -300, 500)
    found = align(volume(body()[0]), volume(body()[0], away))
    assert found.before is None
    points = np.array([[-40.0, -10.0, 90.0]])
    np.testing.assert_allclose(map_points(found.transform, points), points + np.array([900, -300, 500]), atol=0.5)


@pytest.mark.slow
def test_with_a_mask_only_what_lies_in_it_counts() -> None:
    """The organ has moved, the rest of the body has not."""
    still, organ = body()
    there, there_organ = body((0.0, 9.0, 0.0))
    moving = np.where(np.maximum(organ, there_organ) > 0, there, still)
    near = binary_dilation(organ, iterations=3)
    centre = np.array([[-40.0, -10.0, 90.0]])
    shift = {
        name: map_points(align(volume(still), volume(moving), mask=mask).transform, centre)[0, 1] + 10
        for name, mask in (("all", None), ("organ", near))
    }
    assert abs(shift["organ"] - 9) < abs(shift["all"] - 9)
    assert shift["organ"] > 5


@pytest.mark.parametrize(
    ("fixed", "moving", "words"),
    [
        (np.zeros((40, 40, 1), np.int16), body()[0], "40 × 40 × 1 voxels"),
        (body()[0], np.full(SHAPE, 7, np.int16), "every voxel has the intensity 7"),
    ],
)
def test_images_that_cannot_be_aligned_are_refused(fixed, moving, words) -> None:
    with pytest.raises(InputError, match=words):
        align(volume(fixed), volume(moving))


@pytest.mark.parametrize(("scale", "size"), [(0.001, "0.176 × 0.16 × 0.144"), (1000, "1.76e\\+05")])
def test_another_unit_than_mm_is_noticed(scale, size) -> None:
    image = body()[0]
    with pytest.raises(InputError, match=f"{size}.*another unit than mm"):
        align(volume(image), volume(image, np.diag([*(scale * mm for mm in SPACING_MM), 1.0])))


def test_a_sheared_grid_is_refused() -> None:
    sheared = AFFINE.copy()
    sheared[1, 2] = np.tan(np.deg2rad(12)) * SPACING_MM[2]
    with pytest.raises(InputError, match=r"the moving image: .* 12\.00° from perpendicular"):
        align(volume(body()[0]), volume(body()[0], sheared))


def test_a_mask_that_nothing_of_the_other_image_reaches_is_refused() -> None:
    image = body()[0]
    corner = np.zeros(SHAPE, dtype=bool)
    corner[:6, :6, :6] = True
    with pytest.raises(InputError, match="same part of the body"):
        align(volume(image), volume(image[18:26, 16:24, 10:16]), mask=corner)


@pytest.mark.parametrize(
    ("mask", "words"),
    [(np.ones((5, 7, 3), dtype=bool), "must be the same"), (np.zeros(SHAPE, dtype=bool), "holds 0 voxels")],
)
def test_an_unsuitable_mask_is_refused(mask, words) -> None:
    with pytest.raises(InputError, match=words):
        align(volume(body()[0]), volume(body()[0]), mask=mask)


@pytest.mark.usefixtures("without_type_checks")
@pytest.mark.parametrize("kind", ["nonrigid", "Rigid", None])
def test_an_unknown_kind_is_reported_with_the_known_ones(kind) -> None:
    scan = volume(body()[0])
    with pytest.raises(InputError, match=f"kind must be one of 'rigid', 'affine', 'deformable'; got {kind!r}"):
        align(scan, scan, kind)
