"""What every figure shares: palette, resolution, edge letters and scale bar of a slice, and how it becomes a file.

Only matplotlib's object interface is used, so nothing here touches pyplot's global state or needs a display.
"""

import math
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float64, Shaped
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.patheffects import withStroke
from matplotlib.text import Text
from matplotlib.typing import LineStyleType

from spleen.system.files import temporary_sibling
from spleen.system.terminal import printable
from spleen.types import AxisName

DPI = 150

# Okabe and Ito's palette, distinct for every common form of colour blindness (https://jfly.uni-koeln.de/color/).
OKABE_ITO = {
    "orange": "#E69F00",
    "sky blue": "#56B4E9",
    "bluish green": "#009E73",
    "yellow": "#F0E442",
    "blue": "#0072B2",
    "vermillion": "#D55E00",
    "reddish purple": "#CC79A7",
}
LABEL_COLOURS = tuple(
    OKABE_ITO[name] for name in ("orange", "sky blue", "bluish green", "yellow", "reddish purple", "vermillion")
)
"""For the outlines of label values: those that stand out on a grey image."""
DASHES: LineStyleType = (0.0, (2.6, 1.6))
GREY = "#666666"
VEIL_COLOUR, VEIL_OPACITY, HATCH_COLOUR = "#8a8f98", 0.35, "#d9dce1"
"""Of pixels that nobody has labelled; the pages have the same in page.css, viewer.js and drawings.html.jinja."""
_HATCH = "////"

EDGES: dict[AxisName, str] = {"axial": "RLAP", "coronal": "RLSI", "sagittal": "APSI"}
"""What lies at the left, right, top and bottom edge of a picture in radiological orientation."""

HALO = withStroke(linewidth=2.5, foreground="black")  # keeps white letters legible on white bone


def to_display(plane: Shaped[np.ndarray, "h w"]) -> Shaped[np.ndarray, "h w"]:
    """Turn rising RAS axes to the radiological picture: the patient's right on the left, anterior or superior up."""
    return np.ascontiguousarray(plane[::-1, ::-1])


def padded_region(
    region: Bool[np.ndarray, "h w"], size_mm: tuple[float, float]
) -> tuple[Float64[np.ndarray, " x"], Float64[np.ndarray, " y"], Float64[np.ndarray, "y x"]]:
    """Positions x and y in mm and values of a region, for a contour at 0.5 half-way between inside and outside.

    One pixel of background all around closes the outlines that touch the border.
    """
    y, x = ((np.arange(n + 2) - 0.5) * size / n for n, size in zip(region.shape, size_mm, strict=True))
    return x, y, np.pad(region, 1).astype(np.float64)


def draw_veil(axes: Axes, region: Bool[np.ndarray, "h w"], size_mm: tuple[float, float]) -> None:
    """Hatch the pixels that nobody has labelled: the plain image would be background; axes in mm downwards."""
    if not region.any():
        return  # Matplotlib warns about a contour that does not exist.
    place = *padded_region(region, size_mm), [0.5, 1.5]
    axes.contourf(*place, colors=[VEIL_COLOUR], alpha=VEIL_OPACITY)
    hatched = axes.contourf(*place, colors="none", hatches=[_HATCH])
    hatched.set_edgecolor(HATCH_COLOUR)
    hatched.set_linewidth(0)


def veil_handle() -> Patch:
    """What a legend shows of the pixels that nobody has labelled."""
    return Patch(facecolor=VEIL_COLOUR, edgecolor=HATCH_COLOUR, hatch=_HATCH, label="not labelled")


def scale_bar_mm(width_mm: float) -> float:
    """A length of 1, 2 or 5 times a power of ten, at most a quarter of the width."""
    power: float = 10.0 ** math.floor(math.log10(width_mm / 4))
    return next(step * power for step in (5, 2, 1) if step * power <= width_mm / 4)


def draw_scale_bar(axes: Axes, width_mm: float, panel_inches: float) -> None:
    """Draw the scale bar in the lower left corner of axes that count in mm downwards."""
    length_mm = scale_bar_mm(width_mm)
    mm_per_inch = width_mm / panel_inches
    x, y = axes.get_xlim()[0] + 0.1 * mm_per_inch, axes.get_ylim()[0] - 0.1 * mm_per_inch
    bar = axes.plot([x, x + length_mm], [y, y], color="white", linewidth=2.2, solid_capstyle="butt")[0]
    text = axes.text(x, y - 0.05 * mm_per_inch, f"{length_mm:g} mm", color="white", fontsize=8)
    for artist in (bar, text):
        artist.set_path_effects([HALO])


def label_edges(axes: Axes, axis: AxisName) -> None:
    """Write the letters of the left, right, top and bottom edge of a slice."""
    places = ((0.015, 0.5), (0.985, 0.5), (0.5, 0.98), (0.5, 0.02))
    alignments = (("left", "center"), ("right", "center"), ("center", "top"), ("center", "bottom"))
    for letter, place, (horizontal, vertical) in zip(EDGES[axis], places, alignments, strict=True):
        text = axes.text(*place, letter, ha=horizontal, va=vertical, transform=axes.transAxes)
        text.set(color="white", fontsize=9, path_effects=[HALO])


def save_figure(figure: Figure, path: Path) -> None:
    """Write beside the final name, then rename, so that nobody ever reads half a picture."""
    _make_names_drawable(figure)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_sibling(path)
    try:
        figure.savefig(temporary, dpi=DPI)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _make_names_drawable(figure: Figure) -> None:
    """Names are no formulas between two $, and hold no control characters; the numbers at ticks stay formulas."""
    axes = [axis for each in figure.axes for axis in (each.xaxis, each.yaxis)]
    numbers = {id(label) for axis in axes for label in (*axis.get_ticklabels(which="both"), axis.get_offset_text())}
    for text in figure.findobj(Text):
        assert isinstance(text, Text)
        if id(text) not in numbers:
            text.set_parse_math(False)
            text.set_text(printable(text.get_text()))
