"""Volumes as SimpleITK images and back: the only place where RAS meets ITK's LPS."""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float64, Num, Shaped

from spleen.errors import InputError
from spleen.imaging.geometry import shear_degrees, spacing_mm
from spleen.imaging.nifti import Volume
from spleen.types import Affine, SpacingMm

if TYPE_CHECKING:
    from SimpleITK import Image

# ITK knows no sheared grids. What float32 headers round is far below.
_SQUARE_DEGREES = 0.05
_FEWEST_VOXELS = 4
_EXTENT_MM = (5.0, 5000.0)
_LPS = np.array([-1.0, -1.0, 1.0])

Points = Float64[np.ndarray, "n 3"]


@dataclass(frozen=True)
class Grid:
    """Where voxels lie: how many along each axis, and the affine from their indices to mm in RAS."""

    shape: tuple[int, int, int]
    affine: Affine

    @property
    def spacing_mm(self) -> SpacingMm:
        """Distance between neighbouring voxels along the axes."""
        return spacing_mm(self.affine)

    @property
    def centre(self) -> Float64[np.ndarray, "3"]:
        """The middle of the grid in mm, RAS."""
        centre: np.ndarray = self.affine[:3, :3] @ ((np.array(self.shape) - 1) / 2) + self.affine[:3, 3]
        return centre


def grid_of(volume: Volume) -> Grid:
    """The grid of a volume."""
    i, j, k = volume.array.shape
    return Grid((i, j, k), volume.affine)


def require_simpleitk() -> None:
    """Raise InputError unless SimpleITK is installed."""
    if find_spec("SimpleITK") is None:
        raise InputError(
            "aligning and cutting scans needs SimpleITK; install it with: pip install 'spleen[registration]'"
        )


def to_image(volume: Volume) -> "Image":
    """A volume as an image of SimpleITK; raises InputError for a sheared grid, which ITK cannot hold."""
    import SimpleITK as sitk  # noqa: N813

    check_square(volume.affine)
    dtype = _ITK_TYPES.get(volume.array.dtype, volume.array.dtype.newbyteorder("="))
    image = sitk.GetImageFromArray(np.ascontiguousarray(volume.array.transpose(2, 1, 0).astype(dtype, copy=False)))
    _, origin, spacing, direction = frame(grid_of(volume))
    image.SetOrigin(origin)
    image.SetSpacing(spacing)
    image.SetDirection(direction)
    return image


_ITK_TYPES: dict[np.dtype[Any], np.dtype[Any]] = {
    np.dtype(bool): np.dtype(np.uint8),
    np.dtype(np.float16): np.dtype(np.float32),
}
"""Data types that ITK lacks, and what holds their values."""


def to_array(image: "Image") -> Num[np.ndarray, "i j k"]:
    """A copy of the voxels of an image."""
    import SimpleITK as sitk  # noqa: N813

    array: np.ndarray = sitk.GetArrayFromImage(image).transpose(2, 1, 0)
    return array


def frame(grid: Grid) -> tuple[list[int], list[float], list[float], list[float]]:
    """Size, origin, spacing and direction of a grid in the terms of ITK."""
    spacing = np.array(grid.spacing_mm)
    left, _, right = np.linalg.svd(grid.affine[:3, :3] / spacing)
    directions = _LPS[:, None] * (left @ right)  # the nearest perpendicular axes: headers hold few digits
    return list(grid.shape), (_LPS * grid.affine[:3, 3]).tolist(), spacing.tolist(), directions.ravel().tolist()


def swap_lps(points: Float64[np.ndarray, "*n 3"]) -> Float64[np.ndarray, "*n 3"]:
    """Points or directions from RAS to LPS, or back."""
    swapped: np.ndarray = points * _LPS
    return swapped


def check_grid(volume: Volume, name: str) -> None:
    """Raise InputError for a volume that cannot be aligned or cut; `name` begins the message.

    These are grids that are hardly three-dimensional, whose size in mm no body part has, or which are sheared.
    """
    shape, affine = volume.array.shape, volume.affine
    if min(shape) < _FEWEST_VOXELS:
        raise InputError(
            f"{name} has {_times(shape)} voxels; a volume needs at least {_FEWEST_VOXELS} along each axis, not one "
            "slice"
        )
    extents = [size * spacing for size, spacing in zip(shape, spacing_mm(affine), strict=True)]
    if not _EXTENT_MM[0] <= max(extents) <= _EXTENT_MM[1]:
        raise InputError(
            f"{name} is {_times([f'{extent:.3g}' for extent in extents])} mm large, which no scan is (it must measure "
            f"{_EXTENT_MM[0]:g} to {_EXTENT_MM[1]:g} mm); are its spacings in another unit than mm? Repair its header"
        )
    try:
        check_square(affine)
    except InputError as error:
        raise InputError(f"{name}: {error}") from error


def check_square(affine: Affine) -> None:
    """Raise InputError for axes that are not perpendicular."""
    if (degrees := shear_degrees(affine)) > _SQUARE_DEGREES:
        raise InputError(
            f"the voxel axes are {degrees:.2f}° from perpendicular (a tilted gantry?), at most {_SQUARE_DEGREES}° can "
            "be aligned; resample it onto a rectangular grid first"
        )


def _times(numbers: Sequence[object]) -> str:
    return " × ".join(map(str, numbers))


def corners_mm(shape: Sequence[int], affine: Affine) -> Points:
    """The eight outer corners of a grid, half a voxel beyond the centres, in mm."""
    ends = np.array(np.meshgrid(*([-0.5, size - 0.5] for size in shape), indexing="ij")).reshape(3, -1).T
    corners: Points = ends @ affine[:3, :3].T + affine[:3, 3]
    return corners


def as_volume(array: Shaped[np.ndarray, "i j k"], affine: Affine) -> Volume:
    """A volume that comes from no file."""
    return Volume(array, affine, affine)
