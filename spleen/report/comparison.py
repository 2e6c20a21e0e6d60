"""A comparison as text, CSV and JSON."""

import json
import math
from collections.abc import Sequence
from textwrap import fill

from spleen.compare import Comparison
from spleen.evaluation.paired import PairedCase, PairedSummary
from spleen.evaluation.summary import class_words, left_out
from spleen.listing import few
from spleen.metrics.catalogue import BY_NAME, Metric
from spleen.metrics.statistics import FEWEST_PAIRS
from spleen.report.number_files import Json, csv_text, json_interval, json_number
from spleen.report.table import Cell, Column, render_table

_WIDTH = 100
_DIRECTIONS = {"higher": "higher is better", "lower": "lower is better", "zero": "nearer to 0 is better"}


def to_text(comparison: Comparison) -> str:
    """A summary and the cases that moved most, for each metric, in lines of at most 100 characters."""
    if not comparison.pairs:
        return "no case could be compared"
    parts = [f"A: {comparison.name_a}\nB: {comparison.name_b}"]
    if comparison.unpredicted:
        parts.append(left_out(comparison.unpredicted))
    for name in comparison.metrics:
        parts += [_summary(comparison, BY_NAME[name]), _moved(comparison, BY_NAME[name])]
    parts.append(_notes(comparison))
    return "\n\n".join(part for part in parts if part)


def to_csv(comparison: Comparison) -> str:
    """One row per metric, case and class."""
    header = ["metric", "case_id", "class_name", "a", "b", "difference"]
    rows: list[list[str | float]] = [
        [p.metric, p.case_id, p.class_name, p.a, p.b, p.difference] for p in comparison.pairs
    ]
    return csv_text(header, rows)


def to_json(comparison: Comparison) -> str:
    """`summary.<metric>.<class>.…` and `cases.<id>.<class>.<metric>`; undefined is null, infinite "Infinity"."""
    summaries: dict[str, dict[str, Json]] = {}
    for summary in comparison.summaries:
        summaries.setdefault(summary.metric, {})[summary.class_name] = _json_summary(summary)
    cases: dict[str, dict[str, dict[str, Json]]] = {}
    for pair in comparison.pairs:
        values: Json = {
            "a": json_number(pair.a),
            "b": json_number(pair.b),
            "difference": json_number(pair.difference),
        }
        cases.setdefault(pair.case_id, {}).setdefault(pair.class_name, {})[pair.metric] = values
    record = {
        "a": comparison.name_a,
        "b": comparison.name_b,
        "summary": summaries,
        "cases": cases,
        "unpredicted": list(comparison.unpredicted),
        "failures": [{"case": failure.case_id, "reason": failure.reason} for failure in comparison.failures],
    }
    return json.dumps(record, indent=1, allow_nan=False) + "\n"


def _json_summary(summary: PairedSummary) -> Json:
    return {
        "n_pairs": summary.n_pairs,
        "mean_a": json_number(summary.mean_a),
        "mean_b": json_number(summary.mean_b),
        "mean_difference": json_number(summary.mean_difference),
        "ci95": json_interval(summary.interval),
        "median_difference": json_number(summary.median_difference),
        "wilcoxon_p": json_number(summary.wilcoxon_p),
        "wins": summary.wins,
        "ties": summary.ties,
        "losses": summary.losses,
        "n_infinite": summary.n_infinite,
        "n_undefined": summary.n_undefined,
        "one_sided": list(summary.one_sided),
    }


def _summary(comparison: Comparison, metric: Metric) -> str:
    signed = _signed(metric)
    columns: list[str | Column] = [
        "class",
        Column("mean A", _plain(metric)),
        Column("mean B", _plain(metric)),
        Column("B − A", signed),
        "95 % interval",
        Column("median", signed),
        Column("p", ".2g"),
        "B w/t/l",
    ]
    rows: list[list[Cell]] = [
        [
            class_words(summary.class_name),
            summary.mean_a,
            summary.mean_b,
            summary.mean_difference,
            _interval(summary, signed),
            summary.median_difference,
            summary.wilcoxon_p,
            f"{summary.wins}/{summary.ties}/{summary.losses}",
        ]
        for summary in comparison.summaries
        if summary.metric == metric.name
    ]
    return render_table(f"{metric.label}: {_DIRECTIONS[metric.better]}", columns, rows)


def _moved(comparison: Comparison, metric: Metric) -> str:
    moved = comparison.moved_most(metric.name)
    if not moved:
        return ""
    signed = _signed(metric)
    columns: list[str | Column] = [
        Column("case", is_name=True),
        Column("class", is_name=True),
        Column("A", _plain(metric)),
        Column("B", _plain(metric)),
    ]
    columns += [Column("B − A", signed), ""]
    rows: list[list[Cell]] = [
        [pair.case_id, class_words(pair.class_name), pair.a, pair.b, pair.difference, _verdict(pair)] for pair in moved
    ]
    return render_table(f"{metric.label}: the cases that moved most", columns, rows)


def _verdict(pair: PairedCase) -> str:
    return "better" if pair.is_better else "worse" if pair.is_worse else "same"


def _plain(metric: Metric) -> str:
    return metric.number_format.lstrip("+")


def _signed(metric: Metric) -> str:
    return f"+{_plain(metric)}"


def _interval(summary: PairedSummary, number_format: str) -> str | None:
    if summary.interval is None:
        return None
    return f"{summary.interval.low:{number_format}} … {summary.interval.high:{number_format}}"


def _notes(comparison: Comparison) -> str:
    lines = []
    for metric in comparison.metrics:
        few = [s for s in comparison.summaries if s.metric == metric and s.wins + s.losses < FEWEST_PAIRS]
        if few:
            lines.append(
                f"{_where(few)}: fewer than {FEWEST_PAIRS} cases differ, so no signed-rank test can reach p < 0.05, "
                "however large the differences are."
            )
    n_tests = sum(not math.isnan(s.wilcoxon_p) for s in comparison.summaries)
    corrected = f", not corrected for {n_tests} tests" if n_tests > 1 else ""
    lines.append(
        f"p: Wilcoxon's signed-rank test, two-sided{corrected}. Interval: bootstrap over cases. w/t/l: won, tied, lost."
    )
    for summary in comparison.summaries:
        lines += _value_notes(summary)
    return "\n".join(fill(line, _WIDTH, subsequent_indent="  ", break_on_hyphens=False) for line in lines)


def _where(summaries: Sequence[PairedSummary]) -> str:
    """Summaries of one metric in words."""
    return f"{BY_NAME[summaries[0].metric].label} ({', '.join(class_words(s.class_name) for s in summaries)})"


def _value_notes(summary: PairedSummary) -> list[str]:
    """What the numbers leave out or are ruled by."""
    where, lines = _where([summary]), []
    if summary.n_infinite:
        lines.append(
            f"{where}: {summary.n_infinite} of {summary.n_pairs} differences infinite, so their mean is not "
            "finite; read the median and the wins."
        )
    if summary.n_undefined:
        lines.append(f"{where}: undefined on both sides and left out: {summary.n_undefined}.")
    if summary.one_sided:
        shown = few(summary.one_sided, 8)
        lines.append(f"{where}: undefined on one side only, so without a difference and left out: {shown}.")
    return lines
