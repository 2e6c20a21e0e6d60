"""Bring a volume onto another grid in one interpolation, whatever lies between the two."""

from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from jaxtyping import Num

from spleen.errors import InputError, check_choice
from spleen.imaging.nifti import Volume
from spleen.registration.grids import Grid, frame, require_simpleitk, to_array, to_image
from spleen.system.memory import free_memory_bytes

if TYPE_CHECKING:
    from SimpleITK import Transform

Interpolation = Literal["linear", "cubic", "nearest", "smooth_labels"]
LABEL_INTERPOLATIONS: tuple[Interpolation, ...] = ("nearest", "smooth_labels")

_BYTES_PER_VOXEL = 12
_ITK_NAMES: dict[Interpolation, str] = {
    "linear": "sitkLinear",
    "cubic": "sitkBSpline",
    "nearest": "sitkNearestNeighbor",
    "smooth_labels": "sitkLabelLinear",
}


def resample_onto(
    volume: Volume,
    grid: Grid,
    transform: "Transform | None" = None,
    interpolation: Interpolation = "linear",
    outside: float | None = None,
) -> Num[np.ndarray, "i j k"]:
    """The values of a volume at the voxels of a grid, in the volume's data type (integers are rounded, not cut).

    `transform` maps points of the grid to points of the volume; without it both share the same space. "nearest" and
    "smooth_labels" (the label with the largest weight among the eight voxels around a point) are for label maps and
    keep their values. Voxels of the grid that lie outside of the volume get `outside`; by default labels get 0, and
    intensities the smallest one of the volume.
    Raises InputError for another interpolation, a sheared volume, and a grid that does not fit into memory.
    """
    import SimpleITK as sitk  # noqa: N813

    check_choice("interpolation", interpolation, _ITK_NAMES)
    require_simpleitk()
    check_size(grid)
    image, dtype = to_image(volume), volume.array.dtype
    is_label = interpolation in LABEL_INTERPOLATIONS
    if not is_label:
        exact_in_float32 = dtype == np.float32 or dtype.itemsize <= 2
        image = sitk.Cast(image, sitk.sitkFloat32 if exact_in_float32 else sitk.sitkFloat64)
    if outside is None:
        outside = 0.0 if is_label else float(volume.array.min())
    size, *where = frame(grid)
    interpolator = getattr(sitk, _ITK_NAMES[interpolation])
    resampled = sitk.Resample(image, size, transform or sitk.Transform(), interpolator, *where, outside)
    return _in_type(to_array(resampled), dtype)


def _in_type(array: Num[np.ndarray, "i j k"], dtype: np.dtype[Any]) -> Num[np.ndarray, "i j k"]:
    """Round and clip where the type holds integers: a cubic spline overshoots, and a cast would cut towards 0."""
    if np.issubdtype(dtype, np.integer) and not np.issubdtype(array.dtype, np.integer):
        limits = np.iinfo(dtype)
        array = np.clip(np.rint(array), limits.min, limits.max)
    return array.astype(dtype, copy=False)


def check_size(grid: Grid) -> None:
    """Raise InputError for a grid whose voxels do not fit into the free memory."""
    needed, available = int(np.prod(grid.shape, dtype=object)) * _BYTES_PER_VOXEL, free_memory_bytes()
    if needed > available:
        raise InputError(
            f"{' × '.join(map(str, grid.shape))} voxels need about {needed / 2**30:,.1f} GiB; "
            f"{available / 2**30:.1f} GiB of memory are free. Choose a coarser spacing"
        )
