"""The exploration as one picture: slices, distributions, verdict and command, to paste into a report or a talk."""

import math
import textwrap
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.gridspec import GridSpec, SubplotSpec
from matplotlib.lines import Line2D

from spleen.exploration.explore import Exploration
from spleen.exploration.facts.case import CaseFacts
from spleen.exploration.outliers import Distribution, Outlier
from spleen.exploration.report.histograms import HistogramPanel, draw_histogram, histogram_panels
from spleen.exploration.report.svg import is_logarithmic
from spleen.exploration.report.views import MiddleSlice, middle_slices
from spleen.exploration.wording import (
    counted,
    distinct_messages,
    facts_of,
    facts_of_set,
    name_with_unit,
    verdict_in_words,
)
from spleen.imaging.intensity import DisplayWindow
from spleen.reporting.figures import (
    DPI,
    GREY,
    LABEL_COLOURS,
    OKABE_ITO,
    draw_scale_bar,
    draw_veil,
    label_edges,
    padded_region,
    save_figure,
    to_display,
    veil_handle,
)

Row = Callable[[Figure, SubplotSpec], None]

# In inches.
_WIDTH, _MARGIN, _TITLE, _GAP = 11.0, 0.3, 0.7, 0.6
_LINE, _SLICES, _PLOT, _STRIP = 0.175, 3.5, 2.3, 0.95
_COUNTS, _UNITS = 0.75, 0.4  # beside and below a histogram
_LEGEND_COLUMNS, _LEGEND_LETTERS = 5, 26
_STRIP_COLUMNS = 3
_LETTERS = 160  # in a line of text
_MOST_VALUES = 6


def draw_exploration(exploration: Exploration, path: Path, window: DisplayWindow | None = None) -> None:
    """Draw the figure of `exploration_figure`.

    The file appears whole or not at all; its suffix decides the format (.png, .pdf, .svg).
    """
    save_figure(exploration_figure(exploration, window), path)


def exploration_figure(exploration: Exploration, window: DisplayWindow | None = None) -> Figure:
    """One case (facts, histograms, slices), or several (distributions, and the same of the most typical one).

    Slices are shown through `window` (see `middle_slices`).
    """
    rows = list(_rows(exploration, window))
    total = sum(height for height, _ in rows) + _GAP * (len(rows) - 1) + _TITLE + _MARGIN
    figure = Figure(figsize=(_WIDTH, total), dpi=DPI, facecolor="white")
    cases = exploration.cases
    title = cases[0].case_id if len(cases) == 1 else f"{len(cases)} cases"
    left, right, top = _MARGIN / _WIDTH, 1 - _MARGIN / _WIDTH, total - _TITLE
    figure.text(left, (top + _TITLE / 2) / total, title, fontsize=15, weight="bold", va="center")
    for height, draw in rows:
        draw(figure, GridSpec(1, 1, figure, left, (top - height) / total, right, top / total)[0])
        top -= height + _GAP
    return figure


def _rows(exploration: Exploration, window: DisplayWindow | None) -> Iterator[tuple[float, Row]]:
    """Height in inches and drawing function of each row."""
    case = _drawn_case(exploration)
    facts = _facts(exploration)
    yield len(facts) * _LINE, lambda figure, place: _write(figure.add_subplot(place), facts)
    whose = case.case_id if case is not None and len(exploration.cases) > 1 else ""
    if case is not None and case.intensity is not None:
        panels = histogram_panels(case.intensity)
        yield _PLOT, lambda figure, place: _draw_histograms(figure, place, panels, whose)
    views = middle_slices(case, exploration.organ, window) if case is not None else []
    if views:
        tallest = max(view.size_mm[0] / view.size_mm[1] for view in views) * _WIDTH / len(views)
        legend = math.ceil(len(_legend(views)) / _LEGEND_COLUMNS) * _LINE
        height = min(_SLICES, tallest)
        yield height + legend, lambda figure, place: _draw_slices(figure, place, views, whose, legend / height)
    strips = [each for each in exploration.distributions if each.minimum < each.maximum]
    if len(exploration.cases) > 1 and strips:
        n_rows = math.ceil(len(strips) / _STRIP_COLUMNS)
        yield n_rows * _STRIP, lambda figure, place: _draw_strips(figure, place, strips, exploration.outliers)
    words = _closing_words(exploration)
    yield len(words) * _LINE, lambda figure, place: _write(figure.add_subplot(place), words)


def _drawn_case(exploration: Exploration) -> CaseFacts | None:
    if exploration.suggestion is None or len(exploration.cases) == 1:
        return exploration.cases[0] if len(exploration.cases) == 1 else None
    return next(case for case in exploration.cases if case.case_id == exploration.suggestion.case_id)


def _facts(exploration: Exploration) -> list[str]:
    cases = exploration.cases
    if len(cases) > 1:
        return [line for name, text in facts_of_set(cases) for line in _folded(f"{name}: {text}", _LETTERS)]
    pairs = [pair for pair in facts_of(cases[0]) if pair[0] not in ("image", "label")]
    lines = [line for name, text in pairs for line in _folded(f"{name}: {text}", _LETTERS)]
    for value in cases[0].labels.values[:_MOST_VALUES] if cases[0].labels is not None else ():
        lines.append(f"{value.title}: {value.volume_mm3:,.0f} mm³ in {counted(value.n_components, 'component')}")
    return lines


def _folded(text: str, width: int) -> list[str]:
    return textwrap.wrap(text, width, subsequent_indent="    ")


def _closing_words(exploration: Exploration) -> list[str]:
    verdict = exploration.verdict
    lines = [f"Verdict: {verdict_in_words(verdict)}"]
    for group in verdict.by_topic():
        cases = {finding.case_id for finding in group if finding.case_id is not None}
        count = f" ({counted(len(cases), 'case')})" if len(exploration.cases) > 1 and cases else ""
        messages = distinct_messages(group, len(exploration.cases))
        more = f" (and {len(messages) - 1} more)" if len(messages) > 1 else ""
        lines += _folded(f"  {group[0].severity}: {group[0].topic}{count} – {messages[0]}{more}", _LETTERS)
    if exploration.suggestion is not None and exploration.suggestion.obstacle is None:
        lines += ["", *_folded(exploration.suggestion.command, _LETTERS)]
    return lines


def _write(axes: Axes, lines: Sequence[str]) -> None:
    """Lines of text from the upper left corner of a panel."""
    axes.set_axis_off()
    axes.text(0, 1, "\n".join(lines), fontsize=8.5, va="top", ha="left", linespacing=1.35, transform=axes.transAxes)


def _draw_histograms(figure: Figure, place: SubplotSpec, panels: Sequence[HistogramPanel], case_id: str) -> None:
    """Side by side, each inset by the room that its numbers and the name of its axis need."""
    columns = place.subgridspec(1, 3, wspace=0.0)
    for number, panel in enumerate(panels):
        box = columns[number].get_position(figure)
        left, bottom = _COUNTS / figure.get_figwidth(), _UNITS / figure.get_figheight()
        axes = figure.add_axes((box.x0 + left, box.y0 + bottom, box.width - left - 0.012, box.height - bottom))
        draw_histogram(axes, panel, f" of {case_id}" if case_id and number == 0 else "")


def _draw_slices(
    figure: Figure, place: SubplotSpec, views: Sequence[MiddleSlice], case_id: str, legend_share: float
) -> None:
    rows = place.subgridspec(2, 1, height_ratios=(1, legend_share or 1e-6), hspace=0.0)
    thirds = rows[0].subgridspec(1, len(views), wspace=0.03)
    for number, view in enumerate(views):
        axes = figure.add_subplot(thirds[number], anchor="N")
        _draw_slice(axes, view, f"{case_id}, " if case_id and number == 0 else "")
    axes.set_title(views[0].shown, fontsize=9, loc="right", color=GREY)
    labels = _legend(views)
    if labels:
        below = (0.5, rows[0].get_position(figure).y0)
        figure.legend(
            handles=labels,
            loc="upper center",
            bbox_to_anchor=below,
            ncols=_LEGEND_COLUMNS,
            fontsize=8,
            frameon=False,
            labelspacing=0.3,
        )


def _legend(views: Sequence[MiddleSlice]) -> list[Artist]:
    handles: list[Artist] = [
        Line2D([], [], color=LABEL_COLOURS[number % len(LABEL_COLOURS)], linewidth=2, label=_short(value.title))
        for number, value in enumerate(views[0].values)
    ]
    return [*handles, veil_handle()] if any(view.unlabelled is not None for view in views) else handles


def _short(title: str) -> str:
    return title if len(title) <= _LEGEND_LETTERS else f"{title[: _LEGEND_LETTERS - 1]}…"


def _draw_slice(axes: Axes, view: MiddleSlice, whose: str) -> None:
    """One slice, in mm from its upper left corner downwards."""
    height, width = view.size_mm
    extent = (0.0, width, height, 0.0)
    axes.imshow(to_display(view.image), "gray", vmin=0, vmax=1, extent=extent, interpolation="bilinear")
    if view.unlabelled is not None:
        draw_veil(axes, to_display(view.unlabelled), view.size_mm)
    for number in range(1, len(view.values) + 1):
        region = to_display(view.labels == number)
        if region.any():  # Matplotlib warns about a contour that does not exist
            colour = LABEL_COLOURS[(number - 1) % len(LABEL_COLOURS)]
            axes.contour(*padded_region(region, view.size_mm), [0.5], colors=[colour], linewidths=1.4)
    axes.set(xticks=[], yticks=[], xlim=(0, width), ylim=(height, 0), facecolor="black")
    label_edges(axes, view.axis)
    draw_scale_bar(axes, width, _WIDTH / 3)
    axes.set_title(f"{whose}{view.axis} slice {view.slice_index}", fontsize=9, loc="left")


def _draw_strips(
    figure: Figure, place: SubplotSpec, strips: Sequence[Distribution], outliers: Sequence[Outlier]
) -> None:
    n_rows = math.ceil(len(strips) / _STRIP_COLUMNS)
    places = place.subgridspec(n_rows, _STRIP_COLUMNS, wspace=0.1, hspace=1.3)
    for number, distribution in enumerate(strips):
        axes = figure.add_subplot(places[number // _STRIP_COLUMNS, number % _STRIP_COLUMNS])
        _draw_strip(axes, distribution, {each.case_id for each in outliers if each.quantity == distribution.name})


def _draw_strip(axes: Axes, distribution: Distribution, outlying: set[str]) -> None:
    values = np.array([value for _, value in distribution.values])
    heights = (np.arange(len(values)) * 0.618034) % 1  # scattered evenly, the same each time
    stands_out = np.array([case_id in outlying for case_id, _ in distribution.values])
    axes.axvspan(distribution.p25, distribution.p75, color="#e3e6ea", zorder=0)
    axes.axvline(distribution.median, color="black", linewidth=1)
    axes.scatter(values[~stands_out], heights[~stands_out], s=5, color=OKABE_ITO["blue"], alpha=0.5, linewidths=0)
    axes.scatter(values[stands_out], heights[stands_out], s=14, color=OKABE_ITO["vermillion"], linewidths=0)
    if is_logarithmic(distribution):
        axes.set_xscale("log")
    axes.set_title(name_with_unit(distribution), fontsize=8.5, loc="left", pad=3)
    axes.set(yticks=[], ylim=(-0.15, 1.15))
    axes.tick_params(labelsize=7.5)
    axes.spines[["top", "right", "left"]].set_visible(False)
