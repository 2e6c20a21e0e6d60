"""Affine, orientation and spacing of a voxel grid; reorientation to RAS and its inverse.

Anatomical names always come from the affine, never from array positions. RAS: the array axes i, j, k point towards the
patient's Right, Anterior and Superior.
"""

import math
from dataclasses import dataclass
from itertools import product

import nibabel as nib
import numpy as np
from jaxtyping import Float64, Shaped

from spleen.errors import InputError
from spleen.types import Affine, MaskVolume, SpacingMm

GRID_TOLERANCE_MM = 0.1
"""By how much the voxels of an image and its label may lie apart by default."""

SHEARED_DEGREES = 0.5
"""From this shear on, the user is told."""
# Axes closer to perpendicular than this count as such: float32 affines are rounded.
_RIGHT_ANGLE_DEGREES = 0.01

# A margin of exactly 4 voxels is 4, although float32 spacings are rounded.
_ROUNDING_VOXELS = 1e-4

# Beyond this, products of lengths are no longer precise; micrometres and kilometres are far below.
_LARGEST_MM = 1e12

Grid3D = Shaped[np.ndarray, "i j k"]
RasGrid = Shaped[np.ndarray, "r a s"]
Indices = tuple[int, int, int]


@dataclass(frozen=True)
class Box:
    """The voxels of a grid from `start` up to, but without, `stop`, along i, j, k."""

    start: Indices
    stop: Indices

    @property
    def shape(self) -> Indices:
        """Voxels along i, j, k."""
        i, j, k = (stop - start for start, stop in zip(self.start, self.stop, strict=True))
        return i, j, k

    @property
    def slices(self) -> tuple[slice, slice, slice]:
        """The index of an array on the grid that gives the box."""
        i, j, k = map(slice, self.start, self.stop)
        return i, j, k

    def grown(self, margin_mm: float, affine: Affine, shape: Indices) -> "Box":
        """The box with a margin on all six sides, rounded up to whole voxels, as far as the grid of `shape` reaches.

        On a sheared grid the margin is perpendicular to the sides.
        """
        planes_mm = plane_distances_mm(affine)
        by = [math.ceil(margin_mm / plane_mm - _ROUNDING_VOXELS) for plane_mm in planes_mm]
        i, j, k = (max(0, start - more) for start, more in zip(self.start, by, strict=True))
        i_stop, j_stop, k_stop = (min(end, stop + more) for stop, more, end in zip(self.stop, by, shape, strict=True))
        return Box((i, j, k), (i_stop, j_stop, k_stop))


def box_around(mask: MaskVolume) -> Box | None:
    """The smallest box that contains a mask; None for an empty one."""
    ends = []
    for axis in range(3):
        found = np.flatnonzero(mask.any(axis=tuple({0, 1, 2} - {axis})))
        if not len(found):
            return None
        ends.append((int(found[0]), int(found[-1]) + 1))
    (i, i_stop), (j, j_stop), (k, k_stop) = ends
    return Box((i, j, k), (i_stop, j_stop, k_stop))


def spacing_mm(affine: Affine) -> SpacingMm:
    """Distance in mm between neighbouring voxel centres along the array axes i, j, k."""
    i, j, k = (float(length) for length in np.linalg.norm(affine[:3, :3], axis=0))
    return i, j, k


def voxel_volume_mm3(affine: Affine) -> float:
    """Volume of one voxel in mm³: the determinant, which is right for sheared grids too."""
    return abs(float(np.linalg.det(affine[:3, :3])))


def shear_degrees(affine: Affine) -> float:
    """Largest departure of two voxel axes from the right angle, as in a CT with a tilted gantry."""
    directions = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    cosines = np.abs(directions.T @ directions)[np.triu_indices(3, 1)]
    return float(np.degrees(np.arcsin(np.clip(cosines, 0, 1))).max())


def shear_note(degrees: float) -> str:
    """What is done with a sheared grid."""
    return (
        f"two array axes are {degrees:.1f}° from perpendicular (tilted gantry?); volumes and distances in mm take it "
        "into account, slices and their resampling are as the array holds them"
    )


def plane_distances_mm(affine: Affine) -> SpacingMm:
    """Perpendicular distance in mm between neighbouring planes of voxels across i, j, k.

    On a sheared grid it is shorter than the distance between voxel centres.
    """
    if shear_degrees(affine) < _RIGHT_ANGLE_DEGREES:
        return spacing_mm(affine)
    i, j, k = (1 / float(length) for length in np.linalg.norm(np.linalg.inv(affine[:3, :3]), axis=1))
    return i, j, k


def distance_axes_mm(affine: Affine) -> Float64[np.ndarray, "3 3"]:
    """Matrix from differences of voxel indices to vectors whose length is the distance in mm.

    A rotation does not change distances, so it is the diagonal of the spacing unless the grid is sheared.
    """
    if shear_degrees(affine) < _RIGHT_ANGLE_DEGREES:
        return np.diag(spacing_mm(affine))
    axes: np.ndarray = affine[:3, :3].astype(np.float64)
    return axes


def orientation(affine: Affine) -> str:
    """Anatomical directions of the array axes, for example "RAS" or "LPS"."""
    return "".join(str(code) for code in nib.orientations.aff2axcodes(affine))


def check_affine(affine: Affine) -> None:
    """Raise InputError unless the affine maps the array axes to three independent directions."""
    if not np.isfinite(affine).all() or np.abs(affine).max() > _LARGEST_MM:
        raise InputError(
            f"the affine contains NaN, Inf or lengths over {_LARGEST_MM:.0e} mm; in a file, repair the header's "
            "sform/qform"
        )
    lengths = np.linalg.norm(affine[:3, :3], axis=0)
    if not lengths.all() or abs(np.linalg.det(affine[:3, :3] / lengths)) < 1e-6:
        raise InputError(
            f"the affine is singular (spacing {spacing_mm(affine)} mm): "
            "voxels have no volume; in a file, repair the header's sform/qform and pixdim"
        )


def reorient_to_ras(array: Grid3D, affine: Affine) -> tuple[RasGrid, Affine]:
    """Permute and flip the array axes to the orientation closest to Right, Anterior, Superior.

    Voxel values are unchanged; the returned affine maps the new indices to the same world positions.
    """
    to_ras = nib.orientations.io_orientation(affine)
    return nib.orientations.apply_orientation(array, to_ras), affine_to_ras(affine, array.shape)


def affine_to_ras(affine: Affine, shape: tuple[int, ...]) -> Affine:
    """The affine that `reorient_to_ras` gives an array of this shape."""
    in_ras: Affine = affine @ nib.orientations.inv_ornt_aff(nib.orientations.io_orientation(affine), shape)
    return in_ras


def restore_orientation(
    ras_array: Shaped[np.ndarray, "r a s *channels"], file_affine: Affine
) -> Shaped[np.ndarray, "i j k *channels"]:
    """Undo `reorient_to_ras`: a view of an array on the RAS grid along the axes of the file with `file_affine`."""
    ras = nib.orientations.axcodes2ornt("RAS")
    back = nib.orientations.ornt_transform(ras, nib.orientations.io_orientation(file_affine))
    restored: np.ndarray = nib.orientations.apply_orientation(ras_array, back)
    return restored


def align_axes(array: Grid3D, affine: Affine, target: Affine) -> tuple[RasGrid, Affine]:
    """Permute and flip the axes of an array to those of a grid with the affine `target`.

    Near 45° two nearly equal affines may have been reoriented to RAS in different ways; relative to each other, they
    are unambiguous. Arrays that are aligned already are returned as they are.
    """
    moves = nib.orientations.io_orientation(np.linalg.inv(target) @ affine)
    if np.array_equal(moves, [[0, 1], [1, 1], [2, 1]]) or np.isnan(moves).any():
        return array, affine
    return nib.orientations.apply_orientation(array, moves), affine @ nib.orientations.inv_ornt_aff(moves, array.shape)


def grid_distance_mm(shape: tuple[int, int, int], first: Affine, second: Affine) -> float:
    """Largest distance in mm between the positions that two affines give to the same corner voxel."""
    corners = np.array([(*corner, 1) for corner in product(*((0, size - 1) for size in shape))], dtype=np.float64)
    difference = (corners @ first.T - corners @ second.T)[:, :3]
    return float(np.linalg.norm(difference, axis=1).max())


def check_same_grid(
    shapes: tuple[tuple[int, ...], tuple[int, ...]],
    affines: tuple[Affine, Affine],
    tolerance_mm: float,
    names: tuple[str, str] = ("image", "label"),
) -> None:
    """Raise InputError unless two RAS grids agree: shapes exactly, voxel positions within `tolerance_mm`."""
    if shapes[0] != shapes[1]:
        raise InputError(
            f"{names[0]} and {names[1]} are on different grids: after reorientation to RAS their shapes are "
            f"{_times(shapes[0])} and {_times(shapes[1])}; resample the {names[1]} onto the {names[0]}'s grid "
            "(nearest neighbour)"
        )
    i, j, k = shapes[0]
    distance = grid_distance_mm((i, j, k), *affines)
    if distance > tolerance_mm:
        raise InputError(
            f"{names[0]} and {names[1]} are on different grids: their affines place the same voxel up to "
            f"{distance:.3g} mm apart, the tolerance is {tolerance_mm:g} mm; resample the {names[1]} onto the "
            f"{names[0]}'s grid, or raise the grid tolerance if the difference is only rounding"
        )


def _times(shape: tuple[int, ...]) -> str:
    return " × ".join(str(size) for size in shape)
