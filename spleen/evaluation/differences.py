"""Paired differences of a score: B − A, case by case, and what they say together.

Where a score is not a number: undefined (NaN) on both sides, the pair says nothing and is left out; on one side only,
there is no difference either, and the case is named. inf on both sides is a tie, on one side an infinite difference: it
wins or loses, ranks highest in Wilcoxon's test, and makes the mean difference infinite, or undefined if both signs
occur. The median stays readable.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from spleen.errors import check_choice
from spleen.evaluation.metrics.catalogue import BY_NAME
from spleen.evaluation.metrics.statistics import Interval, bootstrap_mean_interval, wilcoxon_p
from spleen.evaluation.score_tables import ScoreTable
from spleen.evaluation.summary import ALL_CLASSES

# Smaller than this, relative to the values, is the rounding of a file and no difference.
_ROUNDING = 1e-9


@dataclass(frozen=True)
class PairedCase:
    """One metric of one class in one case, on both sides."""

    metric: str
    case_id: str
    class_name: str
    a: float
    b: float
    difference: float
    """b − a, or |b| − |a| for an error, of which the value nearest to 0 is best; NaN where a side is undefined."""

    @property
    def is_better(self) -> bool:
        """B wins."""
        return self.difference > 0 if BY_NAME[self.metric].better == "higher" else self.difference < 0

    @property
    def is_worse(self) -> bool:
        """B loses."""
        return self.difference < 0 if BY_NAME[self.metric].better == "higher" else self.difference > 0


@dataclass(frozen=True)
class PairedSummary:
    """One metric of one class over the pairs that are defined on both sides."""

    metric: str
    class_name: str
    n_pairs: int
    mean_a: float
    mean_b: float
    mean_difference: float
    interval: Interval | None
    """95 % of the mean difference, bootstrap over cases."""
    median_difference: float
    wilcoxon_p: float
    """Two-sided; NaN without a pair."""
    wins: int
    ties: int
    losses: int
    n_infinite: int
    """Pairs with an infinite difference."""
    n_undefined: int
    """Cases that are undefined on both sides."""
    one_sided: tuple[str, ...]
    """Cases that are undefined on one side only."""


def moved_most(pairs: Sequence[PairedCase], metric: str, count: int = 10) -> list[PairedCase]:
    """The pairs of a metric with the largest difference, whether better or worse; InputError for one without pairs."""
    check_choice("metric", metric, dict.fromkeys(pair.metric for pair in pairs))
    changed = [pair for pair in pairs if pair.metric == metric and abs(pair.difference) > 0]
    return sorted(changed, key=lambda pair: -abs(pair.difference))[:count]


def pair_scores(table_a: ScoreTable, table_b: ScoreTable, metrics: Sequence[str]) -> list[PairedCase]:
    """Pairs of every metric, case and class; both tables hold the same cases and classes."""
    return [
        PairedCase(metric, *key, values[metric], other, _difference(metric, values[metric], other))
        for metric in metrics
        for key, values in table_a.items()
        for other in [table_b[key][metric]]
    ]


def summarise_pairs(pairs: Sequence[PairedCase], metrics: Sequence[str]) -> list[PairedSummary]:
    """For each metric a summary of each class, and of the mean over classes if there are several."""
    summaries = []
    for metric in metrics:
        of_metric = [pair for pair in pairs if pair.metric == metric]
        names = dict.fromkeys(pair.class_name for pair in of_metric)
        parts = [[pair for pair in of_metric if pair.class_name == name] for name in names]
        if len(names) > 1:
            parts.append(_over_classes(of_metric))
        summaries += [_summarise(part) for part in parts]
    return summaries


def _difference(metric: str, a: float, b: float) -> float:
    if BY_NAME[metric].better == "zero":
        a, b = abs(a), abs(b)
    if a == b or abs(b - a) <= _ROUNDING * max(1.0, abs(a) if math.isfinite(a) else 1.0):
        return 0.0
    return b - a


def _over_classes(pairs: Sequence[PairedCase]) -> list[PairedCase]:
    """Each case with the mean over those of its classes that are defined on both sides."""
    by_case: dict[str, list[PairedCase]] = {}
    for pair in pairs:
        by_case.setdefault(pair.case_id, []).append(pair)
    means = []
    for case_id, classes in by_case.items():
        known = [pair for pair in classes if not math.isnan(pair.difference)]
        a, b, difference = (_mean(getattr(pair, side) for pair in known) for side in ("a", "b", "difference"))
        means.append(PairedCase(pairs[0].metric, case_id, ALL_CLASSES, a, b, difference))
    return means


def _summarise(pairs: Sequence[PairedCase]) -> PairedSummary:
    known = [pair for pair in pairs if not math.isnan(pair.difference)]
    differences = [pair.difference for pair in known]
    wins, losses = sum(pair.is_better for pair in known), sum(pair.is_worse for pair in known)
    undefined = [pair for pair in pairs if math.isnan(pair.difference)]
    one_sided = tuple(pair.case_id for pair in undefined if math.isnan(pair.a) != math.isnan(pair.b))
    return PairedSummary(
        metric=pairs[0].metric,
        class_name=pairs[0].class_name,
        n_pairs=len(known),
        mean_a=_mean(pair.a for pair in known),
        mean_b=_mean(pair.b for pair in known),
        mean_difference=_mean(differences),
        interval=bootstrap_mean_interval(differences),
        median_difference=_median(differences),
        wilcoxon_p=wilcoxon_p(differences) if differences else math.nan,
        wins=wins,
        ties=len(known) - wins - losses,
        losses=losses,
        n_infinite=sum(math.isinf(difference) for difference in differences),
        n_undefined=len(undefined) - len(one_sided),
        one_sided=one_sided,
    )


def _mean(values: Iterable[float]) -> float:
    """NaN for no value, and for inf together with -inf."""
    listed = list(values)
    return math.nan if not listed or {math.inf, -math.inf} <= set(listed) else float(np.mean(listed))


def _median(values: Sequence[float]) -> float:
    """NaN for no value, and where inf and -inf are the two in the middle."""
    with np.errstate(invalid="ignore"):
        return float(np.median(values)) if values else math.nan
