"""The exploration as one HTML page: self-contained, for phone and desktop, light and dark."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from spleen.evaluation.scan.case import Scan, is_hounsfield
from spleen.evaluation.scan.viewer import Viewer, make_viewer, viewer_scripts
from spleen.exploration.above_wording import above_title, cases_above, highest_voxels
from spleen.exploration.explore import Exploration
from spleen.exploration.facts.case import CaseFacts
from spleen.exploration.facts.intensity import IntensityFacts
from spleen.exploration.facts.reading import read_image_file
from spleen.exploration.outliers import MIN_CASES, RULE, Distribution, Outlier
from spleen.exploration.report.histograms import histogram_panels
from spleen.exploration.report.selection import shown_cases
from spleen.exploration.report.svg import (
    HistogramDrawing,
    SliceDrawing,
    StripDrawing,
    histogram_drawing,
    slice_drawing,
    strip_drawing,
)
from spleen.exploration.report.views import middle_slices, numbered_labels
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
from spleen.imaging.intensity import DisplayWindow
from spleen.reporting.figures import LABEL_COLOURS
from spleen.reporting.html import render_page
from spleen.reporting.numbers import format_number
from spleen.reporting.tables import Cell

Table = tuple[list[str], list[list[Cell]]]

_FULL_PIXELS, _SMALL_PIXELS = 512, 256
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


@dataclass(frozen=True)
class _CaseView:
    """One case as the template shows it; a table is its columns and rows, None where there is nothing to show."""

    case_id: str
    pictures: tuple[SliceDrawing, ...]
    chips: tuple[tuple[str, str], ...]
    facts: list[tuple[str, str]]
    planes: Table | None
    elements: Table | None
    shown: str
    unit: str
    histograms: tuple[HistogramDrawing, ...]
    spreads: Table | None
    above: str
    highest: Table | None
    labels: Table | None
    has_unlabelled: bool


def to_page(exploration: Exploration, window: DisplayWindow | None = None) -> str:
    """The whole page as text, with slices shown through `window` (see `middle_slices`).

    Reads the files of the shown cases again, one case at a time.
    """
    cases, organ = exploration.cases, exploration.organ
    suggestion, verdict = exploration.suggestion, exploration.verdict
    single = len(cases) == 1
    n_labels = sum(case.label is not None for case in cases)
    different = [each for each in exploration.distributions if each.minimum < each.maximum]
    viewer = _viewer(cases[0], organ) if single else None
    return render_page(
        "exploration.html.jinja",
        scripts=viewer_scripts() if viewer is not None else (),
        viewer=viewer,
        kind="exploration",
        title=cases[0].case_id if single else f"{len(cases)} cases",
        about="What to know before training" + ("" if single else f": {len(cases)} images, {n_labels} with a label"),
        level="error" if verdict.n_errors else "warning" if verdict.n_warnings else "good",
        headline=verdict_in_words(verdict) if verdict.n_errors or verdict.n_warnings else "no problems found",
        n_cases=len(cases),
        findings=list(_findings(verdict, len(cases))),
        suggestion=suggestion,
        whose="" if single or suggestion is None else f" {whose_suggestion(suggestion, len(cases))}",
        settings=[[each.override or "(default)", each.reason] for each in suggestion.settings] if suggestion else [],
        case=_view(cases[0], organ, _FULL_PIXELS, window) if single else None,
        facts_of_set=_facts_of_set(exploration),
        strips=[(name_with_unit(each), _strip(each, exploration.outliers)) for each in different],
        above=next((above_title(each.above) for each in cases if each.above is not None), ""),
        cases_above=cases_above(cases),
        has_outlier_rule=len(cases) >= MIN_CASES,
        outliers=_outliers(exploration.outliers),
        rule=RULE,
        shown_cases=[]
        if single
        else [(_view(shown.case, organ, _SMALL_PIXELS, window), shown.reasons) for shown in shown_cases(exploration)],
        all_cases=_all_cases(exploration, different),
    )


def _findings(verdict: Verdict, n_cases: int) -> Iterator[dict[str, object]]:
    for group in verdict.by_topic():
        cases = {finding.case_id for finding in group if finding.case_id is not None}
        yield {
            "severity": group[0].severity,
            "topic": group[0].topic,
            "n_cases": len(cases) if n_cases > 1 else 0,
            "messages": distinct_messages(group, n_cases),
        }


# One case -----------------------------------------------------------------------------------------------------------


def _view(case: CaseFacts, organ: tuple[int, ...], most_pixels: int, window: DisplayWindow | None) -> _CaseView:
    views, facts, above = middle_slices(case, organ, window), case.intensity, case.above
    values = views[0].values if views else ()
    return _CaseView(
        case_id=case.case_id,
        pictures=tuple(slice_drawing(view, most_pixels) for view in views),
        chips=tuple((LABEL_COLOURS[n % len(LABEL_COLOURS)], value.title) for n, value in enumerate(values)),
        facts=facts_of(case),
        planes=_planes(case),
        elements=_elements(case),
        shown=views[0].shown if views else "",
        unit=" in HU" if facts is not None and facts.modality == "CT" else "",
        histograms=tuple(map(histogram_drawing, histogram_panels(facts))) if facts is not None else (),
        spreads=_spreads(facts) if facts is not None else None,
        above=above_title(above) if above is not None else "",
        highest=highest_voxels(above) if above is not None and above.highest else None,
        labels=_labels(case),
        has_unlabelled=any(view.unlabelled is not None for view in views),
    )


def _viewer(case: CaseFacts, organ: tuple[int, ...]) -> Viewer | None:
    """The case to move through, with its label as the reference; None where its voxels cannot be read."""
    image = read_image_file(case.image).volume
    if image is None or case.intensity is None:
        return None
    labels = numbered_labels(case, organ, image)
    low, high = case.intensity.whole.minimum, case.intensity.whole.maximum
    array = np.nan_to_num(image.array, nan=low, neginf=low, posinf=high)
    return make_viewer(
        Scan(
            case.case_id,
            array,
            image.affine,
            is_hounsfield(array),
            classes=tuple(value.title for value in labels.values),
            reference=labels.numbers if labels.values or labels.unlabelled is not None else None,
            unlabelled=labels.unlabelled,
            unlabelled_value=case.ignore_value,
        )
    )


def _planes(case: CaseFacts) -> Table | None:
    if case.image_header is None or case.image_header.geometry is None:
        return None
    columns = ["axis, by the affine", "array axis", "slices", "apart (mm)", "pixel (mm)"]
    rows: list[list[Cell]] = [
        [plane.axis, plane.array_axis, plane.n_slices, f"{plane.spacing_mm:.6g}", times(plane.pixel_mm)]
        for plane in case.image_header.geometry.planes
    ]
    if case.labels is not None:
        columns.append("slices with organ")
        for row, counts in zip(rows, case.labels.organ_per_slice, strict=True):
            row.append(sum(count > 0 for count in counts))
    return columns, rows


def _elements(case: CaseFacts) -> Table | None:
    if case.image_header is None or case.image_header.dicom is None:
        return None
    return ["tag", "keyword", "value"], [
        [each.tag, each.keyword, each.value] for each in case.image_header.dicom.elements
    ]


def _spreads(facts: IntensityFacts) -> Table:
    parts = {"whole image": facts.whole, f"body {facts.body_rule}": facts.body, "organ": facts.organ}
    spreads = {name: spread for name, spread in parts.items() if spread is not None}
    return ["", *spreads], [[shown, *(getattr(spread, name) for spread in spreads.values())] for shown, name in _SPREAD]


def _labels(case: CaseFacts) -> Table | None:
    if case.labels is None or not case.labels.values:
        return None
    named = any(value.name for value in case.labels.values)
    columns = [
        "label",
        *["class"] * named,
        "voxels",
        "mm³",
        "ml",
        "sagittal",
        "coronal",
        "axial",
        "components",
        "touches",
    ]
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
    return columns, rows


# Several cases ------------------------------------------------------------------------------------------------------


def _facts_of_set(exploration: Exploration) -> list[tuple[str, str]]:
    same = [each for each in exploration.distributions if each.minimum == each.maximum]
    shared = [(each.name, f"{format_number(each.median)} {each.unit}, all the same") for each in same]
    return facts_of_set(exploration.cases) + shared


def _strip(distribution: Distribution, outliers: Sequence[Outlier]) -> StripDrawing:
    return strip_drawing(distribution, [each.case_id for each in outliers if each.quantity == distribution.name])


def _outliers(outliers: Sequence[Outlier]) -> Table:
    rows: list[list[Cell]] = [
        [each.case_id, each.quantity, each.shown, each.usual, each.robust_z and round(each.robust_z, 1)]
        for each in outliers
    ]
    return ["case", "quantity", "value", "usual", "robust z"], rows


def _all_cases(exploration: Exploration, different: Sequence[Distribution]) -> Table:
    values = {each.name: dict(each.values) for each in different}
    columns = ["case", "shape", *(name_with_unit(each) for each in different), "marks"]
    rows: list[list[Cell]] = []
    for case in exploration.cases:
        marks = ", ".join(dict.fromkeys(_marks(case, exploration.outliers)))
        shape = times(case.image_header.shape) if case.image_header is not None else None
        rows.append([case.case_id, shape, *(values[each.name].get(case.case_id) for each in different), marks])
    return columns, rows


def _marks(case: CaseFacts, outliers: Sequence[Outlier]) -> Iterator[str]:
    yield from (finding.topic for finding in case.findings if finding.severity == "error")
    yield from (f"{outlier.quantity}" for outlier in outliers if outlier.case_id == case.case_id)
    yield from (finding.topic for finding in case.findings if finding.severity == "warning")
