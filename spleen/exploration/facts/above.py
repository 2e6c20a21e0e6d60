"""Voxels above a value: how many there are, and where the largest component and the highest of them lie."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64, Integer, Num
from scipy import ndimage

from spleen.imaging.nifti import Volume

_MOST_VOXELS = 5
_CHUNK = 1 << 22  # voxels counted at once
_CORNERS_TOUCH = np.ones((3, 3, 3), dtype=bool)  # 26 neighbours


@dataclass(frozen=True)
class VoxelPlace:
    """One voxel and where it lies."""

    value: float
    voxel: tuple[int, int, int]
    """Indices along the array axes of the file, from 0."""
    position_mm: tuple[float, float, float]
    """To the patient's right, anterior and superior, as the affine has it: NIfTI's world coordinates."""


@dataclass(frozen=True)
class ComponentPlace:
    """The largest connected component (26 neighbours)."""

    n_voxels: int
    first: tuple[int, int, int]
    """Lowest indices along the array axes of the file."""
    last: tuple[int, int, int]
    centre_mm: tuple[float, float, float]
    """Mean position of its voxels to the right, anterior and superior."""


@dataclass(frozen=True)
class AboveFacts:
    """The finite voxels above a value."""

    above: float
    n_voxels: int
    n_components: int
    largest: ComponentPlace | None
    """None where there is no such voxel."""
    highest: tuple[VoxelPlace, ...]
    """At most five, from the highest down."""


def above_facts(image: Volume, above: float) -> AboveFacts:
    """Find the finite voxels above a value."""
    with np.errstate(over="ignore"):  # above the largest float there is nothing
        mask = (image.array > np.float32(above)) & (image.array < np.inf)
    boxes = ndimage.find_objects(mask.view(np.uint8))
    if not boxes:
        return AboveFacts(above, 0, 0, None, ())
    (window,) = boxes
    start = np.array([axis.start for axis in window])
    inside = mask[window]
    labels, n_components = ndimage.label(inside, _CORNERS_TOUCH)
    sizes = _sizes(labels, n_components)
    largest = _component(labels == 1 + int(np.argmax(sizes)), start, image)
    del labels
    return AboveFacts(above, int(sizes.sum()), int(n_components), largest, _highest(inside, start, image))


def _sizes(labels: Integer[np.ndarray, "i j k"], n_components: int) -> Integer[np.ndarray, " n"]:
    """Voxels of each component; a part of the volume at a time, because NumPy counts in 64 bits."""
    flat = labels.reshape(-1)
    parts = (flat[start : start + _CHUNK] for start in range(0, len(flat), _CHUNK))
    counts = np.zeros(n_components + 1, dtype=np.int64)
    for part in parts:
        counts += np.bincount(part, minlength=n_components + 1)
    return counts[1:]


def _component(mask: Bool[np.ndarray, "i j k"], start: Integer[np.ndarray, "3"], image: Volume) -> ComponentPlace:
    """Facts of a component from its mask, which begins at `start` of the volume."""
    counts = [np.count_nonzero(mask, axis=others) for others in ((1, 2), (0, 2), (0, 1))]
    n_voxels = int(counts[0].sum())
    ends = np.array([np.flatnonzero(count)[[0, -1]] for count in counts]).T + start
    corners = _file_indices(ends, image)
    middle = np.array([np.arange(len(count)) @ count / n_voxels for count in counts]) + start
    return ComponentPlace(
        n_voxels, _triple(corners.min(axis=0)), _triple(corners.max(axis=0)), _position(middle, image)
    )


def _highest(
    inside: Bool[np.ndarray, "i j k"], start: Integer[np.ndarray, "3"], image: Volume
) -> tuple[VoxelPlace, ...]:
    box = tuple(slice(first, first + size) for first, size in zip(start, inside.shape, strict=True))
    array = image.array[box]
    values = array[inside]
    # The fifth highest value first: to sort all of them would cost far more.
    lowest = np.partition(values, -_MOST_VOXELS)[-_MOST_VOXELS] if len(values) > _MOST_VOXELS else values.min()
    indices = np.argwhere(inside & (array >= lowest))
    values = array[tuple(indices.T)]
    order = np.argsort(-values, kind="stable")[:_MOST_VOXELS]
    indices = indices[order] + start
    return tuple(
        VoxelPlace(float(value), _triple(voxel), _position(index, image))
        for value, voxel, index in zip(values[order], _file_indices(indices, image), indices, strict=True)
    )


def _position(indices: Num[np.ndarray, "3"], image: Volume) -> tuple[float, float, float]:
    """World position in mm of a place on the RAS grid."""
    right, anterior, superior = (round(float(mm), 3) for mm in image.affine[:3, :3] @ indices + image.affine[:3, 3])
    return right, anterior, superior


def _file_indices(indices: Num[np.ndarray, "n 3"], image: Volume) -> Float64[np.ndarray, "n 3"]:
    """Places on the RAS grid as indices of the file's own array."""
    to_file = np.linalg.inv(image.file_affine) @ image.affine
    rounded: Float64[np.ndarray, "n 3"] = np.rint(indices @ to_file[:3, :3].T + to_file[:3, 3])
    return rounded


def _triple(values: Num[np.ndarray, "3"]) -> tuple[int, int, int]:
    i, j, k = (int(value) for value in values)
    return i, j, k
