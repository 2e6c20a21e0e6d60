"""The exploration as one HTML page: self-contained, for phone and desktop, light and dark."""

from collections.abc import Iterator, Sequence
from html import escape

from spleen.exploration.explore import Exploration
from spleen.exploration.facts.case import CaseFacts
from spleen.exploration.facts.findings import Finding
from spleen.exploration.outliers import MIN_CASES, RULE, Outlier
from spleen.exploration.report.selection import ShownCase, shown_cases
from spleen.exploration.report.svg import histogram_svg, slice_svg, strip_svg
from spleen.exploration.report.views import middle_slices
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
from spleen.reporting.figures import COLOURS
from spleen.reporting.html import SCRIPT, STYLE, html_table
from spleen.reporting.tables import Cell
from spleen.system.text import format_number

_FULL_PIXELS, _SMALL_PIXELS = 512, 256
_MOST_MESSAGES = 8
# Name in the table, field of `Spread`.
_SPREAD = (
    ("voxels", "n_voxels"),
    ("minimum", "minimum"),
    ("0.5 %", "p0_5"),
    ("5 %", "p5"),
    ("25 %", "p25"),
    ("median", "median"),
    ("75 %", "p75"),
    ("95 %", "p95"),
    ("99.5 %", "p99_5"),
    ("maximum", "maximum"),
    ("mean", "mean"),
    ("standard deviation", "standard_deviation"),
)


def to_page(exploration: Exploration) -> str:
    """The whole page as text. Reads the files of the shown cases again, one case at a time."""
    cases = exploration.cases
    title = cases[0].case_id if len(cases) == 1 else f"{len(cases)} cases"
    sections = [_header(exploration, title), _verdict(exploration.verdict, len(cases))]
    if exploration.suggestion is not None:
        sections.append(_suggestion(exploration.suggestion, len(cases)))
    if len(cases) == 1:
        sections.append(_one_case(cases[0], exploration.organ))
    else:
        sections += [_set(exploration), _distributions(exploration), _outliers(exploration), _shown(exploration)]
        sections.append(_all_cases(exploration))
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)} – exploration</title><style>{STYLE}</style></head>"
        f"<body><main>{''.join(sections)}</main><script>{SCRIPT}</script></body></html>\n"
    )


def _header(exploration: Exploration, title: str) -> str:
    verdict = exploration.verdict
    kind, text = "good", "nothing to complain about"
    if verdict.n_errors or verdict.n_warnings:
        kind, text = "error" if verdict.n_errors else "warning", verdict_in_words(verdict)
    n_labels = sum(case.label is not None for case in exploration.cases)
    about = "What to know before training"
    if len(exploration.cases) > 1:
        about += f": {len(exploration.cases)} images, {n_labels} with a label"
    return f'<h1>{escape(title)}</h1><p class="soft">{about}</p><p><span class="badge {kind}">{escape(text)}</span></p>'


def _verdict(verdict: Verdict, n_cases: int) -> str:
    groups = "".join(_finding(group, n_cases) for group in verdict.by_topic())
    return f'<h2>Verdict</h2><div class="card">{groups or "Nothing to complain about."}</div>'


def _finding(group: Sequence[Finding], n_cases: int) -> str:
    first = group[0]
    named = [escape(message) for message in distinct_messages(group, n_cases)]
    cases = {finding.case_id for finding in group if finding.case_id is not None}
    count = f' <span class="soft">({len(cases)} of {n_cases} cases)</span>' if n_cases > 1 and cases else ""
    items = "".join(f"<li>{message}</li>" for message in named[:_MOST_MESSAGES])
    rest = "".join(f"<li>{message}</li>" for message in named[_MOST_MESSAGES:])
    if rest:
        rest = f"<details><summary>{len(named) - _MOST_MESSAGES} more</summary><ul>{rest}</ul></details>"
    body = f"<ul>{items}</ul>{rest}" if len(named) > 1 else f"<div>{named[0]}</div>"
    return (
        f'<div class="finding"><div><span class="badge {first.severity}">{first.severity}</span></div>'
        f"<div><b>{escape(first.topic)}</b>{count}{body}</div></div>"
    )


def _suggestion(suggestion: Suggestion, n_cases: int) -> str:
    whose = f" {escape(whose_suggestion(suggestion, n_cases))}" if n_cases > 1 else ""
    rows = [[setting.override or "(default)", setting.reason] for setting in suggestion.settings]
    command = (
        f'<pre id="command">{escape(suggestion.command)}</pre>'
        '<p><button data-copy="command">Copy the command</button></p>'
    )
    if suggestion.obstacle is not None:
        command = f"<p>A training would be refused: {escape(suggestion.obstacle)}.</p>"
    table = html_table(["setting", "why"], rows, code_first=True)
    return f'<h2>Suggested settings{whose}</h2><div class="card">{command}{table}</div>'


# One case -----------------------------------------------------------------------------------------------------------


def _one_case(case: CaseFacts, organ: tuple[int, ...]) -> str:
    return f"<h2>Slices</h2>{_slices(case, organ, _FULL_PIXELS)}<h2>Facts</h2>{_details(case)}"


def _slices(case: CaseFacts, organ: tuple[int, ...], most_pixels: int) -> str:
    views = middle_slices(case, organ)
    if not views:
        return '<p class="soft">The voxels cannot be read.</p>'
    figures = "".join(
        f"<figure>{slice_svg(view, most_pixels)}<figcaption>{view.axis} slice {view.slice_index}</figcaption></figure>"
        for view in views
    )
    chips = "".join(
        f'<span class="chip"><i style="background:{COLOURS[number % len(COLOURS)]}"></i>{escape(value.title)}</span>'
        for number, value in enumerate(views[0].values)
    )
    return f'<div class="slices">{figures}</div><p class="small soft">{chips}</p>'


def _details(case: CaseFacts) -> str:
    facts = "".join(f"<dt>{escape(name)}</dt><dd>{escape(text)}</dd>" for name, text in facts_of(case))
    parts = [f'<div class="card"><dl>{facts}</dl></div>']
    if case.image_header is not None and case.image_header.geometry is not None:
        parts.append(_planes(case))
    if case.intensity is not None:
        parts.append(_intensities(case))
    if case.labels is not None and case.labels.values:
        parts.append(_labels(case))
    return "".join(parts)


def _planes(case: CaseFacts) -> str:
    assert case.image_header is not None
    assert case.image_header.geometry is not None
    columns = ["axis, by the affine", "array axis", "slices", "apart (mm)", "pixel (mm)"]
    rows: list[list[Cell]] = [
        [plane.axis, plane.array_axis, plane.n_slices, f"{plane.spacing_mm:.6g}", times(plane.pixel_mm)]
        for plane in case.image_header.geometry.planes
    ]
    if case.labels is not None:
        columns.append("slices with organ")
        for row, counts in zip(rows, case.labels.organ_per_slice, strict=True):
            row.append(sum(count > 0 for count in counts))
    return f'<h3>Slicing axes</h3><div class="card scroll">{html_table(columns, rows)}</div>'


def _intensities(case: CaseFacts) -> str:
    facts = case.intensity
    assert facts is not None
    parts = {"whole image": facts.whole, f"body {facts.body_rule}": facts.body, "organ": facts.organ}
    spreads = {name: spread for name, spread in parts.items() if spread is not None}
    rows = [[shown, *(getattr(spread, name) for spread in spreads.values())] for shown, name in _SPREAD]
    unit = " in HU" if facts.modality == "CT" else ""
    organ = '<span class="chip"><i style="background:#E69F00"></i>organ</span>' if facts.organ is not None else ""
    return (
        f'<h3>Intensities{unit}</h3><div class="two"><div class="card">{histogram_svg(facts)}<p class="small soft">'
        f'<span class="chip"><i style="background:var(--soft)"></i>body {escape(facts.body_rule)}</span>{organ}'
        f'(each against its own peak)</p></div><div class="card scroll">{html_table(["", *spreads], rows)}</div></div>'
    )


def _labels(case: CaseFacts) -> str:
    assert case.labels is not None
    named = any(value.name for value in case.labels.values)
    columns = ["label", *["class"] * named, "voxels", "mm³", "ml", "sagittal", "coronal", "axial", "pieces", "touches"]
    rows: list[list[Cell]] = [
        [
            value.value,
            *[value.name] * named,
            value.n_voxels,
            round(value.volume_mm3),
            value.volume_mm3 / 1000,
            *(extent_in_words(extent) for extent in value.extents),
            value.n_components,
            ", ".join(value.touches) or "nothing",
        ]
        for value in case.labels.values
    ]
    note = "Slices from left, posterior and inferior, numbered from 0. Pieces do not touch, not even by a corner."
    return f'<h3>Labels</h3><div class="card scroll">{html_table(columns, rows)}<p class="small soft">{note}</p></div>'


# Several cases ------------------------------------------------------------------------------------------------------


def _set(exploration: Exploration) -> str:
    same = [each for each in exploration.distributions if each.minimum == each.maximum]
    pairs = facts_of_set(exploration.cases)
    pairs += [(each.name, f"{format_number(each.median)} {each.unit}, all the same") for each in same]
    facts = "".join(f"<dt>{escape(name)}</dt><dd>{escape(text)}</dd>" for name, text in pairs)
    return f'<h2>The set</h2><div class="card"><dl>{facts}</dl></div>'


def _distributions(exploration: Exploration) -> str:
    cards = "".join(
        f'<div class="card"><b>{escape(name_with_unit(each))}</b>'
        f"{strip_svg(each, [o.case_id for o in exploration.outliers if o.quantity == each.name])}</div>"
        for each in exploration.distributions
        if each.minimum < each.maximum
    )
    if not cards:
        return ""
    legend = "One dot per case; the band is the middle half, the line the median; cases that stand out are orange."
    return f'<h2>Distributions</h2><p class="small soft">{legend}</p><div class="grid">{cards}</div>'


def _outliers(exploration: Exploration) -> str:
    if len(exploration.cases) < MIN_CASES:
        return ""
    rule = f'<p class="small soft">Rule: {escape(RULE)}.</p>'
    if not exploration.outliers:
        return f'<h2>Outliers</h2><div class="card">No case stands out.{rule}</div>'
    columns = ["case", "stands out in", "value", "usual", "robust z"]
    rows: list[list[Cell]] = [
        [each.case_id, each.quantity, each.shown, each.usual, each.robust_z and round(each.robust_z, 1)]
        for each in exploration.outliers
    ]
    table = html_table(columns, rows, is_sortable=True)
    return f'<h2>Outliers</h2><div class="card"><div class="scroll tall">{table}</div>{rule}</div>'


def _shown(exploration: Exploration) -> str:
    cards = "".join(_shown_case(shown, exploration.organ) for shown in shown_cases(exploration))
    return f"<h2>Some of the cases</h2>{cards}" if cards else ""


def _shown_case(shown: ShownCase, organ: tuple[int, ...]) -> str:
    case = shown.case
    why = "".join(f"<div>{escape(reason)}</div>" for reason in shown.reasons)
    return (
        f'<div class="card shown"><h3>{escape(case.case_id)}</h3><div class="small soft">{why}</div>'
        f"{_slices(case, organ, _SMALL_PIXELS)}<details><summary>All facts</summary>{_details(case)}</details></div>"
    )


def _all_cases(exploration: Exploration) -> str:
    names = [each for each in exploration.distributions if each.minimum < each.maximum]
    values = {each.name: dict(each.values) for each in names}
    columns = ["case", "shape", *(name_with_unit(each) for each in names), "marks"]
    rows: list[list[Cell]] = []
    for case in exploration.cases:
        marks = ", ".join(dict.fromkeys(_marks(case, exploration.outliers)))
        shape = times(case.image_header.shape) if case.image_header is not None else None
        rows.append([case.case_id, shape, *(values[each.name].get(case.case_id) for each in names), marks])
    table = html_table(columns, rows, is_sortable=True)
    hint = '<p class="small soft">A click on a heading sorts.</p>'
    return f'<h2>All cases</h2>{hint}<div class="card"><div class="scroll tall">{table}</div></div>'


def _marks(case: CaseFacts, outliers: Sequence[Outlier]) -> Iterator[str]:
    yield from (finding.topic for finding in case.findings if finding.severity == "error")
    yield from (f"{outlier.quantity}" for outlier in outliers if outlier.case_id == case.case_id)
    yield from (finding.topic for finding in case.findings if finding.severity == "warning")
