"""An evaluation as CSV and as JSON; docs/metrics.md describes both."""

import json
from collections import defaultdict
from collections.abc import Callable

from spleen.evaluate import Evaluation
from spleen.evaluation.summary import MetricSummary
from spleen.report.number_files import Json, csv_text, json_interval, json_number

_STATISTICS: dict[str, Callable[[MetricSummary], Json]] = {
    "mean": lambda summary: json_number(summary.mean),
    "ci95": lambda summary: json_interval(summary.interval),
    "median": lambda summary: json_number(summary.median),
    "worst": lambda summary: (
        {"case": summary.worst_case, "value": json_number(summary.worst)} if summary.worst is not None else None
    ),
    "n_values": lambda summary: summary.n_values,
    "n_infinite": lambda summary: summary.n_infinite,
}


def to_csv(evaluation: Evaluation) -> str:
    """One row per case and class; undefined is written nan and infinite inf."""
    header = ["case_id", "class_name", *evaluation.metrics]
    rows: list[list[str | float]] = [
        [score.case_id, score.class_name, *(score.value(name) for name in evaluation.metrics)]
        for score in evaluation.scores
    ]
    return csv_text(header, rows)


def to_json(evaluation: Evaluation) -> str:
    """`cases.<id>.<class>.<metric>`, `mean.<class>.<metric>`, `ci95`, `median`, `worst` and counts likewise.

    Strict JSON: undefined is null, infinite the string "Infinity".
    """
    cases: defaultdict[str, dict[str, Json]] = defaultdict(dict)
    for score in evaluation.scores:
        values: dict[str, Json] = {name: json_number(score.value(name)) for name in evaluation.metrics}
        cases[score.case_id][score.class_name] = values
    statistics: dict[str, Json] = {
        key: {
            summary.class_name: {name: value_of(values) for name, values in summary.metrics.items()}
            for summary in evaluation.summaries
        }
        for key, value_of in _STATISTICS.items()
    }
    counts: dict[str, Json] = {
        summary.class_name: {
            "n_cases": summary.n_cases,
            "n_empty": summary.n_empty,
            "n_missed": summary.n_missed,
            "n_invented": summary.n_invented,
        }
        for summary in evaluation.summaries
    }
    record: dict[str, Json] = {
        "settings": _settings(evaluation),
        "cases": dict(cases),
        **statistics,
        "counts": counts,
        "unpredicted": list(evaluation.unpredicted),
        "failures": {failure.case_id: failure.reason for failure in evaluation.failures},
    }
    return json.dumps(record, indent=1, allow_nan=False) + "\n"


def _settings(evaluation: Evaluation) -> dict[str, Json]:
    settings = evaluation.settings
    return {
        "classes": {name: list(values) for name, values in settings.classes.items()},
        "tolerance_mm": dict(settings.tolerance_mm) if settings.surface else None,
        "prevalence": settings.prevalence,
    }
