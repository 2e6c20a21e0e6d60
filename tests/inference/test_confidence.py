"""The confidence score, computed by hand for volumes of 5 × 7 × 3 voxels of 3.2 mm³ each."""

import math

import numpy as np
import pytest

from spleen.inference.confidence import ClassConfidence, confidence_scores
from spleen.inference.ensemble import VolumePrediction
from tests._helpers.nifti import SHAPE, box

VOXEL_MM3 = 0.8 * 0.8 * 5.0  # 3.2
NAN = math.nan


def volume_mm3(mask: np.ndarray) -> float:
    return int(mask.sum()) * VOXEL_MM3


def score_mask(
    mask: np.ndarray,
    confidence: float = 0.95,
    agreement: float = NAN,
    training_volumes_mm3: tuple[float, float] = (0.0, 1e6),
) -> ClassConfidence:
    prediction = VolumePrediction(mask.astype(np.uint8), None, (confidence,), (agreement,), (NAN,), ())
    (score,) = confidence_scores(prediction, ["spleen"], [training_volumes_mm3], volume_mm3)
    return score


def two_components() -> np.ndarray:
    """16 voxels in one component and 4 in another."""
    mask = box()
    mask[4, :4, 2] = 0
    mask[1:3, 6, 2] = mask[1:3, 5, 2] = 0
    mask[4, 0:2, 0:2] = 1
    return mask


def test_a_good_prediction_needs_no_review() -> None:
    score = score_mask(box(), confidence=0.95, agreement=0.96)
    assert (score.class_name, score.n_components, score.largest_component_fraction) == ("spleen", 1, 1.0)
    assert score.volume_mm3 == pytest.approx(2 * 4 * 2 * VOXEL_MM3)
    assert score.confidence_score == pytest.approx(0.95 * 0.96)
    assert (score.review, score.reasons) == (False, "")


def test_the_score_is_the_product_of_the_known_factors() -> None:
    score = score_mask(two_components(), confidence=0.9, agreement=0.8)
    assert (score.n_components, score.largest_component_fraction) == (2, 16 / 20)
    assert score.volume_mm3 == pytest.approx(20 * VOXEL_MM3)
    assert score.confidence_score == pytest.approx(0.9 * 0.8 * 0.8)
    single_view = score_mask(two_components(), confidence=0.9, agreement=NAN)
    assert single_view.confidence_score == pytest.approx(0.9 * 0.8)
    assert math.isnan(single_view.agreement)


def test_voxels_that_touch_at_a_corner_form_one_component() -> None:
    mask = np.zeros(SHAPE)
    mask[0, 0, 0] = mask[1, 1, 1] = mask[2, 2, 2] = 1
    assert score_mask(mask).n_components == 1


@pytest.mark.parametrize(
    ("confidence", "agreement", "reasons"),
    [
        (0.7, 0.9, "uncertain boundary (0.70)"),
        (0.9, 0.6, "views disagree (0.60)"),
        (0.84, NAN, "uncertain boundary (0.84)"),
        (0.86, NAN, "fragmented mask (0.80)"),  # score 0.86 × 0.8
        (0.9, 0.81, "fragmented mask (0.80)"),
    ],
)
def test_the_lowest_factor_is_the_reason_for_review(confidence: float, agreement: float, reasons: str) -> None:
    mask = two_components() if "fragmented" in reasons else box()
    score = score_mask(mask, confidence, agreement)
    assert (score.review, score.reasons) == (True, reasons)


@pytest.mark.parametrize(
    ("training", "ratio", "review"),
    [
        ((10.0, 100.0), 1.0, False),  # the box is 51.2 mm³
        ((51.2, 51.2), 1.0, False),
        ((60.0, 100.0), 51.2 / 60, False),
        ((102.3, 200.0), 51.2 / 102.3, False),  # a little more than half of the smallest
        ((102.5, 200.0), 51.2 / 102.5, True),
        ((10.0, 25.7), 51.2 / 25.7, False),  # a little less than twice the largest
        ((10.0, 25.5), 51.2 / 25.5, True),
        ((0.0, 0.0), 1.0, False),  # the training cases contained none: nothing to compare with
    ],
)
def test_a_volume_far_from_the_training_volumes_is_flagged_for_review(
    training: tuple[float, float], ratio: float, review: bool
) -> None:
    score = score_mask(box(), training_volumes_mm3=training)
    assert score.volume_to_training == pytest.approx(ratio)
    assert score.review == review
    assert score.reasons == (f"{ratio:.2g} times the volume of any training case" if review else "")
    assert score.confidence_score == pytest.approx(0.95)  # the score itself ignores the volume


def test_several_reasons_are_all_listed() -> None:
    score = score_mask(box(), confidence=0.5, training_volumes_mm3=(10.0, 20.0))
    assert score.reasons == "uncertain boundary (0.50); 2.6 times the volume of any training case"


def test_an_empty_prediction_is_flagged_for_review() -> None:
    score = score_mask(np.zeros(SHAPE), confidence=NAN, agreement=NAN, training_volumes_mm3=(10.0, 20.0))
    assert (score.confidence_score, score.volume_mm3, score.n_components) == (0.0, 0.0, 0)
    assert (score.review, score.reasons) == (True, "nothing was found")
    assert math.isnan(score.largest_component_fraction)
    assert score.volume_to_training == 0.0


def test_every_class_is_scored_on_its_own_voxels() -> None:
    mask = box(value=2)
    mask[0, 0, 0] = mask[4, 6, 2] = 3
    prediction = VolumePrediction(mask.astype(np.uint8), None, (NAN, 0.9, 0.8), (NAN, 0.99, 0.9), (NAN,) * 3, ())
    scores = confidence_scores(prediction, ["a", "b", "c"], [(1, 9), (1, 99), (1, 99)], volume_mm3)
    assert [(score.class_name, score.n_components) for score in scores] == [("a", 0), ("b", 1), ("c", 2)]
    assert [score.confidence_score for score in scores] == pytest.approx([0.0, 0.9 * 0.99, 0.8 * 0.9 * 0.5])
