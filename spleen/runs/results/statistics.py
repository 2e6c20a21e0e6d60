"""How sure the mean of an arm is: over its runs, or over the cases of its folds."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtrit

from spleen.evaluation.metrics.statistics import Interval, bootstrap_mean_interval
from spleen.records.cases import mean_of_known


@dataclass(frozen=True)
class Score:
    """A mean of `n` values without NaN, with its 95 % interval; None if there are too few values."""

    mean: float
    interval: Interval | None
    n: int


def score_over_runs(values: Sequence[float]) -> Score:
    """Mean and t-interval of the runs' scores."""
    known = _known(values)
    return Score(mean_of_known(known), t_interval(known), len(known))


def score_over_cases(values: Sequence[float]) -> Score:
    """Mean and bootstrap interval of the cases' scores."""
    known = _known(values)
    return Score(mean_of_known(known), bootstrap_mean_interval(known), len(known))


def t_interval(values: Sequence[float]) -> Interval | None:
    """Student's 95 % interval of the mean: mean ± t(0.975, n − 1) · s / √n; None for fewer than two values."""
    count = len(values)
    if count < 2:
        return None
    mean = mean_of_known(values)
    half = float(stdtrit(count - 1, 0.975)) * float(np.std(values, ddof=1)) / math.sqrt(count)
    return Interval(mean - half, mean + half)


def _known(values: Sequence[float]) -> list[float]:
    return [value for value in values if not math.isnan(value)]
