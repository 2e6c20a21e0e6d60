"""Diagnostic-test metrics of voxels, against hand-computed values and scikit-learn."""

import math

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, class_likelihood_ratios, precision_score

from spleen.errors import InputError
from spleen.evaluation.metrics.diagnostic import (
    accuracy,
    check_prevalence,
    likelihood_ratio_negative,
    likelihood_ratio_positive,
    negative_predictive_value,
    post_test_probability,
    voxel_prevalence,
)
from spleen.evaluation.metrics.overlap import ConfusionCounts, precision

INF, NAN = math.inf, math.nan
SCORES = (
    negative_predictive_value,
    accuracy,
    likelihood_ratio_positive,
    likelihood_ratio_negative,
    voxel_prevalence,
)


def counts_of(*four):
    return ConfusionCounts(*(torch.tensor([[count]]) for count in four))


def random_counts(seed):
    random = np.random.default_rng(seed)
    truth = random.random(300) < 0.3
    predicted = np.where(random.random(300) < 0.8, truth, random.random(300) < 0.3)
    table = [
        np.sum(predicted & truth),
        np.sum(predicted & ~truth),
        np.sum(~predicted & truth),
        np.sum(~predicted & ~truth),
    ]
    return truth, predicted, counts_of(*(int(count) for count in table))


@pytest.mark.parametrize("seed", range(5))
def test_scores_match_scikit_learn(seed):
    truth, predicted, counts = random_counts(seed)
    positive, negative = class_likelihood_ratios(truth, predicted)
    assert likelihood_ratio_positive(counts).item() == pytest.approx(positive)
    assert likelihood_ratio_negative(counts).item() == pytest.approx(negative)
    assert negative_predictive_value(counts).item() == pytest.approx(precision_score(truth, predicted, pos_label=False))
    assert accuracy(counts).item() == pytest.approx(accuracy_score(truth, predicted))
    assert voxel_prevalence(counts).item() == pytest.approx(truth.mean())


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        # TP FP FN TN          NPV       accuracy  LR+       LR-      prevalence
        ((8, 2, 2, 88), (88 / 90, 0.96, 0.8 / (2 / 90), 0.2 / (88 / 90), 0.1)),
        ((0, 0, 0, 100), (1.0, 1.0, NAN, NAN, 0.0)),
        ((0, 0, 5, 95), (0.95, 0.95, NAN, 1.0, 0.05)),
        ((0, 5, 0, 95), (1.0, 0.95, NAN, NAN, 0.0)),
        ((5, 0, 5, 90), (90 / 95, 0.95, INF, 0.5, 0.1)),
        ((0, 5, 5, 90), (90 / 95, 0.90, 0.0, 1 / (90 / 95), 0.05)),
        ((5, 95, 0, 0), (NAN, 0.05, 1.0, NAN, 0.05)),
        ((5, 90, 5, 0), (0.0, 0.05, 0.5, INF, 0.1)),
        ((100, 0, 0, 0), (NAN, 1.0, NAN, NAN, 1.0)),
    ],
    ids=[
        "typical",
        "both empty",
        "false negative",
        "false positive",
        "no false positives",
        "disjoint",
        "all predicted",
        "inverted",
        "all foreground",
    ],
)
def test_scores_match_hand_computed_values(counts, expected):
    assert [score(counts_of(*counts)).item() for score in SCORES] == pytest.approx(expected, nan_ok=True)


@pytest.mark.parametrize(
    ("ratio", "prevalence", "expected"),
    [
        (9.0, 0.1, 0.5),  # odds 1/9 × 9 = 1
        (4.0, 0.5, 0.8),  # odds 1 × 4
        (0.25, 0.8, 0.5),  # odds 4 × 1/4
        (1.0, 0.02, 0.02),  # an uninformative test
        (INF, 0.01, 1.0),
        (0.0, 0.9, 0.0),
        (NAN, 0.5, NAN),
    ],
)
def test_posterior_odds_are_prior_odds_times_the_likelihood_ratio(ratio, prevalence, expected):
    posterior = post_test_probability(torch.tensor([[ratio]], dtype=torch.float64), prevalence).item()
    assert posterior == pytest.approx(expected, nan_ok=True)


@pytest.mark.parametrize("seed", range(5))
def test_at_the_observed_prevalence_the_posteriors_are_precision_and_one_minus_npv(seed):
    _, _, counts = random_counts(seed)
    observed = voxel_prevalence(counts)
    positive = post_test_probability(likelihood_ratio_positive(counts), observed)
    negative = post_test_probability(likelihood_ratio_negative(counts), observed)
    assert positive.item() == pytest.approx(precision(counts).item())
    assert negative.item() == pytest.approx(1 - negative_predictive_value(counts).item())


@pytest.mark.parametrize("prevalence", [0.0, 1.0, -0.1, 2.0, NAN])
def test_a_prevalence_not_strictly_between_0_and_1_is_rejected(prevalence):
    with pytest.raises(InputError, match="prevalence"):
        check_prevalence(prevalence)
