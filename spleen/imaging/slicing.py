"""Slice stacks along an anatomical axis, and in-plane resampling with its inverse.

A slice is an array (h, w). On the RAS grid its dimensions run along
axial: h = posterior→anterior, w = left→right; coronal: h = inferior→superior, w = left→right;
sagittal: h = inferior→superior, w = posterior→anterior.
"""

import math
from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal, TypeVar

import numpy as np
from jaxtyping import Float, Integer, Shaped
from torch import Tensor
from torch.nn import functional as F

from spleen.imaging.geometry import plane_distances_mm, spacing_mm
from spleen.imaging.labels import IGNORED
from spleen.types import Affine, AxisName, SpacingMm

AXES: tuple[AxisName, ...] = ("sagittal", "coronal", "axial")


_T = TypeVar("_T")

Resize = Literal["keep_aspect", "stretch"]


InPlaneSize = int | Literal["native"]


# Array axes of a RAS volume in the order (slice, h, w).
_ORDER: dict[AxisName, tuple[int, int, int]] = {
    "sagittal": (0, 2, 1),
    "coronal": (1, 2, 0),
    "axial": (2, 1, 0),
}


def to_slices(volume: Shaped[np.ndarray, "i j k"], axis: AxisName) -> Shaped[np.ndarray, "n h w"]:
    """View a RAS volume as a stack of slices along the anatomical axis (no copy)."""
    return volume.transpose(_ORDER[axis])


def slice_spacing_mm(affine: Affine, axis: AxisName) -> SpacingMm:
    """Spacing in mm of a RAS grid in the order (between slices, h, w): the first is perpendicular to the slices."""
    n, h, w = _ORDER[axis]
    spacing = spacing_mm(affine)
    return plane_distances_mm(affine)[n], spacing[h], spacing[w]


def slice_shape(shape: tuple[int, ...], axis: AxisName) -> tuple[int, int, int]:
    """Number of slices, and their height and width in voxels, for a RAS volume of shape (i, j, k)."""
    return in_slice_order((shape[0], shape[1], shape[2]), axis)


def in_slice_order(along: tuple[_T, _T, _T], axis: AxisName) -> tuple[_T, _T, _T]:
    """What belongs to the array axes i, j, k of a RAS volume, in the order (slice, h, w)."""
    n, h, w = _ORDER[axis]
    return along[n], along[h], along[w]


@dataclass(frozen=True)
class InPlaneGrid:
    """How the planes of one case become network input: native (H, W) → resampled (h, w) → padded, in pixels."""

    native: tuple[int, int]
    resampled: tuple[int, int]
    padded: tuple[int, int]


def plan_in_plane(
    native: tuple[int, int],
    spacing: tuple[float, float],
    img_size: InPlaneSize,
    resize: Resize,
    size_multiple: int,
) -> InPlaneGrid:
    """Choose the network's grid for planes of `native` pixels with a pixel spacing of `spacing` mm.

    `img_size` native: the planes keep their native pixels, whatever `resize` is.
    keep_aspect: the longest physical side gets `img_size` pixels, and pixels are square in mm.
    stretch: both sides get `img_size` pixels. Each side is then padded to the next multiple of `size_multiple`.
    """
    if img_size == "native":
        resampled = native
    elif resize == "stretch":
        resampled = (img_size, img_size)
    else:
        height_mm, width_mm = native[0] * spacing[0], native[1] * spacing[1]
        pixel_mm = max(height_mm, width_mm) / img_size
        resampled = (max(1, round(height_mm / pixel_mm)), max(1, round(width_mm / pixel_mm)))
    rows, columns = (math.ceil(size / size_multiple) * size_multiple for size in resampled)
    return InPlaneGrid(native, resampled, (rows, columns))


def resample_images(slices: Float[Tensor, "n H W"], grid: InPlaneGrid, fill: float) -> Float[Tensor, "n h w"]:
    """Resample intensities to the network's grid (bilinear, anti-aliased when shrinking) and pad with `fill`."""
    return _pad(_interpolate(slices[:, None], grid.resampled)[:, 0], grid, fill)


def resample_labels(slices: Integer[Tensor, "n H W"], grid: InPlaneGrid, n_classes: int) -> Integer[Tensor, "n h w"]:
    """Resample class indices: one-hot coverage is resampled and the largest wins, which avoids staircase edges.

    A pixel is `IGNORED` where its nearest source is; elsewhere only the known sources decide.
    """
    if grid.native == grid.resampled:
        return _pad(slices, grid, 0)
    ignored = slices == IGNORED
    if not ignored.any():
        return _pad(_most_covered(F.one_hot(slices.long(), n_classes), grid).to(slices.dtype), grid, 0)
    one_hot = F.one_hot(slices.masked_fill(ignored, 0).long(), n_classes) * ~ignored[..., None]
    nearest = F.interpolate(ignored[:, None].float(), grid.resampled, mode="nearest-exact")[:, 0] > 0
    return _pad(_most_covered(one_hot, grid).to(slices.dtype).masked_fill(nearest, IGNORED), grid, 0)


def _most_covered(one_hot: Integer[Tensor, "n H W c"], grid: InPlaneGrid) -> Integer[Tensor, "n h w"]:
    return _interpolate(one_hot.movedim(-1, 1).float(), grid.resampled).argmax(1)


def restore_planes(planes: Float[Tensor, "n c h w"], grid: InPlaneGrid) -> Float[Tensor, "n c H W"]:
    """Resample probabilities from the padded network grid back to the native planes."""
    height, width = grid.resampled
    return _interpolate(planes[:, :, :height, :width], grid.native)


def context_indices(index: Integer[np.ndarray, " b"], n_slices: int, context_slices: int) -> Integer[np.ndarray, "b c"]:
    """Indices of each slice and its neighbours, `context_slices` per side; the first and last slice are repeated."""
    offsets = np.arange(-context_slices, context_slices + 1)
    return np.clip(index[:, None] + offsets[None, :], 0, n_slices - 1)


def _interpolate(planes: Float[Tensor, "n c h w"], size: tuple[int, int]) -> Float[Tensor, "n c H W"]:
    if tuple(planes.shape[2:]) == size:
        return planes
    shrinks = size[0] < planes.shape[2] or size[1] < planes.shape[3]
    return F.interpolate(planes, size, mode="bilinear", align_corners=False, antialias=shrinks)


def _pad(planes: Shaped[Tensor, "n h w"], grid: InPlaneGrid, fill: float) -> Shaped[Tensor, "n H W"]:
    bottom, right = (full - used for full, used in zip(grid.padded, grid.resampled, strict=True))
    return F.pad(planes, (0, right, 0, bottom), value=fill)


# For each slicing axis: the anatomical directions of a slice's height (h) and width (w).
IN_PLANE_DIRECTIONS: dict[str, tuple[str, str]] = {
    "axial": ("anterior_posterior", "left_right"),
    "coronal": ("superior_inferior", "left_right"),
    "sagittal": ("superior_inferior", "anterior_posterior"),
}


THROUGH_PLANE_DIRECTION: dict[str, str] = {
    "axial": "superior_inferior",
    "coronal": "anterior_posterior",
    "sagittal": "left_right",
}


FLIP_DIRECTIONS = ("left_right", "anterior_posterior", "superior_inferior")


def flips_in_plane(axis: AxisName, flips: Collection[str]) -> list[str]:
    """Those of `flips` that mirror slices of this axis."""
    return [direction for direction in IN_PLANE_DIRECTIONS[axis] if direction in flips]
