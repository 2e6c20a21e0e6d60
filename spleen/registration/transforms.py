"""What a transform does to space, its inverse, and its file."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float64

from spleen.errors import InputError
from spleen.imaging.nifti import Volume
from spleen.registration.grids import Grid, Points, corners_mm, frame, grid_of, swap_lps
from spleen.system.files import temporary_sibling

if TYPE_CHECKING:
    from SimpleITK import Image, Transform

SUFFIXES = (".tfm", ".h5")
_FIELD_MM = 4.0
"""Voxels of the displacement field of an inverse: much smaller than the distance of the B-spline's knots."""
_MARGIN_MM = 60.0
_DEGENERATE = 1e-9


@dataclass(frozen=True)
class Motion:
    """What the linear part of a transform does, seen from the middle of a grid."""

    rotation_degrees: float
    shift_mm: tuple[float, float, float]
    """Of the middle: towards right, anterior and superior, from where it lies in the fixed image to the moving one."""
    scales: tuple[float, float, float]
    """Stretch along the three principal directions, in descending order; 1, 1, 1 of a rigid transform."""

    @property
    def distance_mm(self) -> float:
        """Length of the shift."""
        return math.hypot(*self.shift_mm)


def map_points(transform: "Transform", points: Points) -> Points:
    """Where a transform takes points; in mm, RAS."""
    mapped = [transform.TransformPoint(point) for point in swap_lps(points).tolist()]
    return swap_lps(np.array(mapped, dtype=np.float64).reshape(-1, 3))


def motion(transform: "Transform", grid: Grid) -> Motion:
    """Rotation, shift and stretch of a linear transform, or of the linear part of a deformation."""
    linear = _parts(transform)[0]
    centre = grid.centre
    mapped = map_points(linear, np.stack([centre, *(centre + np.eye(3))]))
    matrix = (mapped[1:] - mapped[0]).T
    left, scales, right = np.linalg.svd(matrix)
    cosine = (np.trace(left @ right) - 1) / 2
    x, y, z = (float(mm) for mm in mapped[0] - centre)
    largest, middle, smallest = (float(scale) for scale in scales)
    degrees = float(np.degrees(np.arccos(np.clip(cosine, -1, 1))))
    return Motion(degrees, (x, y, z), (largest, middle, smallest))


def inverse(transform: "Transform", fixed: Volume) -> "Transform":
    """From points of the moving image to points of the fixed one.

    That of a deformation is a displacement field, found by iteration over the fixed image and 60 mm around it. Where
    space folds, there is none, and the field is a compromise.
    """
    import SimpleITK as sitk  # noqa: N813

    linear, spline = _parts(transform)
    if spline is None:
        return linear.GetInverse()
    field = sitk.TransformToDisplacementField(spline, sitk.sitkVectorFloat64, *frame(_field_grid(grid_of(fixed))))
    # It stops at the tolerance reached first; the mean is small early, as most of space hardly moves.
    undone = sitk.InvertDisplacementField(
        field, maximumNumberOfIterations=60, maxErrorToleranceThreshold=0.02, meanErrorToleranceThreshold=1e-9
    )
    # The last one is applied first: back through the linear part, then through the deformation.
    return sitk.CompositeTransform([sitk.DisplacementFieldTransform(undone), linear.GetInverse()])


def jacobian_range(transform: "Transform", at: "Image") -> tuple[float, float, float]:
    """Smallest and largest determinant of the Jacobian over an image, and the fraction where it is not positive."""
    import SimpleITK as sitk  # noqa: N813

    field = sitk.TransformToDisplacementField(
        transform, sitk.sitkVectorFloat64, at.GetSize(), at.GetOrigin(), at.GetSpacing(), at.GetDirection()
    )
    displacements = sitk.GetArrayFromImage(field).transpose(2, 1, 0, 3)
    # ITK's own filter for the determinant takes the axes of the image for those of space.
    steps = np.array(at.GetDirection()).reshape(3, 3) * at.GetSpacing()
    by_voxel = np.stack(np.gradient(displacements, axis=(0, 1, 2)), axis=-1)
    determinants = np.linalg.det(np.eye(3) + by_voxel @ np.linalg.inv(steps))
    return float(determinants.min()), float(determinants.max()), float((determinants <= _DEGENERATE).mean())


def write_transform(path: Path, transform: "Transform") -> None:
    """Write for SimpleITK, ITK, 3D Slicer or ITK-SNAP, whole or not at all; `check_transform_name` checks the name."""
    import SimpleITK as sitk  # noqa: N813

    temporary = temporary_sibling(path)
    try:
        sitk.WriteTransform(transform, str(temporary))
        temporary.replace(path)
    except RuntimeError as error:
        raise OSError(f"ITK could not write {path}") from error
    finally:
        temporary.unlink(missing_ok=True)


def check_transform_name(option: str, path: Path | None) -> None:
    """Raise InputError for a name that says no kind of file which ITK reads back."""
    if path is not None and path.suffix.lower() not in SUFFIXES:
        raise InputError(f"{option}: {path} must end in one of {', '.join(SUFFIXES)}")


def _parts(transform: "Transform") -> "tuple[Transform, Transform | None]":
    """The linear part, and the deformation applied before it."""
    import SimpleITK as sitk  # noqa: N813

    if transform.GetName() != "CompositeTransform":
        return transform, None
    parts = sitk.CompositeTransform(transform)
    return parts.GetNthTransform(0), parts.GetNthTransform(1)


def _field_grid(grid: Grid) -> Grid:
    """A coarser grid that covers another one and a margin."""
    steps = np.maximum(grid.spacing_mm, _FIELD_MM)
    directions: Float64[np.ndarray, "3 3"] = grid.affine[:3, :3] / grid.spacing_mm
    along = corners_mm(grid.shape, grid.affine) @ directions
    low, high = along.min(axis=0) - _MARGIN_MM, along.max(axis=0) + _MARGIN_MM
    i, j, k = (int(count) for count in np.ceil((high - low) / steps) + 1)
    affine = np.eye(4)
    affine[:3, :3] = directions * steps
    affine[:3, 3] = directions @ low
    return Grid((i, j, k), affine)
