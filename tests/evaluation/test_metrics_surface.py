import inspect
import math
from itertools import permutations, product

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813  (the alias of its own manual)
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.metrics import compute_average_surface_distance, compute_hausdorff_distance, compute_surface_dice
from scipy import ndimage

from spleen.errors import InputError
from spleen.evaluation.metrics.surface import (
    SurfaceDistances,
    average_surface_distance_mm,
    hausdorff95_mm,
    hausdorff_mm,
    surface_dice,
    surface_distances,
)
from tests._helpers.nifti import SHAPE, SPACING_MM, box

pytestmark = pytest.mark.filterwarnings("ignore:monai.metrics.utils get_mask_edges:FutureWarning")  # from MONAI

TOLERANCE_MM = 1.7
# MONAI and SimpleITK compute in float32; MONAI's HD95 also rounds the rank between two voxels (torch.quantile).
FLOAT32 = {"rel": 1e-5, "abs": 1e-5}
FLOAT32_RANK_MM = 1e-3
# SimpleITK's map is the square root of a difference of float32 numbers: it gives 1.1e-5 mm where the distance is 0.
FLOAT32_MAP = {"rtol": 1e-5, "atol": 5e-5}
# Masks are drawn from a seed, because hypothesis has no strategy for smooth masks.
SEEDS = st.integers(0, 100_000)


def _mask(*boxes, shape=SHAPE):
    return sum((box(shape, low, high) for low, high in boxes), np.zeros(shape, np.int16)) > 0


def _voxel(*index):
    return _mask((index, tuple(place + 1 for place in index)))


def _random_pair(seed):
    """Two partly overlapping masks, compact or scattered, thin or thick, mostly touching the border; and a spacing."""
    random = np.random.default_rng(seed)
    shape = tuple(random.integers(2, 16, 3))
    smooth = ndimage.gaussian_filter(random.standard_normal((2, *shape)), (0, *random.choice([0.0, 0.7, 2.0], 3)))
    first, second = smooth[0], smooth[0] + random.choice([0.2, 1.0]) * smooth[1]
    masks = [field > np.quantile(field, random.uniform(0.1, 0.95)) for field in (first, second)]
    return (*masks, tuple(float(length) for length in random.uniform(0.3, 6.0, 3)))


def _all_scores(distances, tolerance_mm=TOLERANCE_MM):
    return [
        hausdorff_mm(distances),
        hausdorff95_mm(distances),
        average_surface_distance_mm(distances),
        surface_dice(distances, tolerance_mm),
    ]


def _monai_scores(prediction, reference, spacing_mm, tolerance_mm=TOLERANCE_MM):
    pair = [torch.from_numpy(np.ascontiguousarray(mask))[None, None].float() for mask in (prediction, reference)]
    same = {"include_background": True, "spacing": spacing_mm}
    return [
        compute_hausdorff_distance(*pair, **same).item(),
        compute_hausdorff_distance(*pair, percentile=95, **same).item(),
        compute_average_surface_distance(*pair, symmetric=True, **same).item(),
        compute_surface_dice(*pair, [tolerance_mm], **same).item(),
    ]


def _simpleitk_contour(mask, spacing_mm):
    image = sitk.GetImageFromArray(mask.astype(np.uint8))
    image.SetSpacing(spacing_mm[::-1])
    # SimpleITK finds no surface where a mask touches the border of the image.
    return sitk.LabelContour(sitk.ConstantPad(image, [1, 1, 1], [1, 1, 1]), fullyConnected=False)


def _simpleitk_distances(prediction, reference, spacing_mm):
    contours = [_simpleitk_contour(mask, spacing_mm) for mask in (prediction, reference)]
    to_contour = [
        np.abs(sitk.GetArrayFromImage(sitk.SignedMaurerDistanceMap(c, squaredDistance=False, useImageSpacing=True)))
        for c in contours
    ]
    surfaces = [sitk.GetArrayFromImage(c) > 0 for c in contours]
    return to_contour[1][surfaces[0]], to_contour[0][surfaces[1]]


# --- Hand-computed ----------------------------------------------------------------------------------------------------


def test_the_distance_between_two_voxels_is_that_of_their_centres():
    distances = surface_distances(_voxel(1, 2, 0), _voxel(2, 4, 1), SPACING_MM)
    expected = math.sqrt(0.8**2 + 1.6**2 + 5.0**2)  # 5.31 mm
    assert _all_scores(distances, 5.32) == pytest.approx([expected, expected, expected, 1.0])
    assert surface_dice(distances, 5.30) == 0.0


def test_scores_of_rods_of_three_and_four_voxels():
    prediction, reference = _mask(((0, 2, 1), (3, 3, 2))), _mask(((1, 2, 1), (5, 3, 2)))
    distances = surface_distances(prediction, reference, SPACING_MM)
    np.testing.assert_allclose(distances.prediction_to_reference_mm, [0.8, 0, 0])
    np.testing.assert_allclose(distances.reference_to_prediction_mm, [0, 0, 0.8, 1.6])
    # 95th percentiles: 0.9 of the way from 0 to 0.8, and 0.85 of the way from 0.8 to 1.6; the second is larger.
    assert _all_scores(distances, 0.8) == pytest.approx([1.6, 0.8 + 0.85 * 0.8, 3.2 / 7, 6 / 7])


def test_scores_of_a_box_shifted_by_one_thick_slice():
    prediction, reference = _mask(((1, 1, 0), (4, 6, 2))), _mask(((1, 1, 1), (4, 6, 3)))
    distances = surface_distances(prediction, reference, SPACING_MM)
    # Two slices of 3 × 5 voxels, all of them surface. One slice lies in both boxes; every voxel of the other
    # is one slice away.
    expected = [5.0] * 15 + [0.0] * 15
    assert sorted(distances.prediction_to_reference_mm, reverse=True) == expected
    assert sorted(distances.reference_to_prediction_mm, reverse=True) == expected
    assert _all_scores(distances, 4.99) == [5.0, 5.0, 2.5, 0.5]


def test_the_surface_of_a_mask_that_fills_the_volume_is_the_border():
    full = np.ones(SHAPE, dtype=bool)
    distances = surface_distances(full, _voxel(2, 3, 1), SPACING_MM)
    assert distances.prediction_to_reference_mm.size == 5 * 7 * 3 - 3 * 5 * 1
    assert hausdorff_mm(distances) == pytest.approx(math.sqrt(1.6**2 + 2.4**2 + 5.0**2))  # from a corner
    assert distances.reference_to_prediction_mm == pytest.approx([1.6])  # to the nearest face


def test_a_hole_has_a_surface():
    full = np.ones(SHAPE, dtype=bool)
    distances = surface_distances(full, full & ~_voxel(2, 3, 1), SPACING_MM)
    # The hole exposes its neighbours along i (0.8 mm from the outer face) and j (1.6 mm); those along k already were.
    assert not distances.prediction_to_reference_mm.any()
    assert sorted(distances.reference_to_prediction_mm)[-5:] == pytest.approx([0, 0.8, 0.8, 1.6, 1.6])
    assert distances.reference_to_prediction_mm.size == 94
    assert _all_scores(distances, 1.0) == pytest.approx([1.6, 0.0, 4.8 / 184, 182 / 184])


def test_a_stray_voxel_determines_the_hausdorff_distance_but_not_hd95():
    organ = _mask(((0, 0, 0), (4, 4, 2)), shape=(40, 5, 3))
    stray = organ | _mask(((38, 0, 0), (39, 1, 1)), shape=(40, 5, 3))
    distances = surface_distances(stray, organ, SPACING_MM)
    assert hausdorff_mm(distances) == pytest.approx(35 * 0.8)
    assert hausdorff95_mm(distances) == 0.0


def test_identical_masks_have_zero_distance():
    mask = _mask(((1, 2, 0), (4, 6, 3)))
    assert _all_scores(surface_distances(mask, mask, SPACING_MM), 0.0) == [0.0, 0.0, 0.0, 1.0]


# --- Empty masks ------------------------------------------------------------------------------------------------------


def test_scores_of_two_empty_masks_are_nan():
    empty = np.zeros(SHAPE, dtype=bool)
    assert all(math.isnan(score) for score in _all_scores(surface_distances(empty, empty, SPACING_MM)))


@pytest.mark.parametrize("missed", [True, False])
def test_distances_to_an_empty_mask_are_infinite(missed):
    organ, empty = _mask(((1, 2, 0), (4, 6, 2))), np.zeros(SHAPE, dtype=bool)
    distances = surface_distances(*((empty, organ) if missed else (organ, empty)), SPACING_MM)
    assert _all_scores(distances, 1e9) == [math.inf, math.inf, math.inf, 0.0]
    sizes = distances.prediction_to_reference_mm.size, distances.reference_to_prediction_mm.size
    assert sizes == ((0, 24) if missed else (24, 0))  # 3 × 4 × 2 voxels, all of them surface


# --- Other libraries --------------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=80)
@given(SEEDS)
def test_scores_match_monai(seed):
    prediction, reference, spacing_mm = _random_pair(seed)
    ours = _all_scores(surface_distances(prediction, reference, spacing_mm))
    theirs = _monai_scores(prediction, reference, spacing_mm)
    assert ours.pop(1) == pytest.approx(theirs.pop(1), abs=FLOAT32_RANK_MM)
    assert ours == pytest.approx(theirs, **FLOAT32)


@settings(deadline=None, max_examples=80)
@given(SEEDS)
def test_distances_match_simpleitk_voxel_by_voxel(seed):
    prediction, reference, spacing_mm = _random_pair(seed)
    distances = surface_distances(prediction, reference, spacing_mm)
    expected = _simpleitk_distances(prediction, reference, spacing_mm)
    np.testing.assert_allclose(distances.prediction_to_reference_mm, expected[0], **FLOAT32_MAP)
    np.testing.assert_allclose(distances.reference_to_prediction_mm, expected[1], **FLOAT32_MAP)


@settings(deadline=None, max_examples=40)
@given(SEEDS)
def test_the_hausdorff_distance_matches_the_simpleitk_filter_on_contours(seed):
    prediction, reference, spacing_mm = _random_pair(seed)
    distances = surface_distances(prediction, reference, spacing_mm)
    theirs = sitk.HausdorffDistanceImageFilter()
    theirs.Execute(*(_simpleitk_contour(mask, spacing_mm) for mask in (prediction, reference)))
    assert hausdorff_mm(distances) == pytest.approx(theirs.GetHausdorffDistance(), **FLOAT32)
    means = [d.mean() for d in (distances.prediction_to_reference_mm, distances.reference_to_prediction_mm)]
    assert np.mean(means) == pytest.approx(theirs.GetAverageHausdorffDistance(), **FLOAT32)


@pytest.mark.parametrize("side", list(product((0, 1), repeat=3)), ids=str)
def test_scores_of_masks_in_a_corner_of_the_volume_match_monai_and_simpleitk(side):
    flipped = tuple(axis for axis in range(3) if side[axis])
    prediction = np.flip(_mask(((0, 0, 0), (4, 5, 2))), flipped)
    reference = np.flip(_mask(((0, 0, 0), (3, 7, 3))), flipped)
    distances = surface_distances(prediction, reference, SPACING_MM)
    assert _all_scores(distances) == pytest.approx(_monai_scores(prediction, reference, SPACING_MM), **FLOAT32)
    for ours, theirs in zip(
        (distances.prediction_to_reference_mm, distances.reference_to_prediction_mm),
        _simpleitk_distances(prediction, reference, SPACING_MM),
        strict=True,
    ):
        np.testing.assert_allclose(ours, theirs, **FLOAT32_MAP)


# --- Invariances ------------------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=40)
@given(SEEDS)
def test_swapping_the_masks_swaps_the_directions(seed):
    prediction, reference, spacing_mm = _random_pair(seed)
    one_way = surface_distances(prediction, reference, spacing_mm)
    back = surface_distances(reference, prediction, spacing_mm)
    np.testing.assert_allclose(back.reference_to_prediction_mm, one_way.prediction_to_reference_mm)
    np.testing.assert_allclose(back.prediction_to_reference_mm, one_way.reference_to_prediction_mm)
    assert _all_scores(back) == pytest.approx(_all_scores(one_way))


@settings(deadline=None, max_examples=40)
@given(SEEDS, st.tuples(*[st.integers(0, 9)] * 6))
def test_padding_around_the_masks_does_not_change_distances(seed, widths):
    prediction, reference, spacing_mm = _random_pair(seed)
    around = [widths[0:2], widths[2:4], widths[4:6]]
    moved = [np.pad(mask, around) for mask in (prediction, reference)]
    _assert_identical(surface_distances(*moved, spacing_mm), surface_distances(prediction, reference, spacing_mm))


@pytest.mark.parametrize("order", list(permutations(range(3))), ids=str)
def test_permuting_axes_and_spacing_together_does_not_change_scores(order):
    for seed in range(5):
        prediction, reference, spacing_mm = _random_pair(seed)
        turned = surface_distances(
            prediction.transpose(order), reference.transpose(order), tuple(spacing_mm[axis] for axis in order)
        )
        assert _all_scores(turned) == pytest.approx(_all_scores(surface_distances(prediction, reference, spacing_mm)))


@settings(deadline=None, max_examples=20)
@given(SEEDS)
def test_memory_layout_does_not_change_distances(seed):
    prediction, reference, spacing_mm = _random_pair(seed)
    expected = surface_distances(prediction, reference, spacing_mm)
    backwards = np.ascontiguousarray(np.flip(prediction))[::-1, ::-1, ::-1]
    strided = np.repeat(reference, 2, axis=1)[:, ::2]
    for first, second in (
        (np.asfortranarray(prediction), np.asfortranarray(reference)),
        (prediction, np.asfortranarray(reference)),
        (backwards, strided),
    ):
        _assert_identical(surface_distances(first, second, spacing_mm), expected)


def _assert_identical(found: SurfaceDistances, expected: SurfaceDistances):
    np.testing.assert_array_equal(found.prediction_to_reference_mm, expected.prediction_to_reference_mm)
    np.testing.assert_array_equal(found.reference_to_prediction_mm, expected.reference_to_prediction_mm)


def test_the_masks_are_not_modified():
    prediction, reference, spacing_mm = _random_pair(3)
    for mask in (prediction, reference):
        mask.flags.writeable = False
    surface_distances(prediction, reference, spacing_mm)


# --- Tolerance and input ----------------------------------------------------------------------------------------------


def test_a_distance_equal_to_the_tolerance_is_within_it_at_every_position():
    for start in range(400):
        prediction, reference = np.zeros((2, 401, 2, 1), dtype=bool)
        prediction[[0, start]] = reference[[0, start + 1]] = True  # multiples of the spacing, each rounded separately
        assert surface_dice(surface_distances(prediction, reference, (0.794922, 0.8, 5.0)), 0.794922) == 1.0


def test_a_distance_rounded_to_float32_is_still_within_the_tolerance():
    rounded = float(np.float32(0.8))
    assert rounded > 0.8
    distances = surface_distances(_voxel(1, 2, 0), _voxel(2, 2, 0), (rounded, rounded, 5.0))
    assert surface_dice(distances, 0.8) == 1.0


@settings(deadline=None, max_examples=40)
@given(SEEDS)
def test_surface_dice_increases_with_the_tolerance_and_is_1_at_the_hausdorff_distance(seed):
    distances = surface_distances(*_random_pair(seed))
    scores = [surface_dice(distances, fraction * hausdorff_mm(distances)) for fraction in (0.0, 0.3, 0.6, 1.0)]
    assert scores == sorted(scores)
    assert scores[-1] == 1.0


@pytest.mark.parametrize("tolerance_mm", [-0.1, math.nan, math.inf])
def test_an_invalid_tolerance_is_rejected(tolerance_mm):
    distances = surface_distances(_voxel(1, 2, 0), _voxel(2, 2, 0), SPACING_MM)
    with pytest.raises(InputError, match="tolerance of the surface Dice must be 0 mm or more"):
        surface_dice(distances, tolerance_mm)


@pytest.mark.parametrize("spacing_mm", [(0.8, 0.0, 5.0), (0.8, 0.8, -5.0), (math.nan, 0.8, 5.0), (0.8, math.inf, 5.0)])
def test_an_invalid_spacing_is_rejected(spacing_mm):
    with pytest.raises(InputError, match="three positive lengths in mm; got"):
        surface_distances(_voxel(1, 2, 0), _voxel(2, 2, 0), spacing_mm)


def test_masks_of_different_shapes_are_rejected():
    unchecked = inspect.unwrap(surface_distances)  # without the shape checks, which are active only in tests
    with pytest.raises(InputError, match=r"one grid; their shapes are \(5, 7, 3\) and \(7, 5, 3\)"):
        unchecked(_voxel(1, 2, 0), _voxel(1, 2, 0).transpose(1, 0, 2), SPACING_MM)
