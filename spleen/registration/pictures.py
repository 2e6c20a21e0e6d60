"""Pictures of an alignment, and of a slice along any plane."""

from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, Float32, Num
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.ndimage import zoom

from spleen.data.modality import guess_modality
from spleen.imaging.intensity import CT_PRESETS, DisplayWindow
from spleen.imaging.nifti import Volume
from spleen.imaging.slicing import AXES
from spleen.registration.grids import Grid
from spleen.reporting.figures import DPI, HALO, draw_scale_bar, label_edges, save_figure, to_display
from spleen.types import AxisName

Plane = Num[np.ndarray, "h w"]

_PANEL_INCHES, _GAP, _HEADER, _FOOTER = 4.6, 0.12, 0.34, 0.34
_TALLEST_PANEL = 1.0  # in panel widths
_LARGEST_INCHES = 8.0
_TILES = 8
"""Along the longer side of a panel."""
_TINT = np.array([1.0, 0.8, 0.5])
"""The colour of white in the moving image: its tiles are told from the fixed image's grey ones."""
_PICTURE_PIXELS = 640
_PERCENTILES = (0.5, 99.5)
_VOXELS_LOOKED_AT = 1_000_000


def default_window(array: Num[np.ndarray, "i j k"]) -> DisplayWindow:
    """That of the abdomen for a CT; for another image, between its 0.5th and 99.5th percentile."""
    sample = np.sort(array.ravel()[:: max(1, array.size // _VOXELS_LOOKED_AT)])
    if guess_modality(sample)[0] == "CT":
        return CT_PRESETS["abdomen"]
    low, high = (float(each) for each in np.percentile(sample, _PERCENTILES))
    if low == high:
        low, high = float(array.min()), float(array.max())
    return DisplayWindow((low + high) / 2, max(high - low, 1e-6))


def draw_checkerboard(
    path: Path, fixed: Volume, before: Num[np.ndarray, "i j k"], after: Num[np.ndarray, "i j k"], names: tuple[str, str]
) -> None:
    """Tiles of the fixed image (grey) and the moving one (tinted) in three planes, before and after the alignment.

    `before` and `after` are the moving image on the fixed one's grid. A border that goes on from tile to tile is where
    it should be.
    """
    extents = np.array(fixed.array.shape) * fixed.spacing_mm
    in_planes: dict[AxisName, tuple[float, float]] = {
        "axial": (extents[1], extents[0]),
        "coronal": (extents[2], extents[0]),
        "sagittal": (extents[2], extents[1]),
    }
    heights = [min(_TALLEST_PANEL, height / width) * _PANEL_INCHES for height, width in in_planes.values()]
    size = (2 * (_PANEL_INCHES + _GAP) + _GAP, _HEADER + sum(heights) + len(heights) * _GAP + _FOOTER)
    figure = Figure(figsize=size, dpi=DPI, facecolor="white")
    windows = default_window(fixed.array), default_window(after)
    for column, (title, moved) in enumerate((("before", before), ("after", after))):
        left, top = _GAP + column * (_PANEL_INCHES + _GAP), size[1] - _HEADER
        middle = (left + _PANEL_INCHES / 2) / size[0]
        figure.text(middle, 1 - _HEADER / 2 / size[1], title, ha="center", va="center", fontsize=11)
        for (plane, size_mm), height in zip(in_planes.items(), heights, strict=True):
            box = (left / size[0], (top - height) / size[1], _PANEL_INCHES / size[0], height / size[1])
            top -= height + _GAP
            tiles = _tiled(_middle_slice(fixed.array, plane), _middle_slice(moved, plane), windows, size_mm)
            axes = figure.add_axes(box)
            _draw(axes, tiles, size_mm)
            label_edges(axes, plane)
    legend = f"grey: {_short(names[0])} (fixed)     orange: {_short(names[1])} (moving)"
    figure.text(0.5, _FOOTER / 2.2 / size[1], legend, ha="center", va="center", fontsize=9.5)
    save_figure(figure, path)


def draw_slice(
    path: Path,
    plane: Plane,
    grid: Grid,
    window: DisplayWindow,
    letters: tuple[str, str, str, str],
    title: str,
) -> None:
    """One slice as the first two array axes of `grid` hold it, true in mm, with edges, scale bar and a title."""
    width_mm, height_mm = (count * mm for count, mm in zip(grid.shape[:2], grid.spacing_mm[:2], strict=True))
    inches = _LARGEST_INCHES / max(width_mm, height_mm)
    width, height = max(width_mm * inches, 2.5), max(height_mm * inches, 1.0)
    size = (width + 2 * _GAP, height + _GAP + _HEADER)
    figure = Figure(figsize=size, dpi=DPI, facecolor="white")
    axes = figure.add_axes((_GAP / size[0], _GAP / size[1], width / size[0], height / size[1]))
    axes.imshow(
        _shown(to_display(plane.T), window), "gray", vmin=0, vmax=1, extent=(0, width_mm, height_mm, 0), aspect="equal"
    )
    _finish(axes, (height_mm, width_mm), width)
    places = ((0.012, 0.5), (0.988, 0.5), (0.5, 0.985), (0.5, 0.015))
    for letter, place, (ha, va) in zip(letters, places, _EDGE_ALIGNMENTS, strict=True):
        text = axes.text(*place, letter, ha=ha, va=va, transform=axes.transAxes)
        text.set(color="white", fontsize=10, path_effects=[HALO])
    figure.text(0.5, 1 - _HEADER / 2 / size[1], title, ha="center", va="center", fontsize=9.5)
    save_figure(figure, path)


_EDGE_ALIGNMENTS = (("left", "center"), ("right", "center"), ("center", "top"), ("center", "bottom"))


def _middle_slice(array: Num[np.ndarray, "i j k"], plane: AxisName) -> Plane:
    """The middle slice of a RAS array, rows and columns rising along its axes."""
    axis = AXES.index(plane)
    middle: Plane = np.take(array, array.shape[axis] // 2, axis=axis).T
    return middle


def _tiled(
    fixed: Plane, moved: Plane, windows: tuple[DisplayWindow, DisplayWindow], size_mm: tuple[float, float]
) -> Float[np.ndarray, "H W 3"]:
    fixed, moved = (_enlarged(plane, size_mm) for plane in (fixed, moved))
    grey = _shown(fixed, windows[0])[..., None] * np.ones(3)
    tinted = _shown(moved, windows[1])[..., None] * _TINT
    tiles = np.where(_checkers(fixed.shape, size_mm)[..., None], tinted, grey)
    return np.ascontiguousarray(tiles[::-1, ::-1])  # radiological, as to_display does it


def _enlarged(plane: Plane, size_mm: tuple[float, float]) -> Float32[np.ndarray, "H W"]:
    """On fine square pixels: tiles are as sharp as the picture, whatever the voxels are."""
    pixel_mm = size_mm[1] / _PICTURE_PIXELS
    factors = [max(1, round(mm / pixel_mm)) / count for mm, count in zip(size_mm, plane.shape, strict=True)]
    enlarged: np.ndarray = zoom(plane.astype(np.float32), factors, order=1, mode="nearest", grid_mode=True)
    return enlarged


def _checkers(shape: tuple[int, ...], size_mm: tuple[float, float]) -> Bool[np.ndarray, "h w"]:
    tile_mm = max(size_mm) / _TILES
    rows, columns = (
        ((np.arange(count) + 0.5) * mm / count // tile_mm).astype(int) for count, mm in zip(shape, size_mm, strict=True)
    )
    board: np.ndarray = (rows[:, None] + columns) % 2 == 1
    return board


def _shown(plane: Plane, window: DisplayWindow) -> Float[np.ndarray, "h w"]:
    low, high = window.ends
    return np.clip((plane.astype(np.float64) - low) / (high - low), 0.0, 1.0)


def _draw(axes: Axes, picture: Float[np.ndarray, "h w 3"], size_mm: tuple[float, float]) -> None:
    height_mm, width_mm = size_mm
    axes.imshow(picture, extent=(0.0, width_mm, height_mm, 0.0), interpolation="bilinear", aspect="equal")
    _finish(axes, size_mm, _PANEL_INCHES)


def _finish(axes: Axes, size_mm: tuple[float, float], inches: float) -> None:
    axes.set(xticks=[], yticks=[], facecolor="black", anchor="S")
    axes.spines[:].set_visible(False)
    draw_scale_bar(axes, size_mm[1], inches)


def _short(name: str) -> str:
    return name if len(name) <= 40 else f"{name[:19]}…{name[-20:]}"
