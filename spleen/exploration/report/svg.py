"""Geometry of the drawings of the exploration page; `pages/drawings.html.jinja` turns it into inline SVG."""

import base64
import math
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO

import numpy as np
from contourpy import contour_generator
from jaxtyping import Bool
from PIL import Image

from spleen.exploration.outliers import Distribution
from spleen.exploration.report.histograms import LEAST_LOG, HistogramPanel, count_ticks
from spleen.exploration.report.views import MiddleSlice
from spleen.reporting.figures import EDGES, LABEL_COLOURS, padded_region, scale_bar_mm, to_display
from spleen.reporting.numbers import format_number
from spleen.reporting.plots import round_ticks

LOG_FROM = 20  # ratio of largest to smallest value from which a logarithmic axis is clearer
_WIDTH, _MARGIN = 360, 14  # of a plot, in its own units
_COUNTS, _TOP, _BOTTOM = 66, 22, 148  # of a histogram: room for the counts at the left, ends of their axis


@dataclass(frozen=True)
class SliceDrawing:
    """One slice in mm from its upper left corner, with the outline of each label value that it holds."""

    title: str
    width_mm: float
    height_mm: float
    letter_mm: float
    """Size of the letters at the edges."""
    edges: str
    bar_mm: float
    png: str
    """The image as a data URL."""
    outlines: tuple[tuple[str, str], ...]
    """Colour and SVG path."""
    unlabelled: str = ""
    """SVG path around what nobody has labelled."""


@dataclass(frozen=True)
class HistogramDrawing:
    """An area, and the places and numbers of the ticks of both axes."""

    panel: HistogramPanel
    path: str
    value_ticks: tuple[tuple[float, float], ...]
    """(x, value)"""
    count_ticks: tuple[tuple[float, int], ...]
    """(y, count)"""
    left: float = _COUNTS
    right: float = _WIDTH - _MARGIN
    top: float = _TOP
    bottom: float = _BOTTOM


@dataclass(frozen=True)
class Dot:
    """One case in a strip plot."""

    x: float
    y: float
    title: str
    is_outlier: bool


@dataclass(frozen=True)
class StripDrawing:
    """One dot per case; `left`, `middle` and `right` are the places of the quartiles."""

    name: str
    left: float
    middle: float
    right: float
    minimum: float
    median: float
    maximum: float
    is_logarithmic: bool
    dots: tuple[Dot, ...]


def slice_drawing(view: MiddleSlice, most_pixels: int) -> SliceDrawing:
    """Lay out one slice; the picture inside has at most `most_pixels` on its longer side."""
    height, width = view.size_mm
    regions = {number: to_display(view.labels == number) for number in range(1, len(view.values) + 1)}
    return SliceDrawing(
        title=f"{view.axis} slice {view.slice_index}",
        width_mm=width,
        height_mm=height,
        letter_mm=min(0.055 * max(height, width), 0.14 * min(height, width)),
        edges=EDGES[view.axis],
        bar_mm=scale_bar_mm(width),
        png=_png(view, most_pixels),
        outlines=tuple(
            (LABEL_COLOURS[(number - 1) % len(LABEL_COLOURS)], outline_path(region, view.size_mm))
            for number, region in regions.items()
            if region.any()
        ),
        unlabelled="" if view.unlabelled is None else outline_path(to_display(view.unlabelled), view.size_mm),
    )


def _png(view: MiddleSlice, most_pixels: int) -> str:
    picture = Image.fromarray(np.round(255 * to_display(view.image)).astype(np.uint8))
    picture.thumbnail((most_pixels, most_pixels), Image.Resampling.BOX)
    buffer = BytesIO()
    picture.save(buffer, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def outline_path(region: Bool[np.ndarray, "h w"], size_mm: tuple[float, float]) -> str:
    """SVG path, in mm from the upper left corner, half-way between the pixel centres inside and outside."""
    lines = contour_generator(*padded_region(region, size_mm)).lines(0.5)
    return "".join("M" + "L".join(f"{px:.2f} {py:.2f}" for px, py in np.asarray(line)) + "Z" for line in lines)


def histogram_drawing(panel: HistogramPanel) -> HistogramDrawing:
    """Lay out one histogram with its axes."""
    histogram = panel.histogram
    low, high = histogram.low, histogram.high
    step = (_WIDTH - _MARGIN - _COUNTS) / len(histogram.counts)
    points = [f"M{_COUNTS} {_BOTTOM}"]
    for number, count in enumerate(histogram.counts):
        points.append(f"V{_count_place(count, panel):.1f}H{_COUNTS + (number + 1) * step:.1f}")
    value_ticks = tuple((_place(value, low, high, _COUNTS), value) for value in round_ticks(low, high))
    ticks = tuple((_count_place(count, panel), count) for count in count_ticks(panel))
    return HistogramDrawing(panel, f"{''.join(points)}V{_BOTTOM}Z", value_ticks, ticks)


def _count_place(count: int, panel: HistogramPanel) -> float:
    top = max(panel.histogram.counts) or 1
    share = count / top
    if panel.is_logarithmic:
        share = math.log(max(count, LEAST_LOG) / LEAST_LOG) / math.log(top / LEAST_LOG)
    return _BOTTOM - (_BOTTOM - _TOP) * share


def _place(value: float, low: float, high: float, left: float = _MARGIN) -> float:
    return left + (_WIDTH - _MARGIN - left) * (value - low) / (high - low)


def strip_drawing(distribution: Distribution, outlying: Sequence[str]) -> StripDrawing:
    """One dot per case of a distribution whose values differ; `outlying` are the cases that are outliers."""
    low, high = distribution.minimum, distribution.maximum
    use_log = is_logarithmic(distribution)

    def place(value: float) -> float:
        if use_log:
            return _place(math.log10(max(value, low)), math.log10(low), math.log10(high))
        return _place(value, low, high)

    dots = [
        Dot(
            x=place(value),
            y=14 + 46 * ((number * 0.618034) % 1),  # scattered evenly, the same each time
            title=f"{case_id}: {format_number(value)} {distribution.unit}".strip(),
            is_outlier=case_id in outlying,
        )
        for number, (case_id, value) in enumerate(distribution.values)
    ]
    left, middle, right = (place(value) for value in (distribution.p25, distribution.median, distribution.p75))
    median = distribution.median
    return StripDrawing(distribution.name, left, middle, right, low, median, high, use_log, tuple(dots))


def is_logarithmic(distribution: Distribution) -> bool:
    """Whether the values lie so far apart that a logarithmic axis is clearer."""
    return distribution.is_ratio and 0 < distribution.minimum < distribution.maximum / LOG_FROM
