"""Pictures of slices with the outlines of reference and prediction.

A picture follows the radiological convention: the patient's right is on its left, anterior or superior is up.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, UInt8
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke
from matplotlib.typing import LineStyleType
from scipy.ndimage import map_coordinates

from spleen.reporting.figures import (
    DASHES,
    DPI,
    HALO,
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
from spleen.types import AxisName

_SINGLE = (OKABE_ITO["sky blue"], OKABE_ITO["orange"])
"""Reference and prediction of the only class. With several, a hue belongs to a class and the dashes tell."""
_TINT = 0.4  # saturation of the prediction's colour beside that of the reference

# Layout of the overlays, in inches.
_PANEL_WIDTH, _GAP, _TITLE_HEIGHT, _LEGEND_LINE = 3.6, 0.12, 0.5, 0.2
_TALLEST_PANEL = 1.25  # Height of a row at most, in panel widths.
_ZOOM_ASPECT = 0.8  # Height of the enlarged window in its widths, where the plane has room for it.
_ZOOM_MARGIN = 0.15  # Room around the organ on each side, in its longer extents.
_ZOOM_SMALLEST_PIXELS = 16  # Width of the enlarged window at least.
_LEAST_ZOOM = 1.5  # An enlargement by less would only repeat the plane.


@dataclass(frozen=True)
class SliceView:
    """One slice with its reference and prediction, rows and columns rising along the RAS axes.

    Axial: rows go from posterior to anterior, columns from left to right. Coronal: inferior to superior, left
    to right. Sagittal: inferior to superior, posterior to anterior. ``image`` holds display intensities from
    0 to 1 and covers the same plane as the label maps, on a grid that may be coarser. ``size_mm`` is the
    (height, width) of the plane. ``dice`` is NaN where both label maps are empty. ``unlabelled`` are the pixels
    of unknown class, which are background in both label maps; None if there are none.
    """

    case_id: str
    axis: AxisName
    slice_index: int
    image: Float[np.ndarray, "h w"]
    prediction: UInt8[np.ndarray, "H W"]
    reference: UInt8[np.ndarray, "H W"]
    size_mm: tuple[float, float]
    dice: float
    unlabelled: Bool[np.ndarray, "H W"] | None = None


@dataclass(frozen=True)
class _Window:
    """A part of the picture, in mm from its upper left corner."""

    left: float
    top: float
    width: float
    height: float


def display_overlay(
    view: SliceView, least_pixels: int = 1
) -> tuple[UInt8[np.ndarray, "H W"], UInt8[np.ndarray, "H W"], UInt8[np.ndarray, "H W"]]:
    """Image (0 to 255), prediction and reference in radiological orientation, on square pixels.

    A pixel is as long as the shorter side of the label maps' pixels, or shorter where the longer side of the picture
    would have less than ``least_pixels``. The image is interpolated linearly, the label maps by nearest neighbour.
    """
    finest_mm = min(size / count for size, count in zip(view.size_mm, view.reference.shape, strict=True))
    pixel_mm = min(finest_mm, max(view.size_mm) / least_pixels)
    shape = (max(1, round(view.size_mm[0] / pixel_mm)), max(1, round(view.size_mm[1] / pixel_mm)))
    image = view.image.astype(np.float32)
    centres = np.meshgrid(*(_source_centres(n, m) for n, m in zip(shape, image.shape, strict=True)), indexing="ij")
    shown = np.clip(map_coordinates(image, centres, order=1, mode="nearest"), 0.0, 1.0)
    nearest = np.ix_(
        *(np.floor(_source_centres(n, m) + 0.5).astype(int) for n, m in zip(shape, view.reference.shape, strict=True))
    )
    return (
        to_display(np.round(255.0 * shown).astype(np.uint8)),
        to_display(view.prediction[nearest]),
        to_display(view.reference[nearest]),
    )


def _source_centres(count: int, source_count: int) -> Float[np.ndarray, " n"]:
    """Positions, in source pixels, of the centres of ``count`` pixels over the same length."""
    return (np.arange(count) + 0.5) * source_count / count - 0.5


def draw_overlays(views: list[tuple[str, SliceView]], path: Path, class_names: tuple[str, ...]) -> None:
    """Draw the views side by side as `overlay_figure` does.

    The file appears whole or not at all; its suffix decides the format (.png, .pdf, .svg).
    """
    save_figure(overlay_figure(views, class_names), path)


def overlay_figure(views: list[tuple[str, SliceView]], class_names: tuple[str, ...]) -> Figure:
    """The views side by side, each as its full plane, and below it the organ where that is much smaller; true in mm.

    The text of a pair names its view ("best"). ``class_names`` are those of labels 1, 2, …, no background.
    Raises ValueError without a view, or for a label that has no name.
    """
    if not views:
        raise ValueError("draw_overlays needs at least one view")
    handles: list[Artist] = [*_legend_handles([view for _, view in views], class_names)]
    windows = [_zoom_window(view) for _, view in views]
    full_height = _row_height([view.size_mm for _, view in views])
    zoom_height = _row_height([(window.height, window.width) for window in windows if window])
    width = len(views) * (_PANEL_WIDTH + _GAP) + _GAP
    if any(view.unlabelled is not None for _, view in views):
        handles.append(veil_handle())
    columns = _legend_columns(handles, width)
    if len(handles) > columns:  # then reference and prediction of a class stay one below the other
        handles += [Line2D([], [], linestyle="none", label="") for _ in range(-len(handles) % (2 * columns))]
    legend_height = _LEGEND_LINE * len(handles) / columns + 2 * _GAP
    bottom = legend_height + zoom_height + (_GAP if zoom_height else 0)
    height = bottom + full_height + _TITLE_HEIGHT
    figure = Figure(figsize=(width, height), dpi=DPI, facecolor="white")
    figure.legend(handles=handles, loc="lower center", ncols=columns, fontsize=9, frameon=False, handlelength=2.8)
    for column, ((name, view), window) in enumerate(zip(views, windows, strict=True)):
        left = _GAP + column * (_PANEL_WIDTH + _GAP)
        middle, top = (left + _PANEL_WIDTH / 2) / width, 1 - _TITLE_HEIGHT / 2 / height
        figure.text(middle, top, _title(name, view), ha="center", va="center", fontsize=9.5, linespacing=1.3)
        box = (left / width, bottom / height, _PANEL_WIDTH / width, full_height / height)
        _draw_full(figure.add_axes(box), view, window, len(class_names))
        if window:
            box = (left / width, legend_height / height, _PANEL_WIDTH / width, zoom_height / height)
            _draw_enlarged(figure.add_axes(box), view, window, len(class_names))
    return figure


def _row_height(sizes: list[tuple[float, float]]) -> float:
    """Height in inches of a row of panels that show areas of these (height, width); 0 without any."""
    ratio = max((height / width for height, width in sizes), default=0.0)
    return _PANEL_WIDTH * min(_TALLEST_PANEL, ratio)


def _title(name: str, view: SliceView) -> str:
    case_id = view.case_id if len(view.case_id) <= 36 else f"{view.case_id[:17]}…{view.case_id[-18:]}"
    dice = "n/a" if math.isnan(view.dice) else f"{view.dice:.4f}"
    return f"{name}: {case_id}\n{view.axis} slice {view.slice_index}, Dice {dice}"


def _looks(label: int, n_classes: int) -> tuple[tuple[str, LineStyleType], tuple[str, LineStyleType]]:
    """Colour and line style of reference and prediction."""
    colour = LABEL_COLOURS[(label - 1) % len(LABEL_COLOURS)]
    reference, prediction = _SINGLE if n_classes == 1 else (colour, _tint(colour))
    return (reference, "-"), (prediction, DASHES)


def _tint(colour: str) -> str:
    """The same hue, lighter: dashes of the very same colour would vanish on the line of the reference."""
    red, green, blue = (1 - _TINT * (1 - part) for part in to_rgb(colour))
    return to_hex((red, green, blue))


def _legend_handles(views: list[SliceView], class_names: tuple[str, ...]) -> list[Line2D]:
    labels = np.unique(np.concatenate([np.union1d(view.reference, view.prediction) for view in views]))
    present = [int(label) for label in labels if label > 0] or [1]
    if present[-1] > len(class_names):
        raise ValueError(f"label {present[-1]} has no name: {len(class_names)} class names were given")
    return [
        Line2D([], [], color=colour, linestyle=style, linewidth=2.2, label=f"{class_names[label - 1]}, {what}")
        for label in present
        for what, (colour, style) in zip(("reference", "prediction"), _looks(label, len(class_names)), strict=True)
    ]


def _legend_columns(handles: Sequence[Artist], width: float) -> int:
    """One row where it fits the width in inches, else columns of whole pairs, and no more than fill their rows."""
    entry = 0.75 + 0.07 * max(len(str(handle.get_label())) for handle in handles)
    fitting = max(1, int(width / entry))
    if len(handles) <= fitting:
        return len(handles)
    n_pairs = math.ceil(len(handles) / 2)
    return math.ceil(n_pairs / math.ceil(n_pairs / fitting))


def _draw_full(axes: Axes, view: SliceView, window: _Window | None, n_classes: int) -> None:
    _draw_plane(axes, view, n_classes, line_width=1.1)
    height_mm, width_mm = view.size_mm
    axes.set(xlim=(0.0, width_mm), ylim=(height_mm, 0.0), anchor="S")
    if window:
        corner = (window.left, window.top)
        frame = Rectangle(corner, window.width, window.height, fill=False, ec="white", lw=0.8, alpha=0.8)
        axes.add_patch(frame)
    label_edges(axes, view.axis)
    draw_scale_bar(axes, width_mm, _PANEL_WIDTH)
    if not (view.reference.any() or view.prediction.any()):
        words = axes.text(0.5, 0.86, "both masks are empty", ha="center", fontsize=9, transform=axes.transAxes)
        words.set(color="white", path_effects=[HALO])


def _draw_enlarged(axes: Axes, view: SliceView, window: _Window, n_classes: int) -> None:
    _draw_plane(axes, view, n_classes, line_width=1.8)
    axes.set_xlim(window.left, window.left + window.width)
    axes.set_ylim(window.top + window.height, window.top)
    axes.set_anchor("N")
    draw_scale_bar(axes, window.width, _PANEL_WIDTH)


def _draw_plane(axes: Axes, view: SliceView, n_classes: int, line_width: float) -> None:
    """Image and outlines in millimetres from the upper left corner of the picture, downwards."""
    height_mm, width_mm = view.size_mm
    image = np.clip(to_display(view.image).astype(np.float32), 0.0, 1.0)
    extent = (0.0, width_mm, height_mm, 0.0)
    axes.imshow(image, "gray", vmin=0.0, vmax=1.0, extent=extent, interpolation="bicubic", aspect="equal")
    axes.set(xticks=[], yticks=[], facecolor="black")
    axes.spines[:].set_visible(False)
    if view.unlabelled is not None:
        draw_veil(axes, to_display(view.unlabelled), view.size_mm)
    for label in range(1, n_classes + 1):
        for labels, look in zip((view.reference, view.prediction), _looks(label, n_classes), strict=True):
            _outline(axes, to_display(labels == label), view.size_mm, *look, line_width)


def _outline(
    axes: Axes,
    region: Bool[np.ndarray, "h w"],
    size_mm: tuple[float, float],
    colour: str,
    style: LineStyleType,
    line_width: float,
) -> None:
    """Draw the line half-way between the pixel centres inside and outside of the region."""
    if not region.any():
        return  # Matplotlib warns about a contour that does not exist.
    outline = axes.contour(
        *padded_region(region, size_mm), [0.5], colors=[colour], linestyles=[style], linewidths=line_width
    )
    outline.set_path_effects([withStroke(linewidth=line_width + 0.9, foreground="black", alpha=0.7)])


def _zoom_window(view: SliceView) -> _Window | None:
    """The part of the picture to enlarge; None without an organ, and where it would come out hardly larger."""
    window = _organ_window(view)
    if window is None:
        return None
    extents = (view.size_mm[1], view.size_mm[0]), (window.width, window.height)
    full, enlarged = (max(width, height / _TALLEST_PANEL) for width, height in extents)  # that fill a panel
    return window if full / enlarged >= _LEAST_ZOOM else None


def _organ_window(view: SliceView) -> _Window | None:
    """The part of the picture to enlarge, within the plane; None where there is no organ."""
    organ = to_display((view.reference > 0) | (view.prediction > 0))
    if not organ.any():
        return None
    pixel_mm = [size / count for size, count in zip(view.size_mm, organ.shape, strict=True)]
    rows, columns = np.flatnonzero(organ.any(axis=1)), np.flatnonzero(organ.any(axis=0))
    top, bottom = rows[0] * pixel_mm[0], (rows[-1] + 1) * pixel_mm[0]
    left, right = columns[0] * pixel_mm[1], (columns[-1] + 1) * pixel_mm[1]
    margin = _ZOOM_MARGIN * max(bottom - top, right - left)
    height = min(bottom - top + 2 * margin, view.size_mm[0])
    width = max(right - left + 2 * margin, height / _ZOOM_ASPECT, _ZOOM_SMALLEST_PIXELS * min(pixel_mm))
    width = min(width, view.size_mm[1])
    height = min(max(height, width * _ZOOM_ASPECT), view.size_mm[0])
    return _Window(
        left=float(np.clip((left + right - width) / 2, 0.0, view.size_mm[1] - width)),
        top=float(np.clip((top + bottom - height) / 2, 0.0, view.size_mm[0] - height)),
        width=float(width),
        height=float(height),
    )
