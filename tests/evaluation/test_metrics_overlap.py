import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import f1_score, jaccard_score, precision_score, recall_score
from torchmetrics.classification import BinaryJaccardIndex
from torchmetrics.segmentation import DiceScore

from spleen.evaluation.metrics.overlap import (
    ConfusionCounts,
    count_confusion,
    dice,
    jaccard,
    precision,
    sensitivity,
    specificity,
)
from spleen.evaluation.metrics.per_case import CaseScore, case_scores, mean_scores
from spleen.training.scores import PerCaseCounts

SCORES = (dice, jaccard, sensitivity, specificity, precision)
SHAPE = (5, 7, 3)
VOXEL_MM3 = 0.8 * 0.8 * 5.0


def _maps(n_classes=2, seed=0):
    """A prediction and a random reference, of which the prediction copies about two thirds of the voxels."""
    random = np.random.default_rng(seed)
    reference = random.integers(0, n_classes, SHAPE)
    prediction = np.where(random.random(SHAPE) < 0.66, reference, random.integers(0, n_classes, SHAPE))
    return torch.from_numpy(prediction), torch.from_numpy(reference)


def _counts(*four):
    return ConfusionCounts(*(torch.tensor([[count]]) for count in four))


def _case(prediction, reference, n_classes=2):
    metric = PerCaseCounts(1, n_classes)
    metric.update(prediction, reference, 0)
    names = [f"organ {number}" for number in range(1, n_classes)]
    return case_scores(metric.compute(), ["c"], names, [VOXEL_MM3])


def test_scores_of_one_organ_match_torchmetrics():
    prediction, reference = _maps()
    (ours,) = _case(prediction, reference)
    theirs = DiceScore(num_classes=2, include_background=False, aggregation_level="global", input_format="index")
    assert ours.dice == pytest.approx(theirs(prediction, reference).item())
    assert ours.jaccard == pytest.approx(BinaryJaccardIndex()(prediction, reference).item())


def test_scores_of_several_organs_match_torchmetrics():
    prediction, reference = _maps(n_classes=4)
    theirs = DiceScore(4, False, average="none", aggregation_level="global", input_format="index")
    ours = [score.dice for score in _case(prediction, reference, n_classes=4)]
    assert ours == pytest.approx(theirs(prediction, reference).tolist())


def test_every_score_of_every_class_matches_scikit_learn():
    prediction, reference = _maps(n_classes=3)
    for number, ours in enumerate(_case(prediction, reference, n_classes=3), start=1):
        truth, predicted = (reference == number).flatten().numpy(), (prediction == number).flatten().numpy()
        assert ours.dice == pytest.approx(f1_score(truth, predicted))
        assert ours.jaccard == pytest.approx(jaccard_score(truth, predicted))
        assert ours.sensitivity == pytest.approx(recall_score(truth, predicted))
        assert ours.specificity == pytest.approx(recall_score(truth, predicted, pos_label=False))
        assert ours.precision == pytest.approx(precision_score(truth, predicted))


def test_confusion_counts_of_two_small_masks_match_hand_computed_values():
    reference = torch.tensor([[0, 1, 1], [2, 2, 0]], dtype=torch.uint8)
    prediction = torch.tensor([[1, 1, 0], [2, 1, 0]], dtype=torch.uint8)
    # TP, FP, FN, TN of class 1 and of class 2
    assert count_confusion(prediction, reference, 3).tolist() == [[1, 2, 1, 2], [1, 0, 1, 4]]


NAN = math.nan


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        # TP FP FN TN        Dice Jaccard sensitivity specificity precision
        ((0, 0, 0, 105), (NAN, NAN, NAN, 1.0, NAN)),
        ((0, 0, 5, 100), (0.0, 0.0, 0.0, 1.0, 0.0)),
        ((0, 5, 0, 100), (0.0, 0.0, NAN, 100 / 105, 0.0)),
        ((0, 5, 5, 95), (0.0, 0.0, 0.0, 0.95, 0.0)),
        ((105, 0, 0, 0), (1.0, 1.0, 1.0, NAN, 1.0)),
    ],
    ids=["both empty", "false negative", "false positive", "disjoint", "all foreground"],
)
def test_empty_masks_follow_the_policy(counts, expected):
    assert [score(_counts(*counts)).item() for score in SCORES] == pytest.approx(expected, nan_ok=True)


def test_volumes_are_in_mm3():
    """3 × 4 × 2 voxels against 2 × 4 × 2 of 0.8 × 0.8 × 5 mm each."""
    reference, prediction = torch.zeros(2, *SHAPE, dtype=torch.uint8)
    reference[1:4, 2:6, :2] = prediction[1:3, 2:6, :2] = 1
    (score,) = _case(prediction, reference)
    assert score.volume_reference_mm3 == pytest.approx(24 * 3.2)
    assert score.volume_prediction_mm3 == pytest.approx(16 * 3.2)
    assert score.dice == pytest.approx(2 * 16 / (24 + 16))


@given(cuts=st.sets(st.integers(1, 4), max_size=4), order=st.permutations(range(3)))
@settings(max_examples=30, deadline=None, derandomize=True)
def test_batching_and_order_do_not_change_the_counts_of_a_case(cuts, order):
    cases = [_maps(3, seed) for seed in range(3)]
    whole, pieces = PerCaseCounts(3, 3), PerCaseCounts(3, 3)
    for number, (prediction, reference) in enumerate(cases):
        whole.update(prediction, reference, number)
    bounds = [0, *sorted(cuts), SHAPE[0]]
    for first, last in pairwise(bounds):
        for number in order:
            prediction, reference = cases[number]
            pieces.update(prediction[first:last], reference[first:last], number)
    assert torch.equal(pieces.compute(), whole.compute())


def test_counts_of_a_case_shared_between_processes_are_summed():
    """The states are merged as torchmetrics does across processes."""
    prediction, reference = _maps(3)
    first, second, whole = (PerCaseCounts(2, 3) for _ in range(3))
    first.update(prediction[:2], reference[:2], 1)
    second.update(prediction[2:], reference[2:], 1)
    second.update(prediction, reference, 0)
    whole.update(prediction, reference, 0)
    whole.update(prediction, reference, 1)
    first.merge_state(second)
    assert torch.equal(first.compute(), whole.compute())
    first.reset()
    assert not first.counts.any()


def test_each_case_has_its_own_voxel_size():
    metric = PerCaseCounts(2, 2)
    for number in range(2):
        metric.update(*_maps(), number)
    small, large = case_scores(metric.compute(), ["a", "b"], ["organ"], [1.0, 3.0])
    assert large.volume_reference_mm3 == pytest.approx(3 * small.volume_reference_mm3)
    assert (small.case_id, large.case_id) == ("a", "b")


def _score(case_id, dice_value, predicted_mm3=10.0, reference_mm3=10.0, class_name="organ"):
    others = dict.fromkeys(("jaccard", "sensitivity", "specificity", "precision"), dice_value)
    return CaseScore(
        case_id,
        class_name,
        dice_value,
        **others,
        volume_prediction_mm3=predicted_mm3,
        volume_reference_mm3=reference_mm3,
    )


def test_an_empty_case_is_counted_but_excluded_and_a_missed_one_scores_zero():
    scores = [_score("a", 0.9), _score("b", NAN, 0.0, 0.0), _score("c", 0.0, 0.0, 10.0), _score("d", 0.0, 10.0, 0.0)]
    means = mean_scores(scores)
    assert (means.n_cases, means.n_empty, means.n_missed) == (4, 1, 1)
    assert means.dice == pytest.approx(0.9 / 3)


def test_scores_are_averaged_over_classes_within_a_case_before_averaging_over_cases():
    """Case a, with one defined class, has the same weight as case b, with two."""
    scores = [
        _score("a", 0.8, class_name="left"),
        _score("a", NAN, 0.0, 0.0, class_name="right"),
        _score("b", 0.2, class_name="left"),
        _score("b", 0.6, class_name="right"),
    ]
    means = mean_scores(scores)
    assert means.dice == pytest.approx((0.8 + 0.4) / 2)
    assert (means.n_cases, means.n_empty) == (2, 1)


def test_the_mean_over_only_empty_cases_is_nan():
    means = mean_scores([_score("a", NAN, 0.0, 0.0)])
    assert math.isnan(means.dice)
    assert (means.n_cases, means.n_empty, means.n_missed) == (1, 1, 0)
