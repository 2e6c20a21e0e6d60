"""Change between two volumes, and the limit below which it means nothing."""

import math
from datetime import date

import numpy as np
import pytest

from spleen.followup.change import change_between, limit_of_errors, limit_of_pairs

JANUARY, NEXT_JANUARY, LATER = date(2024, 1, 1), date(2025, 1, 1), date(2024, 1, 20)


def test_the_limit_of_pairs_by_hand() -> None:
    # log ratios 0.1, −0.1, 0.2: mean square 0.02; t with 3 degrees of freedom is 3.1824 at 95 %.
    pairs = [(100.0, 100 * math.exp(0.1)), (100.0, 100 * math.exp(-0.1)), (50.0, 50 * math.exp(0.2))]
    limit = limit_of_pairs(pairs)
    assert limit is not None
    assert limit.log_ratio == pytest.approx(3.1824463 * math.sqrt(0.02), rel=1e-6)
    assert (limit.source, limit.n) == ("test-retest", 3)
    assert limit.percent == pytest.approx((100 * (math.exp(-0.4500659) - 1), 100 * (math.exp(0.4500659) - 1)), rel=1e-5)


def test_the_limit_of_errors_by_hand() -> None:
    # Deviation of 10 errors ±0.03 around a bias of 0.5 is 0.03·√(10/9); t with 9 degrees of freedom is 2.2622.
    limit = limit_of_errors(np.array([0.53, 0.47] * 5))
    assert limit is not None
    assert limit.log_ratio == pytest.approx(2.2621572 * math.sqrt(2) * 0.03 * math.sqrt(10 / 9), rel=1e-6)
    assert (limit.source, limit.n) == ("calibration", 10)


def test_too_few_or_infinite_errors_give_no_limit() -> None:
    assert limit_of_pairs([(1.0, 2.0), (2.0, 1.0)]) is None
    assert limit_of_errors(np.linspace(0, 1, 9)) is None
    assert limit_of_errors(np.array([0.1] * 20 + [-math.inf])) is None


def test_a_change_by_hand() -> None:
    limit = limit_of_pairs([(100.0, 110.0)] * 5)
    assert limit is not None
    factor = 1.1**2.5705818  # t with 5 degrees of freedom
    change = change_between((JANUARY, 200_000.0), (NEXT_JANUARY, 300_000.0), limit)
    assert change is not None
    assert change.absolute_mm3 == pytest.approx(100_000)
    assert change.percent == pytest.approx(50)
    assert change.percent_interval == pytest.approx((100 * (1.5 / factor - 1), 100 * (1.5 * factor - 1)), rel=1e-6)
    assert change.absolute_interval_mm3 == pytest.approx((2e5 * (1.5 / factor - 1), 2e5 * (1.5 * factor - 1)), rel=1e-6)
    assert change.annual_percent == pytest.approx(100 * (1.5 ** (365.25 / 366) - 1))  # 2024 is a leap year
    assert change.is_beyond_limit
    within = change_between((JANUARY, 200.0), (NEXT_JANUARY, 210.0), limit)
    assert within is not None
    assert within.is_beyond_limit is False


def test_without_a_limit_there_is_no_interval_and_within_30_days_no_annual_change() -> None:
    change = change_between((JANUARY, 100.0), (LATER, 80.0), None)
    assert change is not None
    assert change.percent == pytest.approx(-20)
    assert change.percent_interval is change.absolute_interval_mm3 is change.is_beyond_limit is None
    assert change.annual_percent is change.annual_interval is None


def test_nothing_is_no_baseline() -> None:
    assert change_between((JANUARY, 0.0), (LATER, 80.0), None) is None
    assert change_between((JANUARY, 80.0), (LATER, 0.0), None) is None


@pytest.mark.parametrize("n", [10, 40])
def test_both_limits_call_5_percent_of_unchanged_pairs_a_change(n: int) -> None:
    rng = np.random.default_rng(0)
    called = []
    for _ in range(4000):
        errors = rng.normal(0.1, 0.02, n + 2)
        (limit_a, limit_b) = (
            limit_of_errors(errors[:n]),
            limit_of_pairs([(1.0, math.exp(d)) for d in rng.normal(0, 0.02 * math.sqrt(2), n)]),
        )
        assert limit_a is not None
        assert limit_b is not None
        difference = abs(errors[-1] - errors[-2])
        called.append((difference > limit_a.log_ratio, difference > limit_b.log_ratio))
    assert np.abs(np.mean(called, axis=0) - 0.05).max() < 0.012  # 3.5 standard errors
