"""Change of a volume between two scans, and the smallest change that means anything.

Volumes are compared by the logarithm of their ratio, so that +25 % and back −20 % are the same distance. Pure NumPy.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import Literal

import numpy as np
from jaxtyping import Float64

LEVEL = 0.95
LEAST_PAIRS = 3
"""Test–retest pairs from which a limit is computed."""
LEAST_CASES = 10
"""Calibrating cases from which a limit is computed."""
DAYS_PER_YEAR = 365.25
LEAST_DAYS = 30
"""A shorter time is not extrapolated to a year."""


@dataclass(frozen=True)
class RepeatabilityLimit:
    """Two scans whose volumes differ by less than this do not show a change, at a level of 95 %."""

    log_ratio: float
    """Half width of the interval of log(second / first)."""
    source: Literal["test-retest", "calibration"]
    n: int
    """Pairs, or calibrating cases."""

    @property
    def percent(self) -> tuple[float, float]:
        """The largest decrease and increase that mean nothing, such as −4.8 and +5.0."""
        return 100 * math.expm1(-self.log_ratio), 100 * math.expm1(self.log_ratio)


@dataclass(frozen=True)
class Change:
    """Change from one scan to a later one. Intervals are None without a limit, annual values within 30 days."""

    from_day: date
    to_day: date
    absolute_mm3: float
    absolute_interval_mm3: tuple[float, float] | None
    percent: float
    percent_interval: tuple[float, float] | None
    annual_percent: float | None
    annual_interval: tuple[float, float] | None
    is_beyond_limit: bool | None
    """Whether the interval excludes no change; None without a limit."""


def limit_of_pairs(pairs: Sequence[tuple[float, float]], level: float = LEVEL) -> RepeatabilityLimit | None:
    """From the volumes of test–retest pairs, between which nothing changed; None for fewer than three pairs.

    Repeatability coefficient on the log scale (Bland and Altman 1999, Stat Methods Med Res 8:135; Raunig et al. 2015,
    Stat Methods Med Res 24:27), with Student's t in place of 1.96 because the within-subject deviation is estimated
    from few pairs. Volumes must be positive.
    """
    differences = np.array([math.log(second / first) for first, second in pairs])
    if len(differences) < LEAST_PAIRS:
        return None
    return RepeatabilityLimit(
        student_t(len(pairs), level) * float(np.sqrt(np.mean(differences**2))), "test-retest", len(pairs)
    )


def limit_of_errors(log_errors: Float64[np.ndarray, " n"], level: float = LEVEL) -> RepeatabilityLimit | None:
    """From log(reference / predicted) of calibrating cases; None for fewer than ten, or where one is infinite.

    The difference of two errors has √2 times their deviation if they are independent. Errors in scans of one patient
    resemble each other, so the limit rather is too wide. A systematic error cancels.
    """
    if len(log_errors) < LEAST_CASES or not np.isfinite(log_errors).all():
        return None
    deviation = float(np.std(log_errors, ddof=1))
    return RepeatabilityLimit(
        student_t(len(log_errors) - 1, level) * math.sqrt(2) * deviation, "calibration", len(log_errors)
    )


def change_between(
    first: tuple[date, float], second: tuple[date, float], limit: RepeatabilityLimit | None
) -> Change | None:
    """Change from the first (date, volume in mm³) to the second; None unless both volumes are positive."""
    (from_day, before), (to_day, after) = first, second
    if before <= 0 or after <= 0:
        return None
    ratio = math.log(after / before)
    ends = None if limit is None else (ratio - limit.log_ratio, ratio + limit.log_ratio)
    days = (to_day - from_day).days
    per_year = DAYS_PER_YEAR / days if days >= LEAST_DAYS else None
    return Change(
        from_day,
        to_day,
        after - before,
        None if ends is None else (before * math.expm1(ends[0]), before * math.expm1(ends[1])),
        100 * math.expm1(ratio),
        None if ends is None else _percents(ends),
        None if per_year is None else 100 * math.expm1(ratio * per_year),
        None if per_year is None or ends is None else _percents((ends[0] * per_year, ends[1] * per_year)),
        None if limit is None else abs(ratio) > limit.log_ratio,
    )


def _percents(ends: tuple[float, float]) -> tuple[float, float]:
    return 100 * math.expm1(ends[0]), 100 * math.expm1(ends[1])


def student_t(degrees_of_freedom: int, level: float = LEVEL) -> float:
    """The half width of the central interval of Student's distribution."""
    from scipy.stats import t

    return float(t.ppf((1 + level) / 2, degrees_of_freedom))
