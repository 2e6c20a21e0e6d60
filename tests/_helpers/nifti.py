"""Builders of small NIfTI files whose orientation, spacing and content are known by hand.

Nothing here uses the orientation code of nibabel or of the package, so these files can check both.
"""

from itertools import permutations, product
from pathlib import Path

import nibabel as nib
import numpy as np

SHAPE = (5, 7, 3)
SPACING_MM = (0.8, 0.8, 5.0)
ORIGIN_MM = (-31.0, 12.5, 40.0)

_RAS_AXIS = {"R": 0, "L": 0, "A": 1, "P": 1, "S": 2, "I": 2}

ORIENTATIONS = ["".join(codes) for order in permutations(("RL", "AP", "SI")) for codes in product(*order)]
"""All 48 orientations of the array axes relative to the body."""


def ras_affine(spacing_mm=SPACING_MM, origin_mm=ORIGIN_MM):
    """The affine of a RAS grid whose first voxel lies at `origin_mm`."""
    affine = np.diag([*spacing_mm, 1.0])
    affine[:3, 3] = origin_mm
    return affine


def stored_as(orientation, ras_array, affine):
    """The same voxels at the same world positions, stored in another orientation: (array, affine)."""
    order = [_RAS_AXIS[code] for code in orientation]
    array, stored = ras_array.transpose(order), np.eye(4)
    stored[:3, 3] = affine[:3, 3]
    for axis, code in enumerate(orientation):
        column = affine[:3, order[axis]]
        if code in "LPI":
            array = np.flip(array, axis)
            stored[:3, 3] += column * (array.shape[axis] - 1)
            column = -column
        stored[:3, axis] = column
    return array, stored


def save(path: Path, array, affine, slope=None, inter=None):
    """Write an array as NIfTI with sform and qform; `slope` and `inter` go into the header without being applied."""
    nifti = nib.Nifti1Image(np.ascontiguousarray(array), affine)
    nifti.header.set_slope_inter(slope, inter)
    nifti.set_sform(affine, 1)
    nifti.set_qform(affine, 1)
    nib.save(nifti, path)
    return path


def save_stored_as(path: Path, orientation, ras_array, affine=None):
    """Write a RAS array to a file stored in `orientation`."""
    return save(path, *stored_as(orientation, ras_array, ras_affine() if affine is None else affine))


def counting(shape=SHAPE, dtype=np.float32):
    """An array whose voxels all have different values."""
    return np.arange(np.prod(shape), dtype=dtype).reshape(shape)


def box(shape=SHAPE, low=(1, 2, 0), high=(3, 6, 2), value=1):
    """A label map with one filled box, from `low` (inclusive) to `high` (exclusive)."""
    label = np.zeros(shape, dtype=np.int16)
    label[tuple(slice(first, last) for first, last in zip(low, high, strict=True))] = value
    return label
