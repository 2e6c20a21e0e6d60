"""Drawings of the exploration page as inline SVG: they take the page's colours and stay sharp at any size."""

import base64
import math
from collections.abc import Sequence
from html import escape
from io import BytesIO

import numpy as np
from contourpy import contour_generator
from jaxtyping import Bool
from PIL import Image

from spleen.exploration.facts.intensity import Histogram, IntensityFacts
from spleen.exploration.outliers import Distribution
from spleen.exploration.report.views import MiddleSlice, to_display
from spleen.reporting.figures import COLOURS, EDGES, scale_bar_mm
from spleen.system.text import format_number

LOG_FROM = 20  # ratio of largest to smallest value from which a logarithmic axis is clearer


_WIDTH, _HEIGHT = 360, 96  # of a distribution, in its own units


_MARGIN = 14


def slice_svg(view: MiddleSlice, most_pixels: int) -> str:
    """One slice in mm, with the outline of each label value, letters at the edges and a scale bar.

    The picture inside has at most `most_pixels` on its longer side.
    """
    height, width = view.size_mm
    letter = min(0.055 * max(height, width), 0.14 * min(height, width))
    outlines = "".join(
        f'<path d="{outline_path(to_display(view.labels == number), view.size_mm)}" fill="none" '
        f'stroke="{COLOURS[(number - 1) % len(COLOURS)]}" stroke-width="2" vector-effect="non-scaling-stroke"/>'
        for number in range(1, len(view.values) + 1)
        if (view.labels == number).any()
    )
    return (
        f'<svg viewBox="0 0 {width:.6g} {height:.6g}" role="img" aria-label="{view.axis} slice {view.slice_index}">'
        f'<image width="{width:.6g}" height="{height:.6g}" preserveAspectRatio="none" '
        f'href="{_png(view, most_pixels)}"/>{outlines}{_letters(view, letter)}{_scale_bar(view, letter)}</svg>'
    )


def _png(view: MiddleSlice, most_pixels: int) -> str:
    picture = Image.fromarray(np.round(255 * to_display(view.image)).astype(np.uint8))
    picture.thumbnail((most_pixels, most_pixels), Image.Resampling.BOX)
    buffer = BytesIO()
    picture.save(buffer, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def outline_path(region: Bool[np.ndarray, "h w"], size_mm: tuple[float, float]) -> str:
    """SVG path, in mm from the upper left corner, half-way between the pixel centres inside and outside."""
    # One pixel of background all around closes the outlines that touch the border.
    y, x = ((np.arange(n + 2) - 0.5) * size / n for n, size in zip(region.shape, size_mm, strict=True))
    lines = contour_generator(x, y, np.pad(region, 1).astype(np.float64)).lines(0.5)
    return "".join("M" + "L".join(f"{px:.2f} {py:.2f}" for px, py in np.asarray(line)) + "Z" for line in lines)


def _letters(view: MiddleSlice, size: float) -> str:
    height, width = view.size_mm
    places = (
        (0.3 * size, height / 2, "start", "central"),
        (width - 0.3 * size, height / 2, "end", "central"),
        (width / 2, 0.2 * size, "middle", "hanging"),
        (width / 2, height - 0.3 * size, "middle", "auto"),
    )
    return "".join(
        f'<text x="{x:.6g}" y="{y:.6g}" text-anchor="{anchor}" dominant-baseline="{baseline}" '
        f"{_text(size)}>{name}</text>"
        for name, (x, y, anchor, baseline) in zip(EDGES[view.axis], places, strict=True)
    )


def _text(size: float) -> str:
    return (
        f'font-size="{size:.4g}" font-family="system-ui, sans-serif" fill="#fff" stroke="#000" '
        f'stroke-width="{0.16 * size:.3g}" paint-order="stroke"'
    )


def _scale_bar(view: MiddleSlice, letter: float) -> str:
    height, width = view.size_mm
    length = scale_bar_mm(width)
    x, y = 0.4 * letter, height - 0.4 * letter
    return (
        f'<path d="M{x:.6g} {y:.6g}h{length:g}" stroke="#fff" stroke-width="{0.16 * letter:.3g}"/>'
        f'<text x="{x:.6g}" y="{y - 0.35 * letter:.6g}" {_text(0.8 * letter)}>{length:g} mm</text>'
    )


def histogram_svg(facts: IntensityFacts) -> str:
    """Histograms of body and organ, each against its own highest bin."""
    low, high = facts.body_histogram.low, facts.body_histogram.high
    bars = _bars(facts.body_histogram, "body")
    if facts.organ_histogram is not None:
        bars += _bars(facts.organ_histogram, "organ")
    ticks = "".join(
        f'<text x="{_MARGIN + (_WIDTH - 2 * _MARGIN) * (value - low) / (high - low):.1f}" y="148" '
        f'text-anchor="middle">{format_number(value)}</text>'
        for value in _round_ticks(low, high)
    )
    baseline = f'<line class="axis" x1="{_MARGIN}" x2="{_WIDTH - _MARGIN}" y1="135" y2="135"/>'
    label = "Histogram of intensities within body and organ"
    return f'<svg class="plot" viewBox="0 0 {_WIDTH} 154" role="img" aria-label="{label}">{bars}{baseline}{ticks}</svg>'


def _bars(histogram: Histogram, kind: str) -> str:
    top = max(histogram.counts) or 1
    step = (_WIDTH - 2 * _MARGIN) / len(histogram.counts)
    points = [f"M{_MARGIN} 135"]
    for number, count in enumerate(histogram.counts):
        points.append(f"V{135 - 125 * count / top:.1f}H{_MARGIN + (number + 1) * step:.1f}")
    return f'<path class="{kind}" d="{"".join(points)}V135Z"/>'


def _round_ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Round numbers within a range."""
    power = 10.0 ** math.floor(math.log10((high - low) / most))
    step = next(factor * power for factor in (1, 2, 5, 10) if (high - low) / (factor * power) <= most)
    return [number * step for number in range(math.ceil(low / step), math.floor(high / step) + 1)]


def strip_svg(distribution: Distribution, outlying: Sequence[str]) -> str:
    """One dot per case, the middle half shaded, the median as a line, cases that stand out in another colour."""
    use_log = distribution.is_ratio and 0 < distribution.minimum < distribution.maximum / LOG_FROM

    def place(value: float) -> float:
        low, high, at = distribution.minimum, distribution.maximum, value
        if use_log:
            low, high, at = math.log10(low), math.log10(high), math.log10(max(value, low))
        return _MARGIN + (_WIDTH - 2 * _MARGIN) * (at - low) / (high - low)

    left, middle, right = (place(value) for value in (distribution.p25, distribution.median, distribution.p75))
    marks = [
        f'<rect class="box" x="{left:.1f}" y="8" width="{max(right - left, 1):.1f}" height="58" rx="3"/>',
        f'<line class="median" x1="{middle:.1f}" x2="{middle:.1f}" y1="8" y2="66"/>',
    ]
    for number, (case_id, value) in enumerate(distribution.values):
        stands_out = case_id in outlying
        y = 14 + 46 * ((number * 0.618034) % 1)  # scattered evenly, the same each time
        look = 'class="out" r="4"' if stands_out else 'class="dot" r="2.6"'
        title = escape(f"{case_id}: {format_number(value)} {distribution.unit}".strip())
        marks.append(f'<circle {look} cx="{place(value):.1f}" cy="{y:.1f}"><title>{title}</title></circle>')
    return (
        f'<svg class="plot" viewBox="0 -4 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(distribution.name)}">'
        f"{''.join(marks)}{_strip_axis(distribution, middle, use_log)}</svg>"
    )


def _strip_axis(distribution: Distribution, middle: float, use_log: bool) -> str:
    ends = ((_MARGIN, distribution.minimum, "start"), (_WIDTH - _MARGIN, distribution.maximum, "end"))
    texts = [f'<text x="{x}" y="84" text-anchor="{anchor}">{format_number(value)}</text>' for x, value, anchor in ends]
    if 80 < middle < _WIDTH - 80:
        texts.append(f'<text x="{middle:.1f}" y="84" text-anchor="middle">{format_number(distribution.median)}</text>')
    if use_log:
        texts.append(f'<text x="{_WIDTH - _MARGIN}" y="6" text-anchor="end">logarithmic</text>')
    line = f'<line class="axis" x1="{_MARGIN}" x2="{_WIDTH - _MARGIN}" y1="71" y2="71"/>'
    return line + "".join(texts)
