"""The text of a comparison."""

import math
from collections.abc import Sequence
from textwrap import fill

from spleen.evaluation.differences import PairedCase, PairedSummary, moved_most
from spleen.evaluation.ignored import NOTHING_IGNORED, IgnoredValue
from spleen.evaluation.metrics.catalogue import BY_NAME, Metric
from spleen.evaluation.metrics.statistics import FEWEST_PAIRS
from spleen.evaluation.summary import class_words, left_out
from spleen.reporting.tables import Cell, Column, render_table
from spleen.system.text import shortened

_WIDTH = 100
_DIRECTIONS = {"higher": "higher is better", "lower": "lower is better", "zero": "nearer to 0 is better"}


def to_text(
    names: tuple[str, str],
    pairs: Sequence[PairedCase],
    summaries: Sequence[PairedSummary],
    unpredicted: Sequence[str] = (),
    ignored: IgnoredValue = NOTHING_IGNORED,
) -> str:
    """A summary and the cases that moved most, for each metric, in lines of at most 100 characters.

    `names` are those of A and B; `unpredicted` are the cases left out, `ignored` the voxels that are not scored.
    """
    if not pairs:
        return "no case could be compared"
    parts = [f"A: {names[0]}\nB: {names[1]}"]
    if unpredicted:
        parts.append(left_out(unpredicted))
    if ignored.words:
        parts.append(ignored.words)
    metrics = list(dict.fromkeys(summary.metric for summary in summaries))
    for name in metrics:
        parts += [_summary(summaries, BY_NAME[name]), _moved(pairs, BY_NAME[name])]
    parts.append(_notes(summaries, metrics))
    return "\n\n".join(part for part in parts if part)


def _summary(summaries: Sequence[PairedSummary], metric: Metric) -> str:
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
        for summary in summaries
        if summary.metric == metric.name
    ]
    return render_table(f"{metric.label}: {_DIRECTIONS[metric.better]}", columns, rows)


def _moved(pairs: Sequence[PairedCase], metric: Metric) -> str:
    moved = moved_most(pairs, metric.name)
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


def _notes(summaries: Sequence[PairedSummary], metrics: Sequence[str]) -> str:
    lines = []
    for metric in metrics:
        too_few = [s for s in summaries if s.metric == metric and s.wins + s.losses < FEWEST_PAIRS]
        if too_few:
            lines.append(
                f"{_where(too_few)}: fewer than {FEWEST_PAIRS} cases differ, so no signed-rank test can reach "
                "p < 0.05, however large the differences are."
            )
    n_tests = sum(not math.isnan(s.wilcoxon_p) for s in summaries)
    corrected = f", not corrected for {n_tests} tests" if n_tests > 1 else ""
    lines.append(
        f"p: Wilcoxon's signed-rank test, two-sided{corrected}. Interval: bootstrap over cases. w/t/l: won, tied, lost."
    )
    for summary in summaries:
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
        lines.append(f"{where}: excluded, undefined on both sides: {summary.n_undefined}.")
    if summary.one_sided:
        shown = shortened(summary.one_sided, 8)
        lines.append(f"{where}: excluded, undefined on one side only: {shown}.")
    return lines
