"""From a volume to network input slices, shared by training and prediction."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float16, Shaped

from spleen.imaging.classes import ClassMap
from spleen.imaging.intensity import Intensity, IntensityMap
from spleen.imaging.slicing import (
    InPlaneGrid,
    InPlaneSize,
    Resize,
    plan_in_plane,
    resample_images,
    slice_shape,
    slice_spacing_mm,
    to_slices,
)
from spleen.types import Affine, AxisName, VolumeArray

# Limits the size of the float32 temporaries.
_PLANES_AT_ONCE = 16


@dataclass(frozen=True)
class Preprocessing:
    """How an image and its label become slices, besides what is in the files themselves."""

    axis: AxisName
    img_size: InPlaneSize
    resize: Resize
    size_multiple: int
    intensity: Intensity
    classes: ClassMap
    grid_tolerance_mm: float
    n_channels: int = 1
    ignore_value: int | None = None
    """The label value of voxels that are neither trained on nor scored; only of use where labels are read."""

    def plan(self, shape: tuple[int, ...], affine: Affine) -> InPlaneGrid:
        """The network's grid for the slices of a RAS volume of this shape and affine."""
        _, height, width = slice_shape(shape, self.axis)
        _, height_mm, width_mm = slice_spacing_mm(affine, self.axis)
        return plan_in_plane((height, width), (height_mm, width_mm), self.img_size, self.resize, self.size_multiple)


def network_planes(
    array: VolumeArray, axis: AxisName, grid: InPlaneGrid, intensity: IntensityMap
) -> Float16[np.ndarray, "n h w"]:
    """All slices of a RAS volume, normalised, resampled and padded with the volume's smallest intensity."""
    fill = float(intensity(array.min().reshape(1))[0])

    def resample(planes: Shaped[np.ndarray, "n H W"]) -> Float16[np.ndarray, "n h w"]:
        return resample_images(torch.from_numpy(intensity(planes)), grid, fill).half().numpy()

    return map_chunks(to_slices(array, axis), resample)


def map_chunks(
    slices: Shaped[np.ndarray, "n H W"],
    resample: Callable[[Shaped[np.ndarray, "m H W"]], Shaped[np.ndarray, "m h w"]],
) -> Shaped[np.ndarray, "n h w"]:
    """Apply `resample` to a stack of planes, a few at a time, so that temporaries stay small."""
    resampled: np.ndarray | None = None
    for start in range(0, len(slices), _PLANES_AT_ONCE):
        part = resample(np.ascontiguousarray(slices[start : start + _PLANES_AT_ONCE]))
        if resampled is None:
            resampled = np.empty((len(slices), *part.shape[1:]), part.dtype)
        resampled[start : start + len(part)] = part
    assert resampled is not None  # a volume has slices
    return resampled
