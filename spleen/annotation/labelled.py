"""Labels of which only some slices are drawn: reading them, and what is known of which slice."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Bool

from spleen.annotation.numbering import SliceNumbering, number_slices
from spleen.errors import InputError
from spleen.imaging.geometry import GRID_TOLERANCE_MM, check_same_grid
from spleen.imaging.native import NativeImage
from spleen.imaging.nifti import Volume, read_label
from spleen.imaging.slicing import AXES, to_slices
from spleen.system.text import shortened
from spleen.types import AxisName, LabelVolume, MaskVolume

UNKNOWN_VALUE = 255
"""The label value of voxels that nobody has labelled, unless another one is given."""


@dataclass(frozen=True, eq=False)
class SparseLabel:
    """A label of which only a part is known, on the RAS grid of its image."""

    path: Path
    volume: Volume
    """Label values; `unknown_value` where nothing is known."""
    unknown_value: int
    numbering: SliceNumbering
    """Of the slices along the axis that they were drawn on."""
    was_completed: bool
    """Whether the values differ from those of the file, because its drawn slices were given as a list."""

    @property
    def known(self) -> MaskVolume:
        """Which voxels are labelled."""
        known: MaskVolume = self.volume.array != self.unknown_value
        return known

    @property
    def labelled(self) -> tuple[int, ...]:
        """Slices with a known voxel, counted on the RAS grid."""
        return _numbers(np.any(to_slices(self.known, self.numbering.axis), axis=(1, 2)))

    @property
    def values(self) -> tuple[int, ...]:
        """The known label values, without 0."""
        return tuple(int(value) for value in np.unique(self.volume.array) if value not in (0, self.unknown_value))

    def with_values(self, values: Collection[int]) -> tuple[int, ...]:
        """Slices with one of these label values."""
        shown = np.isin(self.volume.array, tuple(values))
        return _numbers(np.any(to_slices(shown, self.numbering.axis), axis=(1, 2)))


def read_sparse_label(
    path: Path,
    image_path: Path,
    image: NativeImage,
    unknown_value: int = UNKNOWN_VALUE,
    axis: AxisName | None = None,
    drawn: Sequence[int] | None = None,
) -> SparseLabel:
    """Read a label on the grid of an image, in which `unknown_value` marks voxels that nobody has labelled.

    `drawn` lists the slices, numbered from 0 in the label's own array along `axis`, that are drawn completely: what is
    not drawn in them is background, and all other slices are unknown, whatever the file holds there. Without `axis`, it
    is the one along which the fewest slices are labelled.
    Raises InputError for another grid, for a label without unknown or without known voxels, for slices that do not
    exist or were not drawn, and where the axis is not clear.
    """
    volume = read_label(path, image.affine)
    grids = (image.shape, volume.array.shape), (image.affine, volume.affine)
    check_same_grid(*grids, GRID_TOLERANCE_MM, (str(image_path), str(path)))
    check_unknown_value(unknown_value)
    if drawn is not None:
        if axis is None:
            raise InputError("a list of drawn slices needs their axis: sagittal, coronal or axial")
        numbering = _numbering(volume, axis)
        array = _completed(volume.array, numbering, drawn, unknown_value, path)
        label = SparseLabel(path, replace(volume, array=array), unknown_value, numbering, was_completed=True)
    else:
        _check_partly_known(volume.array, unknown_value, path)
        chosen = axis or _labelled_axis(volume.array != unknown_value, path)
        label = SparseLabel(path, volume, unknown_value, _numbering(volume, chosen), was_completed=False)
    return label


def check_unknown_value(value: int) -> None:
    """Raise InputError for a label value that cannot mark unknown voxels."""
    if value == 0:
        raise InputError("0 is the background and cannot mark unknown voxels; choose another value, such as 255 or -1")
    if abs(value) > np.iinfo(np.int32).max:
        raise InputError(f"{value} cannot mark unknown voxels: label values must be below 2^31; choose 255 or -1")


def _numbering(volume: Volume, axis: AxisName) -> SliceNumbering:
    i, j, k = volume.array.shape
    return number_slices((i, j, k), volume.affine, volume.file_affine, axis)


def _completed(
    array: LabelVolume, numbering: SliceNumbering, drawn: Sequence[int], unknown_value: int, path: Path
) -> LabelVolume:
    """Only the drawn slices, in which nothing is unknown."""
    if not drawn:
        raise InputError("the list of drawn slices is empty; name at least one, such as 12")
    if wrong := [number for number in drawn if not 0 <= number < numbering.n_slices]:
        raise InputError(
            f"{path} has no {numbering.axis} slice {shortened(wrong, 6)}: they are numbered from 0 to "
            f"{numbering.n_slices - 1}"
        )
    completed = np.full_like(array, unknown_value)
    source, target = to_slices(array, numbering.axis), to_slices(completed, numbering.axis)
    for number in sorted(set(drawn)):
        plane = source[numbering.file_index(number)]
        if (plane == unknown_value).all():
            raise InputError(
                f"{path}: {numbering.axis} slice {number} was not drawn, all of it is {unknown_value}; draw it, or "
                "leave it out of the list (if the organ is not on it, fill it with 0)"
            )
        target[numbering.file_index(number)] = np.where(plane == unknown_value, 0, plane)
    if not (completed == 0).any():
        raise InputError(
            f"{path}: no voxel of the drawn slices is 0 or {unknown_value}, so nothing in them is background; if "
            "another value marks voxels that nobody has labelled, give it with --ignore-value"
        )
    return completed


def _check_partly_known(array: LabelVolume, unknown_value: int, path: Path) -> None:
    known = array != unknown_value
    if known.all():
        raise InputError(
            f"{path} does not contain {unknown_value}, which marks voxels that nobody has labelled, so nothing is left "
            "to fill. If only some of its slices were drawn, list these with their axis: --axis coronal --drawn "
            "12,30,48; if another value marks the unknown voxels, give --ignore-value"
        )
    if not known.any():
        raise InputError(f"{path}: every voxel is {unknown_value}, so no slice is labelled yet; draw some first")
    if not (array == 0).any():
        raise InputError(
            f"{path}: no voxel is 0, so nothing is known to be background. If the drawn slices are complete, list them "
            "with their axis: --axis coronal --drawn 12,30,48; what is not drawn in them is background then"
        )


def _labelled_axis(known: MaskVolume, path: Path) -> AxisName:
    """The axis along which the smallest fraction of slices is labelled."""
    fractions = {axis: float(to_slices(known, axis).any(axis=(1, 2)).mean()) for axis in AXES}
    least = min(fractions.values())
    candidates = [axis for axis in AXES if fractions[axis] == least]
    if len(candidates) > 1:
        raise InputError(
            f"{path}: it is not clear along which axis slices were labelled ({', '.join(candidates)}); give --axis"
        )
    return candidates[0]


def _numbers(flags: Bool[np.ndarray, " n"]) -> tuple[int, ...]:
    return tuple(int(number) for number in np.flatnonzero(flags))
