"""How the slices of one anatomical axis are numbered in a file, and where they lie."""

from dataclasses import dataclass

import nibabel as nib
import numpy as np

from spleen.errors import InputError
from spleen.imaging.slicing import AXES
from spleen.types import Affine, AxisName


@dataclass(frozen=True, eq=False)
class SliceNumbering:
    """The slices along one anatomical axis; `index` counts them on the RAS grid, `file_index` in the file's array."""

    axis: AxisName
    n_slices: int
    affine: Affine
    """Of the RAS grid."""
    shape: tuple[int, int, int]
    """Of the RAS grid."""
    array_axis: int
    """The axis of the file's own array that counts these slices, from 0."""
    is_reversed: bool
    """Whether the file counts them from the other end."""

    def file_index(self, index: int) -> int:
        """The number, from 0, of a slice in the file's own array; the inverse is the same function."""
        return self.n_slices - 1 - index if self.is_reversed else index

    def position_mm(self, index: int) -> float:
        """World coordinate of the slice's centre along the axis, mm towards right, anterior or superior."""
        number = AXES.index(self.axis)
        centre = [(size - 1) / 2 for size in self.shape]
        centre[number] = index
        return float((self.affine @ [*centre, 1])[number])


def number_slices(shape: tuple[int, int, int], affine: Affine, file_affine: Affine, axis: AxisName) -> SliceNumbering:
    """Number the slices of a RAS grid of this shape and `affine`, read from a file with `file_affine`."""
    number = AXES.index(axis)
    to_ras = nib.orientations.io_orientation(np.linalg.inv(affine) @ file_affine)  # also right near 45°
    array_axis = int(np.flatnonzero(to_ras[:, 0] == number)[0])
    return SliceNumbering(axis, shape[number], affine, shape, array_axis, bool(to_ras[array_axis, 1] < 0))


def parse_axis(name: str) -> AxisName:
    """The axis of that name; InputError for anything else."""
    for axis in AXES:
        if name == axis:
            return axis
    raise InputError(f"axis must be one of {', '.join(AXES)}; got '{name}'")
