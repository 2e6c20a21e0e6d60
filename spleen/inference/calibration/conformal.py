"""Conformal prediction: intervals and thresholds that hold for new cases drawn like the calibrating ones.

No distribution is assumed, only that the order of the cases does not matter (exchangeability).
"""

import math

import numpy as np
from jaxtyping import Bool, Float64

from spleen.errors import InputError

Values = Float64[np.ndarray, " n"]

# 20 × 0.95 must count as 19, whatever the rounding of the product.
_ROUNDING = 1e-9
# A sum of squares below this is that of equal values.
_FLAT = 1e-12


def rank(n: int, level: float) -> int:
    """The rank ⌈(n + 1) · level⌉ among n sorted scores, from 1, that a new score does not exceed at this level.

    Raises InputError for a level that is not between 0 and 1.
    """
    _check_level(level)
    return math.ceil((n + 1) * level - _ROUNDING)


def fewest_cases(level: float) -> int:
    """The fewest calibrating cases with which an interval at this level exists: 19 at 95 %; InputError as `rank`."""
    _check_level(level)
    return math.ceil(level / (1 - level) - _ROUNDING)


def _check_level(level: float) -> None:
    if not 0 < level < 1:
        raise InputError(f"the level of an interval must be between 0 and 1, such as 0.95; got {level:g}")


def upper_quantile(scores: Values, level: float) -> float:
    """The bound that the score of a new case exceeds with a probability of at most 1 - level; inf for too few scores.

    Split conformal prediction: Papadopoulos et al. 2002; Lei et al., J. Am. Stat. Assoc. 113, 2018. For scores of
    held-out cases, pooled over the folds of a cross-validation, it is the cross-conformal predictor of Vovk (Ann. Math.
    Artif. Intell. 74, 2015): exact in practice, with a proven coverage of about 1 - 2 (1 - level) in the worst case
    (Barber et al., Ann. Stat. 49, 2021).
    """
    position = rank(len(scores), level)
    return math.inf if position > len(scores) else float(np.sort(scores)[position - 1])


def fit_line(x: Values, y: Values) -> tuple[float, float]:
    """Intercept and slope of the least-squares line; slope 0 where all x are equal."""
    dx, dy = x - x.mean(), y - y.mean()
    slope = float(dx @ dy / (dx @ dx)) if dx @ dx > _FLAT else 0.0
    return float(y.mean()) - slope * float(x.mean()), slope


def jackknife_plus(x: Values, y: Values, new_x: float, level: float) -> tuple[float, float] | None:
    """Interval for the y of a new case around the least-squares line through the calibrating ones; None for too few.

    The jackknife+ of Barber, Candès, Ramdas and Tibshirani (Ann. Stat. 49, 2021): for each case i, the line fitted
    without it predicts the new case, widened by its residual at case i; the bounds are ranks of these.
    """
    n = len(x)
    position = rank(n, level)
    if position > n or n < 2:
        return None
    intercepts, slopes = _lines_without_one(x, y)
    residuals = np.abs(y - intercepts - slopes * x)
    predicted = intercepts + slopes * new_x
    low, high = np.sort(predicted - residuals), np.sort(predicted + residuals)
    return float(low[n - position]), float(high[position - 1])


def _lines_without_one(x: Values, y: Values) -> tuple[Values, Values]:
    """Intercepts and slopes of the n lines that each leave one case out, from the sums over all."""
    n = len(x)
    dx, dy = x - x.mean(), y - y.mean()
    share = n / (n - 1)
    s_xx, s_xy = dx @ dx - share * dx**2, dx @ dy - share * dx * dy
    is_flat = s_xx <= _FLAT
    slopes = np.where(is_flat, 0.0, s_xy / np.where(is_flat, 1.0, s_xx))
    return (y.mean() - dy / (n - 1)) - slopes * (x.mean() - dx / (n - 1)), slopes


def controlled_threshold(scores: Values, is_bad: Bool[np.ndarray, " n"], error_rate: float) -> float | None:
    """The lowest threshold with P(a new case is bad, and its score above the threshold) ≤ `error_rate`.

    Conformal risk control (Angelopoulos et al., "Conformal Risk Control", 2022): with n cases, the number of bad ones
    above it plus 1 may be `error_rate` · (n + 1) at most. 0 where every case may pass; None where none may, since there
    are too few cases.
    """
    allowed = math.floor(error_rate * (len(scores) + 1) - 1 + _ROUNDING)
    if allowed < 0:
        return None
    bad = np.sort(scores[is_bad])[::-1]
    return float(bad[allowed]) if len(bad) > allowed else 0.0
