"""Geometry of plots with two axes; `pages/plots.html.jinja` turns it into inline SVG that takes the page's colours.

A style is a number from 0: colour and dashes of Okabe and Ito's palette, so that lines differ without colour too.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from spleen.reporting.numbers import format_number

N_STYLES = 6
Point = tuple[float, float]
LabelledPoint = tuple[float, float, str]
"""x, y and what the pointer shows there."""


@dataclass(frozen=True)
class Line:
    """Points joined by a line; a point with a NaN breaks it."""

    name: str
    points: Sequence[LabelledPoint]
    style: int = 0
    has_markers: bool = True


@dataclass(frozen=True)
class Dots:
    """Points of a scatter plot."""

    name: str
    points: Sequence[LabelledPoint]
    style: int = 0


@dataclass(frozen=True)
class Bar:
    """A bar over [left, right] from 0 to `height`."""

    left: float
    right: float
    height: float
    title: str


@dataclass(frozen=True)
class Bars:
    """Bars of one kind."""

    name: str
    bars: Sequence[Bar]
    style: int = 0


@dataclass(frozen=True)
class Band:
    """A shaded range of x; `kind` is the name of its style and its entry in the legend."""

    left: float
    right: float
    kind: str
    title: str


@dataclass(frozen=True)
class Rule:
    """A straight line across the plot at one value of an axis."""

    axis: Literal["x", "y"]
    value: float
    label: str
    is_dashed: bool = True


@dataclass(frozen=True)
class Plot:
    """What is drawn. Without a range, an axis spans its data; `y_range` may be open on one side (None)."""

    title: str
    x_label: str
    y_label: str
    lines: Sequence[Line] = ()
    dots: Sequence[Dots] = ()
    bars: Sequence[Bars] = ()
    bands: Sequence[Band] = ()
    rules: Sequence[Rule] = ()
    x_range: tuple[float, float] | None = None
    y_range: tuple[float | None, float | None] = (None, None)
    has_whole_x: bool = False
    """Ticks of x only at whole numbers, such as epochs."""
    width: float = 340
    height: float = 210
    right_margin: float = 12
    """Room for the labels of horizontal rules."""
    left_margin: float | None = None
    """By default wide enough for the numbers of the y axis."""


@dataclass(frozen=True)
class PlottedLine:
    """A line as an SVG path, and its markers (x, y, title)."""

    style: int
    path: str
    markers: tuple[LabelledPoint, ...]


@dataclass(frozen=True)
class PlottedRule:
    """A rule from (x1, y1) to (x2, y2) with its label at its end."""

    x1: float
    y1: float
    x2: float
    y2: float
    label: str
    is_dashed: bool
    is_vertical: bool


@dataclass(frozen=True)
class PlotDrawing:
    """A plot in the units of its viewBox; `left`, `top`, `right`, `bottom` frame the data."""

    plot: Plot
    left: float
    top: float
    right: float
    bottom: float
    x_ticks: tuple[tuple[float, str], ...]
    y_ticks: tuple[tuple[float, str], ...]
    bands: tuple[tuple[float, float, str, str], ...]
    """x, width, kind, title."""
    bars: tuple[tuple[int, tuple[tuple[float, float, float, float, str], ...]], ...]
    """Style, and x, y, width, height and title of each bar."""
    lines: tuple[PlottedLine, ...]
    dots: tuple[tuple[int, tuple[LabelledPoint, ...]], ...]
    rules: tuple[PlottedRule, ...]
    legend: tuple[tuple[str, int, str], ...]
    """How it is drawn ("line", "dot" or "bar"), style, name."""

    @property
    def band_kinds(self) -> tuple[str, ...]:
        """The kinds of bands, each once, for the legend."""
        return tuple(dict.fromkeys(kind for _, _, kind, _ in self.bands))


@dataclass(frozen=True)
class _Scale:
    """From values to places on the page."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        place = self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)
        return round(place, 2)

    def clipped(self, value: float) -> float:
        return self(min(max(value, self.low), self.high))


def round_ticks(low: float, high: float, most: int = 6, whole: bool = False) -> list[float]:
    """Round numbers within a range, at most `most`: multiples of 1, 2, 2.5 or 5 times a power of ten.

    `whole` gives whole numbers only.
    """
    power = 10.0 ** math.floor(math.log10((high - low) / most))
    for step in (factor * power for factor in (1, 2, 2.5, 5, 10)):
        first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
        if last - first < most and not (whole and step % 1):
            return [number * step for number in range(first, last + 1)]
    return [float(number) for number in range(math.ceil(low), math.floor(high) + 1)]


def draw_plot(plot: Plot) -> PlotDrawing:
    """Lay out a plot. Points that are not finite are left out."""
    top = 20.0 if any(rule.axis == "x" for rule in plot.rules) else 10.0  # above the frame stand their labels
    right, bottom = plot.width - plot.right_margin, plot.height - 36.0
    y = _Scale(*_y_range(plot), bottom, top)
    y_ticks = round_ticks(y.low, y.high, max(2, int((bottom - top) / 26)))
    left = plot.left_margin or max(46.0, 26 + 6.2 * max((len(format_number(value)) for value in y_ticks), default=0))
    x = _Scale(*_x_range(plot), left, right)
    x_ticks = round_ticks(x.low, x.high, int((right - left) / 55), plot.has_whole_x)
    return PlotDrawing(
        plot=plot,
        left=left,
        top=top,
        right=right,
        bottom=bottom,
        x_ticks=tuple((x(value), format_number(value)) for value in x_ticks),
        y_ticks=tuple((y(value), format_number(value)) for value in y_ticks),
        bands=tuple(_bands(plot.bands, x)),
        bars=tuple((bars.style, tuple(_place_bar(bar, x, y) for bar in bars.bars if bar.height)) for bars in plot.bars),
        lines=tuple(_place_line(line, x, y) for line in plot.lines),
        dots=tuple((dots.style, tuple((x(px), y(py), title) for px, py, title in dots.points)) for dots in plot.dots),
        rules=tuple(_place_rule(rule, x, y) for rule in plot.rules),
        legend=(
            *(("line", line.style, line.name) for line in plot.lines if line.name),
            *(("dot", dots.style, dots.name) for dots in plot.dots if dots.name),
            *(("bar", bars.style, bars.name) for bars in plot.bars if bars.name),
        ),
    )


def draw_aligned(plots: Sequence[Plot]) -> list[PlotDrawing]:
    """Lay out plots that stand above each other, so that equal x are at equal places."""
    left = max(draw_plot(plot).left for plot in plots)
    return [draw_plot(replace(plot, left_margin=left)) for plot in plots]


def _finite(values: Iterable[float]) -> list[float]:
    return [value for value in values if math.isfinite(value)]


def _points(plot: Plot) -> list[LabelledPoint]:
    return [
        point
        for points in [each.points for each in plot.lines] + [each.points for each in plot.dots]
        for point in points
    ]


def _x_range(plot: Plot) -> tuple[float, float]:
    if plot.x_range is not None:
        return plot.x_range
    values = _finite(point[0] for point in _points(plot))
    values += [edge for bars in plot.bars for bar in bars.bars for edge in (bar.left, bar.right)]
    low, high = min(values, default=0.0), max(values, default=1.0)
    margin = 0.04 * (high - low) or 0.5
    return low - margin, high + margin


def _y_range(plot: Plot) -> tuple[float, float]:
    values = _finite(point[1] for point in _points(plot))
    values += [edge for bars in plot.bars for bar in bars.bars for edge in (0.0, bar.height)]
    values += _finite(rule.value for rule in plot.rules if rule.axis == "y")
    low, high = min(values, default=0.0), max(values, default=1.0)
    margin = 0.07 * (high - low) or 0.1 * abs(high) or 1.0
    fixed_low, fixed_high = plot.y_range
    low = low - margin if fixed_low is None else fixed_low
    high = high + margin if fixed_high is None else fixed_high
    return low, high if high > low else low + 1.0


def _bands(bands: Sequence[Band], x: _Scale) -> Iterable[tuple[float, float, str, str]]:
    for band in bands:
        start, end = x.clipped(band.left), x.clipped(band.right)
        if end > start:
            yield start, round(end - start, 2), band.kind, band.title


def _place_bar(bar: Bar, x: _Scale, y: _Scale) -> tuple[float, float, float, float, str]:
    start, end = x.clipped(bar.left), x.clipped(bar.right)
    zero, tip = y(0.0), y.clipped(bar.height)
    width, height = max(end - start, 0.0), max(abs(tip - zero), 0.5)
    return start, min(zero, tip), round(width, 2), round(height, 2), bar.title


def _place_line(line: Line, x: _Scale, y: _Scale) -> PlottedLine:
    path, markers, pen_is_down = "", [], False
    for px, py, title in line.points:
        if not (math.isfinite(px) and math.isfinite(py)):
            pen_is_down = False
            continue
        path += f"{'L' if pen_is_down else 'M'}{x(px):g} {y(py):g}"
        pen_is_down = True
        markers.append((x(px), y(py), title))
    return PlottedLine(line.style, path, tuple(markers) if line.has_markers else ())


def _place_rule(rule: Rule, x: _Scale, y: _Scale) -> PlottedRule:
    if rule.axis == "x":
        place = x(rule.value)
        return PlottedRule(place, y.end, place, y.start, rule.label, rule.is_dashed, True)
    place = y(rule.value)
    return PlottedRule(x.start, place, x.end, place, rule.label, rule.is_dashed, False)
