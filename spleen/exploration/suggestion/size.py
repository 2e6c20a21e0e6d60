"""One suggested setting."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from spleen.exploration.facts.case import CaseFacts
from spleen.exploration.facts.header import GeometryFacts, PlaneFacts
from spleen.exploration.facts.label import LabelFacts, organ_diameter_mm
from spleen.imaging.slicing import AXES, slice_shape
from spleen.types import AxisName


@dataclass(frozen=True)
class Setting:
    """One setting and why it was chosen. An empty override leaves the default."""

    override: str
    reason: str


SAME_PIXEL = 1.05
"""Pixels whose ratio is below are equally fine."""


_SIZE_STEP = 16  # slices are padded to the network's multiple of 16


_SMALLEST, _AFFORDABLE = 16, 256  # pixels


_SMALL_SLICE = 96  # pixels


_ENOUGH_ORGAN_PIXELS = 24


def choose_size(plane: PlaneFacts, geometry: GeometryFacts, labels: LabelFacts | None) -> Setting:
    """As many pixels as the plane has, or fewer where they are many and the organ stays large enough."""
    _, *counts = slice_shape(tuple(each.n_slices for each in geometry.planes), plane.axis)
    longest_mm = max(count * pixel for count, pixel in zip(counts, plane.pixel_mm, strict=True))
    # A hair more, because 407.00006 mm ÷ 0.794922 mm may come out as 511.99999.
    native = _native_size(math.floor(longest_mm / min(plane.pixel_mm) + 1e-3))
    diameter_mm = 0.0
    if labels is not None:
        diameter_mm = organ_diameter_mm(labels, AXES.index(plane.axis), math.prod(plane.pixel_mm))
    enough = _AFFORDABLE
    if diameter_mm:
        enough = max(enough, _SIZE_STEP * math.ceil(_ENOUGH_ORGAN_PIXELS * longest_mm / diameter_mm / _SIZE_STEP))
    size = min(native, enough)
    reason = f"a pixel of {longest_mm / size:.3g} mm"
    if size < native:
        cost = (native / size) ** 2
        reason += f"; the native {min(plane.pixel_mm):.3g} mm would take {native}, at {cost:.2g} times the cost"
    elif longest_mm / size < 0.999 * min(plane.pixel_mm):
        reason += f", finer than the native {min(plane.pixel_mm):.3g} mm, but fewer than {size} pixels are too few"
    else:
        reason += f", not finer than the native {min(plane.pixel_mm):.3g} mm"
    if diameter_mm:
        reason += f"; on its median slice the organ is {diameter_mm * size / longest_mm:.0f} pixels across"
    return Setting(f"img_size={size}", reason)


def native_grid(axis: AxisName, cases: Sequence[CaseFacts]) -> Setting | None:
    """The voxels themselves, where slices are small and a pixel is as large in every case; None elsewhere."""
    headers = [case.image_header for case in cases if case.image_header is not None]
    grids = [header.geometry.planes for header in headers if header.geometry is not None]
    planes = [grid[AXES.index(axis)] for grid in grids]
    sides = [side for grid in grids for side in slice_shape(tuple(each.n_slices for each in grid), axis)[1:]]
    pixels_mm = [length for plane in planes for length in plane.pixel_mm]
    if max(sides) > _SMALL_SLICE or max(pixels_mm) >= SAME_PIXEL * min(pixels_mm):
        return None
    pixel = f"{pixel_in_words(planes[0])} mm in every case"
    return Setting("img_size=native", f"slices of {min(sides)} to {max(sides)} pixels a side, {pixel}: only padded")


def _native_size(pixels: int) -> int:
    """A multiple of 16 that is not above the plane's own pixels, or their very number where that would lose a tenth."""
    below = pixels // _SIZE_STEP * _SIZE_STEP
    return max(_SMALLEST, below if below >= 0.9 * pixels else pixels)


def pixel_in_words(plane: PlaneFacts) -> str:
    """Height × width of a pixel in mm, without the unit."""
    return " × ".join(f"{length:.3g}" for length in plane.pixel_mm)
