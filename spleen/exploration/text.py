"""What `spleen explore` prints: facts, tables, suggested settings and the verdict, as plain text."""

import math
import shutil
import textwrap
from collections.abc import Sequence

from spleen.exploration.above_wording import above_title, cases_above, highest_voxels
from spleen.exploration.facts.above import AboveFacts
from spleen.exploration.facts.case import CaseFacts
from spleen.exploration.facts.dicom import DicomFacts
from spleen.exploration.facts.findings import Finding
from spleen.exploration.facts.intensity import Histogram, IntensityFacts, Spread
from spleen.exploration.outliers import MIN_CASES, RULE, Distribution, Outlier
from spleen.exploration.suggestion.suggest import Suggestion
from spleen.exploration.verdict import Verdict
from spleen.exploration.wording import (
    distinct_messages,
    extent_in_words,
    facts_of,
    facts_of_set,
    name_with_unit,
    times,
    verdict_in_words,
    whose_suggestion,
)
from spleen.reporting.numbers import format_number
from spleen.reporting.tables import Cell, Column, render_table

_MOST_ROWS = 20
_MOST_MESSAGES = 3
_MOST_WIDTH = 120
_SPARKS = 32
_ELEMENT_COLUMNS = ("tag", "keyword", "value")


def to_text(
    cases: Sequence[CaseFacts],
    distributions: Sequence[Distribution],
    outliers: Sequence[Outlier],
    suggestion: Suggestion | None,
    verdict: Verdict,
) -> str:
    """Everything in one text: each case in full where there is one, the set where there are several."""
    parts = _one_case(cases[0]) if len(cases) == 1 else _many_cases(cases, distributions, outliers)
    if suggestion is not None:
        parts.append(_suggestion(suggestion, len(cases)))
    parts.append(_verdict(verdict, len(cases)))
    return "\n\n".join(parts)


def _width() -> int:
    return min(_MOST_WIDTH, shutil.get_terminal_size().columns)


def _listed(pairs: Sequence[tuple[str, str]], indent: int = 2) -> str:
    """Names in a column, their texts beside it, folded to the terminal."""
    names = max((len(name) for name, _ in pairs), default=0)
    lines = []
    for name, text in pairs:
        first = " " * indent + name.ljust(names) + "  "
        lines.append(textwrap.fill(text, max(50, _width()), initial_indent=first, subsequent_indent=" " * len(first)))
    return "\n".join(lines)


def _one_case(case: CaseFacts) -> list[str]:
    parts = [f"{case.case_id}\n{_listed(facts_of(case))}"]
    if case.image_header is not None and case.image_header.geometry is not None:
        parts.append(_planes(case))
    if case.image_header is not None and case.image_header.dicom is not None:
        parts.append(_elements(case.image_header.dicom))
    if case.intensity is not None:
        parts.append(_intensities(case.intensity))
    if case.above is not None and case.above.highest:
        parts.append(_highest(case.above))
    if case.labels is not None and case.labels.values:
        parts.append(_labels(case))
    return parts


def _planes(case: CaseFacts) -> str:
    assert case.image_header is not None
    assert case.image_header.geometry is not None
    columns = ["axis", "array axis", "slices", "apart (mm)", "pixel (mm)"]
    rows: list[list[Cell]] = [
        [plane.axis, str(plane.array_axis), plane.n_slices, f"{plane.spacing_mm:.6g}", times(plane.pixel_mm)]
        for plane in case.image_header.geometry.planes
    ]
    if case.labels is not None:
        columns.append("slices with organ")
        for row, counts in zip(rows, case.labels.organ_per_slice, strict=True):
            row.append(sum(count > 0 for count in counts))
    return render_table("Slicing axes, by the affine", columns, rows, _width())


def _elements(facts: DicomFacts) -> str:
    rows: list[list[Cell]] = [[each.tag, each.keyword, each.value] for each in facts.elements]
    return render_table("Elements that decide geometry and intensities", _ELEMENT_COLUMNS, rows, _width())


def _intensities(facts: IntensityFacts) -> str:
    columns: list[str | Column] = [
        "",
        Column("voxels", ",d"),
        *(Column(name, format_number) for name in ("min", "p0.5", "p5", "median", "p95", "p99.5", "max", "mean")),
        Column("std", format_number),
    ]
    parts = [("whole", facts.whole), ("body", facts.body), ("organ", facts.organ)]
    rows = [_spread_row(name, spread) for name, spread in parts if spread is not None]
    unit = " in HU" if facts.modality == "CT" else ""
    table = render_table(f"Intensities{unit} (body: {facts.body_rule})", columns, rows, _width())
    lines = _histogram_lines([("whole", facts.whole_histogram)], facts.modality)
    inner = [("body", facts.body_histogram), ("organ", facts.organ_histogram)]
    lines += _histogram_lines([(name, found) for name, found in inner if found is not None], facts.modality)
    return "\n".join([table, "", *lines])


def _histogram_lines(histograms: Sequence[tuple[str, Histogram]], modality: str) -> list[str]:
    """One line per histogram over the same range with the count of its highest block, and the range below."""
    unit = " HU" if modality == "CT" else ""
    lines = []
    for name, histogram in histograms:
        counts = _blocks(histogram)
        width = histogram.bin_width * math.ceil(len(histogram.counts) / _SPARKS)
        lines.append(f"  {name:5}  {sparkline(histogram)}  █ {max(counts):,} voxels per {format_number(width)}{unit}")
    low, high = (format_number(edge) for edge in (histograms[0][1].low, histograms[0][1].high))
    return [*lines, f"         {low}{high:>{max(len(_blocks(histograms[0][1])) - len(low), len(high) + 1)}}"]


def _highest(facts: AboveFacts) -> str:
    columns, rows = highest_voxels(facts)
    shown: list[str | Column] = [Column(columns[0], format_number), *columns[1:]]
    return render_table(f"Highest voxels {above_title(facts)}", shown, rows, _width())


def _spread_row(name: str, spread: Spread) -> list[Cell]:
    return [
        name,
        spread.n_voxels,
        spread.minimum,
        spread.p0_5,
        spread.p5,
        spread.median,
        spread.p95,
        spread.p99_5,
        spread.maximum,
        spread.mean,
        spread.standard_deviation,
    ]


def sparkline(histogram: Histogram) -> str:
    """A histogram as at most 32 block characters, each relative to the highest; only an empty one is blank."""
    counts = _blocks(histogram)
    blocks, top = " ▁▂▃▄▅▆▇█", max(counts) or 1
    return "".join(blocks[math.ceil(count / top * (len(blocks) - 1))] for count in counts)


def _blocks(histogram: Histogram) -> list[int]:
    """Voxels of each of at most 32 blocks of bins."""
    bins = math.ceil(len(histogram.counts) / _SPARKS)
    return [sum(histogram.counts[start : start + bins]) for start in range(0, len(histogram.counts), bins)]


def _labels(case: CaseFacts) -> str:
    assert case.labels is not None
    columns: list[str | Column] = [
        Column("label", is_name=True),
        Column("voxels", ",d"),
        Column("mm³", ",.0f"),
        "sagittal",
        "coronal",
        "axial",
        Column("components", "d"),
        "touches",
    ]
    rows: list[list[Cell]] = [
        [
            f"{value.value} {value.name or ''}".rstrip(),
            value.n_voxels,
            value.volume_mm3,
            *(extent_in_words(extent) for extent in value.extents),
            value.n_components,
            ", ".join(value.touches) or "nothing",
        ]
        for value in case.labels.values[:_MOST_ROWS]
    ]
    hidden = len(case.labels.values) - len(rows)
    table = render_table("Labels: volume, first–last slice of each axis from left, posterior, inferior", columns, rows)
    return table + (f"\n  … and {hidden} more values (all in --csv, --json and --output)" if hidden else "")


# Several cases ------------------------------------------------------------------------------------------------------


def _many_cases(
    cases: Sequence[CaseFacts], distributions: Sequence[Distribution], outliers: Sequence[Outlier]
) -> list[str]:
    n_labels = sum(case.label is not None for case in cases)
    title = f"{len(cases)} cases, {n_labels} with a label"
    parts = [f"{title}\n{_listed(facts_of_set(cases))}", _distributions(distributions)]
    columns_above, rows_above = cases_above(cases)
    if rows_above:
        parts.append(_cases_above(columns_above, rows_above))
    if outliers:
        parts.append(_outliers(outliers))
    elif len(cases) >= MIN_CASES:
        parts.append("No case is an outlier.")
    return parts


def _cases_above(columns: Sequence[str], rows: Sequence[Sequence[Cell]]) -> str:
    case, voxels, components, highest, *place = columns
    shown: list[str | Column] = [
        Column(case, is_name=True),
        Column(voxels, ",d"),
        Column(components, ",d"),
        Column(highest, format_number),
        *place,
    ]
    hidden = len(rows) - _MOST_ROWS
    more = f"\n  … and {hidden} more (all in --csv, --json and --output)" if hidden > 0 else ""
    return render_table("Cases with voxels above the value", shown, [list(row) for row in rows[:_MOST_ROWS]]) + more


def _distributions(distributions: Sequence[Distribution]) -> str:
    names = ("minimum", "25 %", "median", "75 %", "maximum")
    columns: list[str | Column] = ["", Column("cases", "d"), *(Column(name, format_number) for name in names)]
    rows: list[list[Cell]] = [
        [name_with_unit(each), each.n_cases, each.minimum, each.p25, each.median, each.p75, each.maximum]
        for each in distributions
    ]
    return render_table("Distributions", columns, rows, _width())


def _outliers(outliers: Sequence[Outlier]) -> str:
    case, robust_z = Column("case", is_name=True), Column("robust z", "+.1f")
    columns: list[str | Column] = [case, "quantity", robust_z, "value", Column("usual", may_go=True)]
    rows: list[list[Cell]] = [
        [outlier.case_id, outlier.quantity, outlier.robust_z, outlier.shown, outlier.usual]
        for outlier in outliers[:_MOST_ROWS]
    ]
    hidden = len(outliers) - len(rows)
    more = f"\n  … and {hidden} more (all in --json and --output)" if hidden else ""
    rule = textwrap.fill(f"Rule: {RULE}.", _width(), initial_indent="  ", subsequent_indent="  ")
    return render_table("Outliers", columns, rows, _width()) + more + "\n" + rule


# The end ------------------------------------------------------------------------------------------------------------


def _suggestion(suggestion: Suggestion, n_cases: int) -> str:
    whose = f", {whose_suggestion(suggestion, n_cases)}" if n_cases > 1 else ""
    pairs = [(setting.override or "(default)", setting.reason) for setting in suggestion.settings]
    last = f"A training would be refused: {suggestion.obstacle}." if suggestion.obstacle else suggestion.command
    return f"Suggested settings{whose}\n{_listed(pairs)}\n\n{last}"


def _verdict(verdict: Verdict, n_cases: int) -> str:
    title = f"Verdict: {verdict_in_words(verdict)}"
    if not verdict.findings:
        title = "Verdict: no problems found"
    return "\n".join([title, *(_topic(group, n_cases) for group in verdict.by_topic())])


def _topic(group: Sequence[Finding], n_cases: int) -> str:
    first = group[0]
    cases = list(dict.fromkeys(finding.case_id for finding in group if finding.case_id is not None))
    head = f"  {first.severity:7}  {first.topic}" + (
        f" ({len(cases)} of {n_cases} cases)" if n_cases > 1 and cases else ""
    )
    messages, indent = distinct_messages(group, n_cases), " " * 11
    lines = [head]
    for message in messages[:_MOST_MESSAGES]:
        lines.append(textwrap.fill(message, _width(), initial_indent=indent, subsequent_indent=indent))
    if len(messages) > _MOST_MESSAGES:
        lines.append(f"{indent}… and {len(messages) - _MOST_MESSAGES} more (all in --json and --output)")
    return "\n".join(lines)
