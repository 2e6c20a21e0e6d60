"""How sure the mean of an arm is: over its runs, or over the cases of its folds."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.special import stdtrit

from spleen.evaluation.metrics.statistics import Interval, bootstrap_mean_interval
from spleen.records.cases import CaseRow

ScoredSplit = Literal["val", "test"]
Metric = Literal["dice", "jaccard"]


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


def mean_of_known(values: Sequence[float]) -> float:
    """Mean of the values that are not NaN; NaN if there are none."""
    known = _known(values)
    return math.fsum(known) / len(known) if known else math.nan


def _known(values: Sequence[float]) -> list[float]:
    return [value for value in values if not math.isnan(value)]


def case_means(
    runs: Iterable[Sequence[CaseRow]], split: ScoredSplit, metric: Metric, class_name: str | None = None
) -> dict[str, float]:
    """Score of each case: mean over its classes (or of one class), then over the runs that scored it, without NaN."""
    of_case: dict[str, list[float]] = {}
    for rows in runs:
        by_case: dict[str, list[float]] = {}
        for row in rows:
            if row.split == split and class_name in (None, row.class_name):
                by_case.setdefault(row.case_id, []).append(row.dice if metric == "dice" else row.jaccard)
        for case_id, values in by_case.items():
            of_case.setdefault(case_id, []).append(mean_of_known(values))
    return {case_id: mean_of_known(values) for case_id, values in of_case.items()}
