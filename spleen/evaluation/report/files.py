"""Evaluations and comparisons as CSV and as JSON; docs/reference/metrics.md describes them."""

from collections import defaultdict
from collections.abc import Callable, Sequence

from spleen.evaluation.case_scores import ClassScore
from spleen.evaluation.compare import Comparison
from spleen.evaluation.differences import PairedSummary
from spleen.evaluation.evaluate import Evaluation
from spleen.evaluation.metrics.statistics import Interval
from spleen.evaluation.summary import MetricSummary
from spleen.reporting.numbers import csv_text, json_text

_STATISTICS: dict[str, Callable[[MetricSummary], object]] = {
    "mean": lambda summary: summary.mean,
    "ci95": lambda summary: _bounds(summary.interval),
    "median": lambda summary: summary.median,
    "worst": lambda summary: (
        {"case": summary.worst_case, "value": summary.worst} if summary.worst is not None else None
    ),
    "n_values": lambda summary: summary.n_values,
    "n_infinite": lambda summary: summary.n_infinite,
}


def to_csv(evaluation: Evaluation) -> str:
    """The scores of an evaluation by `scores_to_csv`."""
    return scores_to_csv(evaluation.scores, evaluation.metrics)


def scores_to_csv(scores: Sequence[ClassScore], metrics: Sequence[str]) -> str:
    """One row per case and class; undefined is written nan and infinite inf.

    If references do not label every class, a last column says which they do.
    """
    header = ["case_id", "class_name", *metrics]
    rows: list[list[str | float]] = [
        [score.case_id, score.class_name, *(score.value(name) for name in metrics)] for score in scores
    ]
    if not all(score.is_labelled for score in scores):
        header.append("reference")
        for row, score in zip(rows, scores, strict=True):
            row.append("labelled" if score.is_labelled else "not labelled")
    return csv_text(header, rows)


def to_json(evaluation: Evaluation) -> str:
    """`cases.<id>.<class>.<metric>`, `mean.<class>.<metric>`, `ci95`, `median`, `worst` and counts likewise.

    Strict JSON: undefined is null, infinite the string "Infinity".
    """
    cases: defaultdict[str, dict[str, object]] = defaultdict(dict)
    for score in evaluation.scores:
        values: dict[str, object] = {name: score.value(name) for name in evaluation.metrics}
        cases[score.case_id][score.class_name] = values
    statistics: dict[str, object] = {
        key: {
            summary.class_name: {name: value_of(values) for name, values in summary.metrics.items()}
            for summary in evaluation.summaries
        }
        for key, value_of in _STATISTICS.items()
    }
    counts: dict[str, object] = {
        summary.class_name: {
            "n_cases": summary.n_cases,
            "n_empty": summary.n_empty,
            "n_false_negative": summary.n_false_negative,
            "n_false_positive": summary.n_false_positive,
        }
        for summary in evaluation.summaries
    }
    record: dict[str, object] = {
        "settings": _settings(evaluation),
        "cases": dict(cases),
        **statistics,
        "counts": counts,
        "unpredicted": list(evaluation.unpredicted),
        "failures": {failure.case_id: failure.reason for failure in evaluation.failures},
    }
    return json_text(record)


def _settings(evaluation: Evaluation) -> dict[str, object]:
    settings = evaluation.settings
    return {
        "classes": {name: list(values) for name, values in settings.classes.items()},
        "tolerance_mm": dict(settings.tolerance_mm) if settings.surface else None,
        "prevalence": settings.prevalence,
        **({} if settings.ignored.value is None else {"ignore_value": settings.ignored.value}),
    }


def comparison_to_csv(comparison: Comparison) -> str:
    """One row per metric, case and class."""
    header = ["metric", "case_id", "class_name", "a", "b", "difference"]
    rows: list[list[str | float]] = [
        [p.metric, p.case_id, p.class_name, p.a, p.b, p.difference] for p in comparison.pairs
    ]
    return csv_text(header, rows)


def comparison_to_json(comparison: Comparison) -> str:
    """`summary.<metric>.<class>.…` and `cases.<id>.<class>.<metric>`; undefined is null, infinite "Infinity"."""
    summaries: dict[str, dict[str, object]] = {}
    for summary in comparison.summaries:
        summaries.setdefault(summary.metric, {})[summary.class_name] = _paired_summary(summary)
    cases: dict[str, dict[str, dict[str, object]]] = {}
    for pair in comparison.pairs:
        values: object = {
            "a": pair.a,
            "b": pair.b,
            "difference": pair.difference,
        }
        cases.setdefault(pair.case_id, {}).setdefault(pair.class_name, {})[pair.metric] = values
    record = {
        "a": comparison.name_a,
        "b": comparison.name_b,
        **({} if comparison.ignored.value is None else {"ignore_value": comparison.ignored.value}),
        "summary": summaries,
        "cases": cases,
        "unpredicted": list(comparison.unpredicted),
        "failures": [{"case": failure.case_id, "reason": failure.reason} for failure in comparison.failures],
    }
    return json_text(record)


def _paired_summary(summary: PairedSummary) -> object:
    return {
        "n_pairs": summary.n_pairs,
        "mean_a": summary.mean_a,
        "mean_b": summary.mean_b,
        "mean_difference": summary.mean_difference,
        "ci95": _bounds(summary.interval),
        "median_difference": summary.median_difference,
        "wilcoxon_p": summary.wilcoxon_p,
        "wins": summary.wins,
        "ties": summary.ties,
        "losses": summary.losses,
        "n_infinite": summary.n_infinite,
        "n_undefined": summary.n_undefined,
        "one_sided": list(summary.one_sided),
    }


def _bounds(interval: Interval | None) -> list[float] | None:
    return None if interval is None else [interval.low, interval.high]
