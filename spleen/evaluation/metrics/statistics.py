"""Intervals and tests over cases: bootstrap of a mean, Wilcoxon's signed-rank test.

Infinite values are allowed, since a missed organ has infinite surface distance; NaN is for the caller to leave out.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from jaxtyping import Float64
from scipy.special import ndtr, ndtri

CONFIDENCE = 0.95
N_RESAMPLES = 10_000
SEED = 0
_ROUNDING = 1e-12
FEWEST_PAIRS = 6
"""With n pairs, two-sided p cannot be below 2 / 2ⁿ: 0.0625 for five, 0.03125 for six."""

Values = Float64[np.ndarray, "n"]
Means = Float64[np.ndarray, "resamples"]


@dataclass(frozen=True)
class Interval:
    """Bounds of a confidence interval."""

    low: float
    high: float


def bootstrap_mean_interval(values: Sequence[float]) -> Interval | None:
    """The 95 % interval of a mean, from 10,000 resamples of the cases with a fixed seed: the same on every call.

    Bias-corrected and accelerated (BCa: Efron 1987, JASA 82:171); by plain percentiles where a value is infinite, with
    a bound of inf where more than 2.5 % of the resampled means are infinite. None for fewer than two values, and for
    inf together with -inf, which have no mean. Raises ValueError for NaN.
    """
    known = np.asarray(values, dtype=np.float64)
    if np.isnan(known).any():
        raise ValueError("leave NaN out before asking for an interval")
    signs = set(np.sign(known[np.isinf(known)]).tolist())
    if len(known) < 2 or len(signs) == 2:
        return None
    tail = (1 - CONFIDENCE) / 2
    if signs:
        return _percentiles(_resampled_means(known), tail, 1 - tail)
    if np.ptp(known) == 0:
        return Interval(float(known[0]), float(known[0]))
    centred = known - known.mean()
    means = _resampled_means(centred)
    means[np.abs(means) < _ROUNDING * np.ptp(known)] = 0  # equal to the mean itself, but for rounding
    around = _percentiles(means, *_bca_levels(means, centred, tail))
    return Interval(around.low + float(known.mean()), around.high + float(known.mean()))


def wilcoxon_p(differences: Sequence[float]) -> float:
    """Two-sided p of Wilcoxon's signed-rank test (1945): do the differences lie symmetrically about 0?

    Differences of 0 are left out, as Wilcoxon did; 1 if nothing is left. Infinite differences take part with the
    highest ranks. Raises ValueError for NaN.
    """
    from scipy.stats import wilcoxon  # slow to import

    known = np.asarray(differences, dtype=np.float64)
    if np.isnan(known).any():
        raise ValueError("leave NaN out before testing")
    changed = known[known != 0]
    return float(wilcoxon(changed).pvalue) if changed.size else 1.0


def _resampled_means(values: Values) -> Means:
    draws = _draws(len(values))
    infinite = np.isinf(values)
    means: Means = draws @ np.where(infinite, 0.0, values) / len(values)
    if infinite.any():
        means[draws[:, infinite].any(axis=1)] = values[infinite][0]
    return means


@lru_cache(maxsize=2)
def _draws(n: int) -> Float64[np.ndarray, "resamples n"]:
    """How often each of `n` cases is drawn in each resample: 80 kB per case, kept for the next score."""
    drawn = np.random.default_rng(SEED).integers(0, n, (N_RESAMPLES, n))
    counts = np.bincount((drawn + n * np.arange(N_RESAMPLES)[:, None]).ravel(), minlength=N_RESAMPLES * n)
    return counts.reshape(N_RESAMPLES, n).astype(np.float64)


def _percentiles(means: Means, low: float, high: float) -> Interval:
    # No interpolation: between a finite and an infinite mean there is nothing.
    bounds = np.quantile(means, [low, high], method="inverted_cdf")
    return Interval(float(bounds[0]), float(bounds[1]))


def _bca_levels(means: Means, centred: Values, tail: float) -> tuple[float, float]:
    """The levels of the resampled means between which BCa puts the interval."""
    below = (np.mean(means < 0) + np.mean(means <= 0)) / 2  # the mean of the centred values themselves is 0
    bias = float(ndtri(below))
    # The mean without one case moves against that case: the skewness of the jackknife is that of the values.
    acceleration = float((centred**3).sum() / (6 * (centred**2).sum() ** 1.5))
    levels = []
    for z in (float(ndtri(tail)), float(ndtri(1 - tail))):
        levels.append(float(ndtr(bias + (bias + z) / (1 - acceleration * (bias + z)))))
    return levels[0], levels[1]
