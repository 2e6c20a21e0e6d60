"""Views averaged on one grid, compared with means, counts and Dice computed with NumPy or by hand."""

from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from scipy.special import logit

from spleen.imaging.slicing import FLIP_DIRECTIONS, to_slices
from spleen.inference.ensemble import VolumePrediction, predict_volume
from spleen.inference.views.tta import variants
from spleen.inference.views.view import View
from tests._helpers.handmade import (
    CPU,
    PLAIN,
    Places,
    Pointwise,
    image_of,
    intensities,
    model,
    nothing,
    probability,
    view,
)

SHAPE = (7, 9, 5)
SIZES = {"axial": 9, "coronal": 7, "sagittal": 9}


def predict(views: list[View], image, batch_size: int = 3, keep: bool = True) -> VolumePrediction:
    return predict_volume(views, image, "ct", batch_size, keep, nothing)


def dice(first: np.ndarray, second: np.ndarray) -> float:
    return 2 * np.count_nonzero(first & second) / (np.count_nonzero(first) + np.count_nonzero(second))


def soft_dice(probabilities: np.ndarray, mask: np.ndarray) -> float:
    """Soft Dice, in which probabilities of 0.05 or less count as 0."""
    return 2 * probabilities[mask].sum() / (probabilities[probabilities > 0.05].sum() + np.count_nonzero(mask))


# Six voxels, computed by hand ---------------------------------------------------------------------------------------


def test_two_weighted_views_match_a_hand_computation(tmp_path: Path) -> None:
    """One view predicts p, the other 1 - p, with weights 0.75 and 0.25.

    The image contains logit(p) / 4; the first network predicts p, the second, with the opposite slope, 1 - p.
    """
    probabilities = np.array([0.9, 0.8, 0.6, 0.3, 0.5, 0.02]).reshape(6, 1, 1)
    stored = (logit(probabilities) / 4).astype(np.float16).astype(np.float32)
    image = image_of(tmp_path / "ct.nii", stored)
    views = [view(Pointwise([4.0], [0.0]), "axial", 6, 0.75), view(Pointwise([-4.0], [0.0]), "axial", 6, 0.25)]
    found = predict(views, image)
    # 0.75 p + 0.25 (1 - p) = 0.25 + 0.5 p
    expected = [0.70, 0.65, 0.55, 0.40, 0.50, 0.26]
    np.testing.assert_allclose(found.probabilities[0].ravel(), expected, atol=1e-3)
    assert found.mask.ravel()[[0, 1, 2, 3, 5]].tolist() == [1, 1, 1, 0, 0]
    # The voxel at exactly 0.5 may fall on either side. If it is background, the mask contains 3 voxels
    # with 0.70 + 0.65 + 0.55 = 1.90 of the total probability of 3.06.
    if found.mask.ravel()[4] == 0:
        assert found.soft_dice_confidence == pytest.approx((2 * 1.90 / (3.06 + 3),), abs=2e-3)
    # The first view predicts voxels 0, 1 and 2, the second 3 and 5: no overlap.
    assert found.agreement[0] == pytest.approx(0.0)
    assert found.soft_volume_mm3 == pytest.approx((3.06,), abs=2e-3)
    (first,), (second,) = found.view_volumes_mm3
    assert first in (3, 4)  # of 1 mm³ each
    assert second in (2, 3)


def test_one_view_matches_a_hand_computation(tmp_path: Path) -> None:
    probabilities = np.array([0.9, 0.8, 0.6, 0.3, 0.2, 0.02]).reshape(6, 1, 1)
    image = image_of(tmp_path / "ct.nii", (logit(probabilities) / 4).astype(np.float16))
    found = predict([view(Pointwise([4.0], [0.0]), "axial", 6)], image)
    assert found.mask.ravel().tolist() == [1, 1, 1, 0, 0, 0]
    # Inside the mask: 0.9 + 0.8 + 0.6 = 2.3. In total: 2.8, since 0.02 is below the noise floor. Voxels: 3.
    assert found.soft_dice_confidence == pytest.approx((2 * 2.3 / (2.8 + 3),), abs=2e-3)
    assert np.isnan(found.agreement[0])
    assert found.soft_volume_mm3 == pytest.approx((2.8,), abs=2e-3)
    assert found.view_volumes_mm3 == ()
    larger = image_of(tmp_path / "larger.nii", (logit(probabilities) / 4).astype(np.float16), spacing_mm=2.0)
    of_larger = predict([view(Pointwise([4.0], [0.0]), "axial", 6)], larger)
    assert of_larger.soft_volume_mm3 == pytest.approx((8 * 2.8,), abs=0.02)


# Averages -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def image(tmp_path: Path):
    return image_of(tmp_path / "ct.nii", intensities(SHAPE))


def three_views(weights: tuple[float, float, float] = (1 / 3, 1 / 3, 1 / 3)) -> list[View]:
    """One view along each axis, each with its own slope and offset."""
    coefficients = {"axial": (4.0, 0.5), "coronal": (2.0, -1.0), "sagittal": (7.0, 1.0)}
    return [
        view(Pointwise([slope], [offset]), axis, SIZES[axis], weight)
        for (axis, (slope, offset)), weight in zip(coefficients.items(), weights, strict=True)
    ]


def three_view_probabilities() -> np.ndarray:
    array = intensities(SHAPE)
    return np.stack([probability(array, 4.0, 0.5), probability(array, 2.0, -1.0), probability(array, 7.0, 1.0)])


@pytest.mark.parametrize("weights", [(1 / 3, 1 / 3, 1 / 3), (0.5, 0.3, 0.2), (0.0, 0.2, 0.8)])
@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1)])
def test_views_along_all_axes_are_averaged_voxel_by_voxel(image, weights, order) -> None:
    views = three_views(weights)
    found = predict([views[number] for number in order], image)
    expected = np.tensordot(weights, three_view_probabilities(), axes=1)
    np.testing.assert_allclose(found.probabilities[0], expected, atol=1e-6)
    assert found.probabilities.dtype == np.float32
    clear = np.abs(expected - 0.5) > 1e-5
    np.testing.assert_array_equal(found.mask[clear], (expected > 0.5)[clear])
    assert found.soft_dice_confidence == pytest.approx((soft_dice(expected, found.mask == 1),), abs=1e-5)
    # Each pair of views with a weight is weighted by the sizes of its two masks.
    masks = three_view_probabilities()[np.array(weights) > 0] > 0.5
    shared = sum(2 * np.count_nonzero(a & b) for a, b in combinations(masks, 2))
    sizes = sum(np.count_nonzero(a) + np.count_nonzero(b) for a, b in combinations(masks, 2))
    assert found.agreement == pytest.approx((shared / sizes,))


def test_views_along_different_axes_are_aligned_voxel_by_voxel(image) -> None:
    """The networks depend on position only, so a mirrored or swapped axis would show."""
    views = [view(Places(), axis, SIZES[axis], weight) for axis, weight in zip(SIZES, (0.5, 0.3, 0.2), strict=True)]
    i, j, k = np.indices(SHAPE)
    ramps = 0.5 * probability(i - 2 * j, 1.0) + 0.3 * probability(i - 2 * k, 1.0) + 0.2 * probability(j - 2 * k, 1.0)
    np.testing.assert_allclose(predict(views, image).probabilities[0], ramps, atol=1e-6)


def test_a_single_view_equals_an_ensemble_in_which_it_has_all_the_weight(image) -> None:
    views = three_views((0.0, 1.0, 0.0))
    alone, weighted = predict([views[1]], image), predict(views, image)
    np.testing.assert_array_equal(alone.mask, weighted.mask)
    np.testing.assert_array_equal(alone.probabilities, weighted.probabilities)
    assert alone.soft_dice_confidence == pytest.approx(weighted.soft_dice_confidence, rel=1e-5)


def test_a_view_given_twice_equals_itself_with_full_agreement(image) -> None:
    one = three_views()[0]
    once, twice = predict([replace(one, weight=1.0)], image), predict([replace(one, weight=0.5)] * 2, image)
    np.testing.assert_array_equal(once.mask, twice.mask)
    np.testing.assert_allclose(once.probabilities, twice.probabilities, atol=1e-7)
    assert twice.agreement == (1.0,)


def test_class_probabilities_are_averaged_and_the_mask_is_their_argmax(image) -> None:
    array = intensities(SHAPE)
    slopes, offsets = ((3.0, -3.0, 1.5), (2.5, -3.5, 1.4)), ((-1.0, -1.0, 0.0), (-0.8, -1.2, 0.1))
    names = ("a", "b", "c")
    views = [
        View(model(Pointwise(slope, offset), axis, SIZES[axis], names), 0.5, PLAIN, CPU)
        for axis, slope, offset in zip(("axial", "sagittal"), slopes, offsets, strict=True)
    ]
    found = predict(views, image)
    probabilities = np.zeros((4, *SHAPE))
    for slope, offset in zip(slopes, offsets, strict=True):
        exponentials = np.exp([np.zeros(SHAPE), *(s * array + o for s, o in zip(slope, offset, strict=True))])
        probabilities += 0.5 * exponentials / exponentials.sum(0)
    np.testing.assert_allclose(found.probabilities, probabilities[1:], atol=1e-6)
    np.testing.assert_array_equal(found.mask, probabilities.argmax(0))
    assert set(np.unique(found.mask)) == {0, 1, 2, 3}
    for of_view, slope, offset in zip(found.view_volumes_mm3, slopes, offsets, strict=True):
        logits = np.stack([np.zeros(SHAPE), *(s * array + o for s, o in zip(slope, offset, strict=True))])
        assert of_view == tuple(np.bincount(logits.argmax(0).ravel(), minlength=4)[1:])
    for number in (1, 2, 3):
        expected = soft_dice(probabilities[number], found.mask == number)
        assert found.soft_dice_confidence[number - 1] == pytest.approx(expected, abs=1e-5)


def test_an_empty_prediction_has_neither_confidence_nor_agreement(image) -> None:
    always_background = Pointwise([0.0], [-9.0])
    for views in (
        [view(always_background, "axial", 9)],
        [view(always_background, "axial", 9, 0.5), view(always_background, "coronal", 7, 0.5)],
    ):
        found = predict(views, image)
        assert not found.mask.any()
        assert np.isnan(found.soft_dice_confidence[0])
        assert np.isnan(found.agreement[0])


# Variants -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fused", [False, True])
def test_agreement_is_computed_over_all_pairs_of_views_and_variants(image, fused: bool) -> None:
    """Compared with a loop over all pairs of masks, each predicted with a single variant."""
    tta_variants = variants("axial", FLIP_DIRECTIONS)
    one = view(Places(), "axial", 9, 0.5 if fused else 1.0, tta_variants)
    views = [one, view(Pointwise([4.0], [0.5]), "coronal", 7, 0.5)] if fused else [one]
    masks = [predict([replace(one, weight=1.0, variants=(variant,))], image).mask == 1 for variant in tta_variants]
    if fused:
        masks.append(predict([replace(views[1], weight=1.0)], image).mask == 1)
    shared = sum(2 * np.count_nonzero(a & b) for a, b in combinations(masks, 2))
    sizes = sum(np.count_nonzero(a) + np.count_nonzero(b) for a, b in combinations(masks, 2))
    assert 0.1 < shared / sizes < 0.9
    assert predict(views, image).agreement == pytest.approx((shared / sizes,))


def test_more_than_255_votes_are_counted(image) -> None:
    """33 views of 8 variants each are 264 votes."""
    many = [view(Pointwise([4.0], [0.0]), "axial", 9, 1 / 33, variants("axial", FLIP_DIRECTIONS)[:1] * 8)] * 33
    assert predict(many, image).agreement == (1.0,)


@pytest.mark.parametrize("fused", [False, True])
def test_the_batch_size_does_not_change_the_prediction(image, fused: bool) -> None:
    views = three_views()
    views = [replace(one, variants=variants(one.model.preprocessing.axis, FLIP_DIRECTIONS)) for one in views]
    if not fused:
        views = [replace(views[1], weight=1.0)]
    first, second = predict(views, image, batch_size=1), predict(views, image, batch_size=5)
    np.testing.assert_array_equal(first.mask, second.mask)
    np.testing.assert_allclose(first.probabilities, second.probabilities, atol=1e-6)
    assert first.soft_dice_confidence == pytest.approx(second.soft_dice_confidence, rel=1e-6)
    assert first.agreement == pytest.approx(second.agreement, rel=1e-6)


def test_probabilities_are_kept_only_on_request_and_progress_counts_every_slice(image) -> None:
    done: list[int] = []
    found = predict_volume(three_views(), image, "ct", 2, False, done.append)
    assert found.probabilities is None
    assert sum(done) == sum(to_slices(image.channels[0], axis).shape[0] for axis in SIZES)
    np.testing.assert_array_equal(found.mask, predict(three_views(), image).mask)
