"""Where prediction and reference differ most."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import UInt8

from spleen.imaging.geometry import voxel_volume_mm3
from spleen.imaging.slicing import AXES
from spleen.types import Affine, AxisName


@dataclass(frozen=True)
class WorstSlice:
    """The slice of an axis with the most wrong voxels."""

    axis: AxisName
    index: int
    voxel: tuple[int, int, int]
    """A wrong voxel of the slice, that nearest to the middle of all of them."""
    n_wrong: int
    volume_ml: float
    """Of the wrong voxels of this slice."""


def worst_slices(
    prediction: UInt8[np.ndarray, "i j k"], reference: UInt8[np.ndarray, "i j k"], affine: Affine
) -> tuple[WorstSlice, ...]:
    """The sagittal, coronal and axial slice of largest error; none where both masks are the same."""
    wrong = np.stack(np.unravel_index(np.flatnonzero(prediction != reference), reference.shape), axis=1)
    worst: list[WorstSlice] = []
    for number, axis in enumerate(AXES):
        if not len(wrong):
            break
        index = int(np.bincount(wrong[:, number]).argmax())
        here = wrong[wrong[:, number] == index]
        i, j, k = (int(each) for each in here[np.abs(here - here.mean(axis=0)).sum(axis=1).argmin()])
        worst.append(WorstSlice(axis, index, (i, j, k), len(here), len(here) * voxel_volume_mm3(affine) / 1000))
    return tuple(worst)
