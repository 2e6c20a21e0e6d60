"""The text of an evaluation: the metrics of a single case, or a row per case and a summary."""

import math
from collections.abc import Sequence
from dataclasses import replace
from textwrap import fill

from spleen.evaluation.case_scores import ClassScore, ScoreSettings
from spleen.evaluation.metrics.catalogue import BY_NAME, Metric
from spleen.evaluation.summary import ALL_CLASSES, ClassSummary, MetricSummary, class_words, left_out
from spleen.reporting.tables import Cell, Column, render_table
from spleen.system.text import shortened

# So many classes fit side by side (one case) or one below the other (a full summary each).
_FEW_CLASSES = 3
_LISTED_CLASSES = 8
_MEANING_CLASSES = 2
_WIDTH = 100

_SHOWN_IN_ML = ("volume_prediction_mm3", "volume_reference_mm3")

_MAIN = {
    "dice": Column("Dice", ".3f"),
    "sensitivity": Column("sensi- tivity", ".3f"),
    "precision": Column("preci- sion", ".3f"),
    "hausdorff95_mm": Column("HD95 mm", ".1f"),
    "average_surface_distance_mm": Column("ASD mm", ".2f", may_go=True),
    "surface_dice": Column("surface Dice", ".3f"),
    "volume_reference_ml": Column("volume ml", ",.1f", may_go=True),
    "volume_error_relative": Column("error %", "+.1f", may_go=True),
}


def to_text(
    scores: Sequence[ClassScore],
    summaries: Sequence[ClassSummary],
    settings: ScoreSettings,
    unpredicted: Sequence[str] = (),
) -> str:
    """Everything in an evaluation, in lines of at most 100 characters where names allow it.

    `summaries` are those of the classes, then that of all classes together; `unpredicted` are the cases left out.
    """
    if not scores:
        return "no case could be scored"
    metrics = list(summaries[-1].metrics)
    n_cases = summaries[-1].n_cases
    parts = [_settings_line(n_cases, settings, unpredicted)]
    if n_cases == 1 and len(settings.classes) <= _FEW_CLASSES:
        parts.append(_one_case(scores, metrics))
    else:
        parts.append(_all_cases(scores, metrics))
    if n_cases == 1:
        parts.append("One case only: no confidence interval.")
    else:
        parts += _summaries(summaries)
    notes = _notes(scores, summaries)
    return "\n\n".join(parts + ([notes] if notes else []))


def number(metric: Metric, value: float) -> str:
    """A value as the tables write it."""
    return "n/a" if math.isnan(value) else format(value, metric.number_format)


def interval_text(metric: Metric, summary: MetricSummary) -> str | None:
    """Both bounds, or None where there is no interval."""
    if summary.interval is None:
        return None
    return f"{number(metric, summary.interval.low)} … {number(metric, summary.interval.high)}"


def _settings_line(n_cases: int, settings: ScoreSettings, unpredicted: Sequence[str]) -> str:
    n_classes = len(settings.classes)
    named = {name: values for name, values in settings.classes.items() if list(map(str, values)) != [name]}
    listed = ", ".join(f"{name} = {' + '.join(map(str, values))}" for name, values in named.items())
    words = [f"{n_cases} {'case' if n_cases == 1 else 'cases'}, {n_classes} {'class' if n_classes == 1 else 'classes'}"]
    if 0 < len(named) <= _LISTED_CLASSES:
        words[0] += f" ({listed})"
    if unpredicted:
        words.append(left_out(unpredicted))
    if settings.surface:
        tolerances = set(settings.tolerance_mm.values())
        if len(tolerances) == 1:
            words.append(f"surface Dice at {tolerances.pop():g} mm")
        else:
            each = ", ".join(f"{name} {length:g} mm" for name, length in settings.tolerance_mm.items())
            words.append(f"surface Dice at {each}")
    if settings.prevalence is None:
        words.append("prevalence: of each case")
    else:
        words.append(f"prevalence {settings.prevalence:g}")
    if settings.ignored.words:
        words.append(settings.ignored.words)
    return "; ".join(words)


def _one_case(scores: Sequence[ClassScore], metrics: Sequence[str]) -> str:
    names = [score.class_name for score in scores]
    with_meaning = len(names) <= _MEANING_CLASSES
    rows: list[list[Cell]] = []
    group = ""
    for metric in (BY_NAME[name] for name in metrics):
        if group and metric.group != group:
            rows.append([""] * (1 + len(names) + with_meaning))
        group = metric.group
        values = [number(metric, score.value(metric.name)) for score in scores]
        rows.append([metric.name, *values, *([metric.meaning] if with_meaning else [])])
    headings = [Column("metric", is_name=True), *(Column(class_words(name)) for name in names)]
    headings += [Column("meaning")] if with_meaning else []
    return _right_aligned(scores[0].case_id, headings, rows, range(1, 1 + len(names)))


def _right_aligned(
    title: str, columns: Sequence[Column], rows: Sequence[Sequence[Cell]], of_numbers: Sequence[int]
) -> str:
    """A table whose columns `of_numbers` hold numbers that are already text, each metric in a format of its own."""
    lines = [["-" if cell is None else str(cell) for cell in row] for row in ([c.name for c in columns], *rows)]
    for column in of_numbers:
        width = max(len(line[column]) for line in lines)
        for line in lines:
            line[column] = line[column].rjust(width)
    headings = [replace(column, name=name) for column, name in zip(columns, lines[0], strict=True)]
    return render_table(title, headings, lines[1:])


def _all_cases(scores: Sequence[ClassScore], metrics: Sequence[str]) -> str:
    many_classes = len({score.class_name for score in scores}) > 1
    shown = [name for name in _MAIN if name in metrics]
    names = [Column("case", is_name=True), *([Column("class", is_name=True)] if many_classes else [])]
    columns = [*names, *(_MAIN[name] for name in shown)]
    rows: list[list[Cell]] = []
    for score in scores:
        values = [100 * score.value(name) if name == "volume_error_relative" else score.value(name) for name in shown]
        rows.append([score.case_id, *([score.class_name] if many_classes else []), *values])
    return render_table("Cases", columns, rows)


def _summaries(summaries: Sequence[ClassSummary]) -> list[str]:
    *of_classes, of_all = summaries
    if len(of_classes) > _FEW_CLASSES:
        return [_class_table(summaries)]
    parts = [_summary(summary, class_words(summary.class_name)) for summary in of_classes]
    if len(of_classes) > 1:
        parts.append(_summary(of_all, "Mean over classes"))
    return parts


def _summary(summary: ClassSummary, title: str) -> str:
    rows: list[list[Cell]] = []
    for name, values in summary.metrics.items():
        metric = BY_NAME[name]
        if metric.group == "volume" and (summary.class_name == ALL_CLASSES or name in _SHOWN_IN_ML):
            continue
        rows.append(
            [
                metric.label,
                number(metric, values.mean),
                interval_text(metric, values),
                number(metric, values.median),
                number(metric, values.worst) if values.worst is not None else None,
                values.worst_case,
            ]
        )
    interval, case = Column("95 % interval", is_name=True), Column("in case", is_name=True)
    headings = [Column("metric"), Column("mean"), interval, Column("median", may_go=True), Column("worst"), case]
    return _right_aligned(f"{title}: {_counts(summary)}", headings, rows, range(1, 5))


def _counts(summary: ClassSummary) -> str:
    return (
        f"{summary.n_cases} cases, {summary.n_empty} empty in both, {summary.n_false_negative} false negative, "
        f"{summary.n_false_positive} false positive"
    )


def _class_table(summaries: Sequence[ClassSummary]) -> str:
    """A row per class with the metrics that say most."""
    columns: list[str | Column] = ["class", Column("n", "d"), Column("Dice mean", ".3f"), "95 % interval"]
    columns += [Column("Dice median", ".3f"), Column("worst", ".3f"), "in case"]
    surface = "hausdorff95_mm" in summaries[0].metrics
    columns += [Column("HD95 median mm", ".1f"), Column("surface Dice", ".3f")] if surface else []
    columns += [Column("false negative", "d")]
    rows: list[list[Cell]] = []
    for summary in summaries:
        dice = summary.metrics["dice"]
        interval = f"{dice.interval.low:.3f} … {dice.interval.high:.3f}" if dice.interval else None
        row: list[Cell] = [
            class_words(summary.class_name),
            dice.n_values,
            dice.mean,
            interval,
            dice.median,
            dice.worst,
            dice.worst_case,
        ]
        row += [summary.metrics["hausdorff95_mm"].median, summary.metrics["surface_dice"].mean] if surface else []
        rows.append([*row, summary.n_false_negative])
    return render_table("Classes", columns, rows)


def _notes(scores: Sequence[ClassScore], summaries: Sequence[ClassSummary]) -> str:
    lines = _empty_notes(scores)
    if summaries[-1].n_cases > 1:
        lines += _value_notes(summaries[:-1])
    return "\n".join(fill(line, _WIDTH, subsequent_indent="  ", break_on_hyphens=False) for line in lines)


def _empty_notes(scores: Sequence[ClassScore]) -> list[str]:
    found = {
        "not labelled in the reference, not scored": [s for s in scores if not s.is_labelled],
        "both masks empty, not scored": [s for s in scores if s.is_empty],
        "false negative: empty prediction (Dice 0, distances inf)": [s for s in scores if s.is_false_negative],
        "false positive: empty reference (Dice 0, distances inf)": [s for s in scores if s.is_false_positive],
    }
    named = {words: [f"{s.case_id} {class_words(s.class_name)}" for s in at] for words, at in found.items()}
    return [f"{words}: {shortened(at, 8)}" for words, at in named.items() if at]


def _value_notes(summaries: Sequence[ClassSummary]) -> list[str]:
    """Values that dominate the means or are excluded from them."""
    lines = []
    for summary in summaries:
        infinite = [(name, s.n_infinite) for name, s in summary.metrics.items() if s.n_infinite]
        undefined = [(name, s.n_undefined) for name, s in summary.metrics.items() if s.n_undefined > summary.n_empty]
        where = class_words(summary.class_name)
        if infinite:
            lines.append(f"{where}: infinite values make the mean inf; see the median. inf cases: {_each(infinite)}")
        if undefined:
            lines.append(f"{where}: n/a values are excluded from the mean. n/a cases: {_each(undefined)}")
    return lines


def _each(counts: Sequence[tuple[str, int]]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counts)
