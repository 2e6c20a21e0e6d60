"""Oblique multi-planar reconstruction: grids whose slices are perpendicular to any direction."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float64

from spleen.errors import InputError
from spleen.imaging.nifti import Volume
from spleen.registration.grids import Grid, corners_mm, grid_of
from spleen.registration.resampling import check_size
from spleen.types import AxisName, SpacingMm

Direction = Float64[np.ndarray, "3"]
Basis = Float64[np.ndarray, "3 3"]
"""Columns, RAS: along a row of the picture, up in it, and perpendicular to it."""

_RIGHT, _ANTERIOR, _SUPERIOR = np.eye(3)
_BASES: dict[AxisName, Basis] = {
    "sagittal": np.stack([_ANTERIOR, _SUPERIOR, _RIGHT], axis=1),
    "coronal": np.stack([_RIGHT, _SUPERIOR, _ANTERIOR], axis=1),
    "axial": np.stack([_RIGHT, _ANTERIOR, _SUPERIOR], axis=1),
}
TURNING_AXES: dict[str, Direction] = {
    "left_right": _RIGHT,
    "anterior_posterior": _ANTERIOR,
    "superior_inferior": _SUPERIOR,
}
"""What a plane can be turned about: a positive angle turns like the fingers of a right hand whose thumb points right,
anterior or superior."""

_ROUNDING_MM = 1e-3
_ROUNDING = 1e-3  # in voxels
_LONGEST_MM = 1e4
_LETTERS = ("LR", "PA", "IS")
_LEAST_SHARE = 0.35
"""Of a direction, so that the letter of an axis is told: about 20°."""


def plane_basis(plane: AxisName, turns: Sequence[tuple[str, float]] = ()) -> Basis:
    """The basis of an anatomical plane, turned by angles in degrees about `TURNING_AXES`, one after the other.

    Raises InputError for another axis.
    """
    basis = _BASES[plane]
    for axis, degrees in turns:
        if axis not in TURNING_AXES:
            raise InputError(f"a plane can be turned about {', '.join(TURNING_AXES)}; got {axis!r}")
        basis = _rotation(TURNING_AXES[axis], np.radians(degrees)) @ basis
    return basis


def basis_of_normal(normal: Direction) -> Basis:
    """The basis of the plane perpendicular to a direction: the nearest anatomical plane, turned by the shortest way.

    Slices count towards right, anterior or superior, so a direction and its opposite give the same. Raises InputError
    for a direction without a length.
    """
    length = float(np.linalg.norm(normal))
    if not (np.isfinite(length) and length > 0):
        raise InputError(
            f"the normal must be a direction such as 0,0,1; got {','.join(f'{part:g}' for part in normal)}"
        )
    largest = int(np.argmax(np.abs(normal)))
    wanted = normal / length * np.sign(normal[largest])
    planes: tuple[AxisName, AxisName, AxisName] = ("sagittal", "coronal", "axial")
    basis = _BASES[planes[largest]]
    axis = np.cross(basis[:, 2], wanted)
    sine = float(np.linalg.norm(axis))
    if sine == 0:
        return basis
    turned: Basis = _rotation(axis / sine, float(np.arctan2(sine, basis[:, 2] @ wanted))) @ basis
    return turned


def plane_spacing(volume: Volume, basis: Basis) -> SpacingMm:
    """Pixels as fine as the finest of the volume, and slices as far apart as its voxels along the normal."""
    finest = min(volume.spacing_mm)
    steps = volume.affine[:3, :3]
    return finest, finest, float(1 / np.abs(np.linalg.inv(steps) @ basis[:, 2]).max())


def stack_grid(
    volume: Volume, basis: Basis, through: Direction | None = None, spacing_mm: SpacingMm | None = None
) -> Grid:
    """The grid of a stack that covers a volume, one slice of which contains the point `through` (mm, RAS).

    By default that is the middle voxel, and the spacing is `plane_spacing`. The first array axis runs along a row, the
    second one up, the third one from slice to slice. Raises InputError for a point outside of the volume.
    """
    spacings = np.array(spacing_mm if spacing_mm is not None else plane_spacing(volume, basis))
    if not (np.isfinite(spacings).all() and spacings.min() > 0 and spacings.max() <= _LONGEST_MM):
        raise InputError(f"spacings must be lengths in mm above 0; got {', '.join(f'{mm:g}' for mm in spacings)}")
    point = _middle_voxel(volume) if through is None else through
    if through is not None:
        _check_inside(volume, through)
    along = corners_mm(volume.array.shape, volume.affine) @ basis
    low, high = along.min(axis=0), along.max(axis=0)
    first = low + spacings / 2
    before = np.floor((point @ basis[:, 2] - low[2]) / spacings[2] + _ROUNDING_MM / spacings[2] - 0.5)
    first[2] = point @ basis[:, 2] - max(before, 0) * spacings[2]
    counts = np.maximum(1, np.floor((high - first + _ROUNDING_MM) / spacings + 0.5))
    i, j, k = (int(count) for count in counts)
    affine = np.eye(4)
    affine[:3, :3] = basis * spacings
    affine[:3, 3] = basis @ first
    return Grid((i, j, k), affine)


def slice_through(volume: Volume, grid: Grid, through: Direction | None = None) -> Grid:
    """The slice of a stack that contains a point (by default the middle voxel), cut to where the volume is.

    Raises InputError for a slice that does not fit into memory.
    """
    check_size(Grid((*grid.shape[:2], 1), grid.affine))
    point = _middle_voxel(volume) if through is None else through
    steps = grid.affine[:3, 2]
    index = int(np.clip(np.rint((point - grid.affine[:3, 3]) @ steps / (steps @ steps)), 0, grid.shape[2] - 1))
    to_voxels = np.linalg.inv(volume.affine) @ grid.affine
    i, j = np.ogrid[: grid.shape[0], : grid.shape[1]]
    inside = np.ones(grid.shape[:2], dtype=bool)
    for (step_i, step_j, step_k, first), size in zip(to_voxels[:3], volume.array.shape, strict=True):
        voxel = step_i * i + (step_j * j + step_k * index + first)  # one axis at a time: a fine plane is large
        inside &= (voxel > -0.5 - _ROUNDING) & (voxel < size - 0.5 + _ROUNDING)
    rows, columns = (np.flatnonzero(inside.any(axis=axis)) for axis in (1, 0))
    low_i, high_i, low_j, high_j = (rows[0], rows[-1] + 1, columns[0], columns[-1] + 1) if len(rows) else (0, 1, 0, 1)
    affine = grid.affine.copy()
    affine[:3, 3] += grid.affine[:3, :3] @ [low_i, low_j, index]
    return Grid((int(high_i - low_i), int(high_j - low_j), 1), affine)


def edge_letters(basis: Basis) -> tuple[str, str, str, str]:
    """What lies at the left, right, top and bottom edge of the picture in radiological orientation."""
    right, up = basis[:, 0], basis[:, 1]  # the rows of the array run to the left of the picture
    return _letters(right), _letters(-right), _letters(up), _letters(-up)


def _letters(direction: Direction) -> str:
    """R, or RS for a direction between right and superior, the larger share first."""
    order = np.argsort(-np.abs(direction), kind="stable")
    return "".join(_LETTERS[axis][int(direction[axis] > 0)] for axis in order if abs(direction[axis]) > _LEAST_SHARE)


def _middle_voxel(volume: Volume) -> Direction:
    index = np.array(volume.array.shape) // 2
    point: Direction = volume.affine[:3, :3] @ index + volume.affine[:3, 3]
    return point


def _check_inside(volume: Volume, point: Direction) -> None:
    affine, shape = volume.affine, np.array(volume.array.shape)
    index = np.linalg.solve(affine[:3, :3], point - affine[:3, 3])
    if not ((index >= -0.5 - _ROUNDING_MM) & (index <= shape - 0.5 + _ROUNDING_MM)).all():
        corners = corners_mm(volume.array.shape, affine)
        reach = ", ".join(f"{low:.5g} to {high:.5g}" for low, high in zip(corners.min(0), corners.max(0), strict=True))
        centre = ",".join(f"{mm:.5g}" for mm in grid_of(volume).centre)
        raise InputError(
            f"the point {','.join(f'{mm:g}' for mm in point)} lies outside of the image, which reaches from {reach} mm "
            f"(right, anterior, superior); its centre is {centre}"
        )


def _rotation(axis: Direction, radians: float) -> Basis:
    """Rodrigues' formula about an axis of length 1."""
    x, y, z = axis
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    rotation: Basis = np.eye(3) + np.sin(radians) * cross + (1 - np.cos(radians)) * cross @ cross
    return rotation
