"""Confidence intervals and tests against scipy, or hand-computed where scipy has no answer."""

import math

import numpy as np
import pytest
from scipy.stats import bootstrap, wilcoxon

from spleen.evaluation.metrics.statistics import Interval, bootstrap_mean_interval, wilcoxon_p

INF = math.inf


@pytest.mark.parametrize("n", [2, 7, 20, 90])
def test_the_interval_matches_the_bca_interval_of_scipy(n):
    """Both draw their resamples independently, so they agree to within a few per cent of the width."""
    values = np.random.default_rng(n).beta(8, 1.5, n)  # skewed, like Dice
    theirs = bootstrap((values,), np.mean, n_resamples=20_000, method="BCa", batch=1000).confidence_interval
    ours = bootstrap_mean_interval(values.tolist())
    assert ours is not None
    width = theirs.high - theirs.low
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=0.05 * width)


def test_the_interval_is_deterministic():
    values = [0.9, 0.8, 0.95, 0.6]
    assert bootstrap_mean_interval(values) == bootstrap_mean_interval(values)


def test_the_interval_shifts_with_the_values():
    values = [0.9, 0.8, 0.95, 0.6, 0.7]
    near, far = bootstrap_mean_interval(values), bootstrap_mean_interval([value + 100 for value in values])
    assert near is not None
    assert far is not None
    assert (far.low - 100, far.high - 100) == pytest.approx((near.low, near.high))


def test_equal_values_have_a_zero_width_interval():
    assert bootstrap_mean_interval([0.1, 0.1, 0.1]) == Interval(0.1, 0.1)


@pytest.mark.parametrize("values", [[], [0.9], [1.0, INF, -INF]])
def test_no_interval_for_fewer_than_two_values_or_an_undefined_mean(values):
    assert bootstrap_mean_interval(values) is None


def test_an_infinite_value_affects_only_the_bound_on_its_side():
    """Of the resamples of 1 and inf, a quarter are (1, 1); all others have an infinite mean."""
    assert bootstrap_mean_interval([1.0, INF]) == Interval(1.0, INF)
    assert bootstrap_mean_interval([1.0, -INF]) == Interval(-INF, 1.0)
    low = bootstrap_mean_interval([2.0] * 30 + [INF])
    assert low == Interval(2.0, INF)


def test_at_least_six_pairs_are_needed_for_significance():
    """Of the 2ⁿ equally likely sign patterns, two are this extreme: all better and all worse."""
    assert wilcoxon_p([0.1, 0.2, 0.3, 0.4, 0.5]) == pytest.approx(2 / 2**5)
    assert wilcoxon_p([0.1, 0.2, 0.3, 0.4, 0.5, 0.6]) == pytest.approx(2 / 2**6)


def test_the_p_value_matches_scipy():
    differences = np.random.default_rng(0).normal(0.3, 1, 25).tolist()
    assert wilcoxon_p(differences) == pytest.approx(wilcoxon(differences).pvalue)


def test_zero_differences_are_excluded():
    differences = [0.1, -0.2, 0.3, 0.4, 0.5, 0.6, 0.7]
    assert wilcoxon_p([*differences, 0.0, 0.0]) == wilcoxon_p(differences)
    assert wilcoxon_p([0.0, 0.0]) == 1.0


def test_an_infinite_difference_has_the_highest_rank():
    assert wilcoxon_p([0.1, 0.2, 0.3, 0.4, 0.5, INF]) == wilcoxon_p([0.1, 0.2, 0.3, 0.4, 0.5, 0.6])
    assert wilcoxon_p([0.1, 0.2, 0.3, 0.4, 0.5, -INF]) == wilcoxon_p([0.1, 0.2, 0.3, 0.4, 0.5, -0.6])


@pytest.mark.parametrize("statistic", [bootstrap_mean_interval, wilcoxon_p])
def test_nan_is_rejected(statistic):
    with pytest.raises(ValueError, match="NaN"):
        statistic([0.5, math.nan])
