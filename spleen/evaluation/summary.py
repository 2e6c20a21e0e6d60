"""Summary over cases: mean with interval, median, worst case, and counts of undefined values."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from spleen.evaluation.case_scores import ClassScore
from spleen.evaluation.metrics.catalogue import BY_NAME
from spleen.evaluation.metrics.statistics import Interval, bootstrap_mean_interval
from spleen.system.text import shortened

ALL_CLASSES = "all_classes"
"""In place of a class name: each case is first averaged over its classes."""


@dataclass(frozen=True)
class MetricSummary:
    """One metric of one class over the cases. NaN is excluded and counted; inf is included, so a mean may be inf."""

    mean: float
    interval: Interval | None
    """95 %, bootstrap over cases; None for fewer than two values."""
    median: float
    worst: float | None
    worst_case: str | None
    """The first of the worst; None without a value, and for a volume, which is not good or bad."""
    n_values: int
    n_undefined: int
    n_infinite: int


@dataclass(frozen=True)
class ClassSummary:
    """All metrics of one class over the cases, and how many of its masks were empty."""

    class_name: str
    n_cases: int
    """Those whose reference labels the class."""
    n_empty: int
    """Both masks are empty: not scored."""
    n_false_negative: int
    """Only the prediction is empty."""
    n_false_positive: int
    """Only the reference is empty."""
    metrics: Mapping[str, MetricSummary]


def summarise(scores: Sequence[ClassScore], metrics: Sequence[str]) -> tuple[ClassSummary, ...]:
    """One summary for each class in the order of the scores, and last the one of `ALL_CLASSES`."""
    names = dict.fromkeys(score.class_name for score in scores)
    parts = {name: [score for score in scores if score.class_name == name] for name in names}
    return tuple(_summarise_class(name, part, metrics) for name, part in {**parts, ALL_CLASSES: scores}.items())


def summarise_metric(metric: str, by_case: Mapping[str, float]) -> MetricSummary:
    """Summarise the value of each case; the metric's name decides which case is worst."""
    known = {case_id: value for case_id, value in by_case.items() if not math.isnan(value)}
    values = list(known.values())
    worst_case = None
    if known and BY_NAME[metric].better != "neither":
        worst_case = max(known, key=lambda case_id: BY_NAME[metric].badness(known[case_id]))
    return MetricSummary(
        mean=float(np.mean(values)) if values else math.nan,
        interval=bootstrap_mean_interval(values),
        median=float(np.median(values)) if values else math.nan,
        worst=known[worst_case] if worst_case is not None else None,
        worst_case=worst_case,
        n_values=len(values),
        n_undefined=len(by_case) - len(values),
        n_infinite=sum(math.isinf(value) for value in values),
    )


def mean_by_case(scores: Sequence[ClassScore], metric: str) -> dict[str, float]:
    """The mean over the classes of each case, NaN left out; NaN where every class is NaN."""
    by_case: dict[str, list[float]] = {}
    for score in scores:
        by_case.setdefault(score.case_id, []).append(score.value(metric))
    return {case_id: _mean(values) for case_id, values in by_case.items()}


def left_out(unpredicted: Sequence[str]) -> str:
    """The cases that were skipped because they have no prediction, in words."""
    return f"skipped, no prediction: {len(unpredicted)} ({shortened(unpredicted, 3)})"


def class_words(name: str) -> str:
    """The name of a class as text and pictures write it: a bare label value is "class 1"."""
    if name == ALL_CLASSES:
        return "all classes"
    return f"class {name}" if name.removeprefix("-").isdecimal() else name


def _mean(values: Sequence[float]) -> float:
    known = [value for value in values if not math.isnan(value)]
    return float(np.mean(known)) if known else math.nan


def _summarise_class(name: str, scores: Sequence[ClassScore], metrics: Sequence[str]) -> ClassSummary:
    scores = [score for score in scores if score.is_labelled]
    return ClassSummary(
        class_name=name,
        n_cases=len({score.case_id for score in scores}),
        n_empty=sum(score.is_empty for score in scores),
        n_false_negative=sum(score.is_false_negative for score in scores),
        n_false_positive=sum(score.is_false_positive for score in scores),
        metrics={metric: summarise_metric(metric, mean_by_case(scores, metric)) for metric in metrics},
    )
