"""Conformal bounds by hand, against MAPIE, and how often they hold in draws of known distributions."""

import math
import warnings

import numpy as np
import pytest
from scipy.stats import binom

from spleen.errors import InputError
from spleen.inference.calibration.conformal import (
    controlled_threshold,
    fewest_cases,
    fit_line,
    jackknife_plus,
    upper_quantile,
)


@pytest.mark.parametrize(
    ("n", "level", "expected"),
    [
        (19, 0.95, 19.0),  # 20 × 0.95 = 19
        (18, 0.95, math.inf),  # 19 × 0.95 = 18.05, and there is no 19th
        (39, 0.95, 38.0),
        (40, 0.95, 39.0),  # 41 × 0.95 = 38.95
        (9, 0.9, 9.0),
        (4, 0.5, 3.0),
        (0, 0.5, math.inf),
    ],
)
def test_the_bound_is_the_score_of_the_finite_sample_rank(n: int, level: float, expected: float) -> None:
    scores = np.random.default_rng(0).permutation(np.arange(1.0, n + 1))
    assert upper_quantile(scores, level) == expected


@pytest.mark.parametrize("level", [-0.5, 0.0, 1.0, 95.0, math.nan])
def test_a_level_that_is_no_probability_is_refused(level: float) -> None:
    for found in (
        lambda: upper_quantile(np.ones(30), level),
        lambda: jackknife_plus(np.ones(30), np.ones(30), 1.0, level),
        lambda: fewest_cases(level),
    ):
        with pytest.raises(InputError, match=f"must be between 0 and 1, such as 0.95; got {level:g}"):
            found()


def test_infinite_scores_count() -> None:
    scores = np.array([*range(1, 19), math.inf])
    assert upper_quantile(scores, 0.95) == math.inf
    assert upper_quantile(scores, 0.9) == 18.0


@pytest.mark.parametrize(("level", "fewest"), [(0.95, 19), (0.9, 9), (0.99, 99), (0.5, 1)])
def test_an_interval_needs_as_many_cases_as_its_level_says(level: float, fewest: int) -> None:
    assert fewest_cases(level) == fewest
    assert math.isfinite(upper_quantile(np.ones(fewest), level))
    assert math.isinf(upper_quantile(np.ones(fewest - 1), level))


def test_the_jackknife_plus_of_three_cases_by_hand() -> None:
    """All x are equal, so that each line is a mean: of 0, 3, 6 without one 4.5, 3, 1.5, with residuals 4.5, 0, 4.5."""
    y = np.array([0.0, 3.0, 6.0])
    # Upper ends 9, 3, 6 and lower ends 0, 3, -3; rank ⌈4 × 0.5⌉ = 2 from the bottom and from the top.
    assert jackknife_plus(np.ones(3), y, 1.0, 0.5) == (0.0, 6.0)
    assert fit_line(np.ones(3), y) == (3.0, 0.0)


def test_too_few_cases_have_no_interval() -> None:
    x = np.linspace(0, 1, 18)
    assert jackknife_plus(x, x, 0.5, 0.95) is None
    assert jackknife_plus(np.empty(0), np.empty(0), 0.5, 0.5) is None


@pytest.mark.parametrize("seed", range(4))
def test_the_interval_of_a_volume_is_that_of_mapie(seed: int) -> None:
    """Log volumes: MAPIE's split conformal regressor around a prediction that is already there."""
    from mapie.regression import SplitConformalRegressor
    from sklearn.linear_model import LinearRegression

    random = np.random.default_rng(seed)
    predicted = random.normal(12, 0.5, 60 + seed)
    reference = predicted + random.standard_t(3, len(predicted)) * 0.1
    identity = LinearRegression().fit([[0.0], [1.0]], [0.0, 1.0])
    for level in (0.9, 0.95):
        mapie = SplitConformalRegressor(identity, confidence_level=level, conformity_score="absolute", prefit=True)
        mapie.conformalize(predicted[:, None], reference)
        _, intervals = mapie.predict_interval([[12.0]])
        bound = upper_quantile(np.abs(reference - predicted), level)
        assert intervals.ravel() == pytest.approx([12 - bound, 12 + bound], abs=1e-9)


@pytest.mark.parametrize("seed", range(4))
def test_the_interval_of_a_dice_is_that_of_mapie(seed: int) -> None:
    from mapie.regression import CrossConformalRegressor
    from sklearn.linear_model import LinearRegression
    from sklearn.model_selection import LeaveOneOut

    random = np.random.default_rng(seed)
    score = random.beta(20, 2, 45 + seed)
    dice = 0.1 + 0.9 * score + random.normal(0, 0.03, len(score))
    new = np.array([0.7, 0.9, 0.97])
    line = LinearRegression().fit(score[:, None], dice)
    assert fit_line(score, dice) == pytest.approx((line.intercept_, line.coef_[0]), abs=1e-9)
    for level in (0.9, 0.95):
        mapie = CrossConformalRegressor(
            LinearRegression(), confidence_level=level, method="plus", cv=LeaveOneOut(), conformity_score="absolute"
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            mapie.fit_conformalize(score[:, None], dice)
            _, intervals = mapie.predict_interval(new[:, None])
        ours = [jackknife_plus(score, dice, each, level) for each in new]
        np.testing.assert_allclose(ours, intervals[:, :, 0], atol=1e-9)


@pytest.mark.parametrize("n", [19, 50])
def test_the_coverage_in_draws_is_the_wanted_one(n: int) -> None:
    """The exact coverage of a split conformal bound is rank / (n + 1); the jackknife+ comes near the level."""
    random, draws = np.random.default_rng(5), 2000
    volume, dice = 0, 0
    for _ in range(draws):
        errors = np.abs(random.standard_t(2, n + 1))
        volume += errors[-1] <= upper_quantile(errors[:-1], 0.95)
        x = random.uniform(0.5, 1, n + 1)
        y = x + random.normal(0, 0.05, n + 1)
        interval = jackknife_plus(x[:-1], y[:-1], x[-1], 0.95)
        assert interval is not None
        dice += interval[0] <= y[-1] <= interval[1]
    exact = math.ceil(0.95 * (n + 1)) / (n + 1)
    low, high = binom.interval(0.999, draws, exact)
    assert low <= volume <= high
    assert 0.93 <= dice / draws <= 0.98


def test_the_gate_lets_as_many_bad_cases_pass_as_the_error_rate_allows() -> None:
    """Of 39 cases, (1 + 1) / 40 = 5 %: one bad case may lie above the threshold."""
    scores = np.linspace(0.2, 0.96, 39)
    is_bad = np.zeros(39, dtype=bool)
    is_bad[[5, 20, 30]] = True
    assert controlled_threshold(scores, is_bad, 0.05) == scores[20]
    assert controlled_threshold(scores, is_bad, 0.025) == scores[30]  # none may
    assert controlled_threshold(scores, is_bad, 0.1) == 0.0  # (3 + 1) / 40 = 10 %: all may
    assert controlled_threshold(scores[:18], is_bad[:18], 0.05) is None  # 1 / 19 > 5 %, even without a bad case
    assert controlled_threshold(scores[:19], is_bad[:19], 0.05) == scores[5]


def test_the_gate_keeps_its_error_rate_in_draws() -> None:
    random, draws, n = np.random.default_rng(6), 4000, 60
    passed = 0
    for _ in range(draws):
        score = random.uniform(0, 1, n + 1)
        is_bad = random.uniform(0, 1, n + 1) > score
        threshold = controlled_threshold(score[:-1], is_bad[:-1], 0.1)
        assert threshold is not None
        passed += is_bad[-1] and score[-1] > threshold
    # With a continuous score the rate is exactly (5 + 1) / 61, if there are enough bad cases.
    assert binom.cdf(passed, draws, 6 / 61) > 1e-3
    assert binom.sf(passed, draws, 0.1) > 1e-3
