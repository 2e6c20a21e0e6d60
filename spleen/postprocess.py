"""Cleaning of predicted label maps: small components, all but the largest component, holes.

Voxels of one class belong to one component if they share a face, an edge or a corner (26 neighbours). The voxels around
them are joined through faces alone (6 neighbours), so that a wall whose voxels touch at corners is closed.
Each class is worked on inside its bounding box: the cost follows the size of the organ, not that of the volume.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int32, Int64, Integer, Shaped, UInt8
from scipy import ndimage

from spleen.errors import InputError
from spleen.types import MaskVolume

_CORNERS_JOIN, _FACES_JOIN = (ndimage.generate_binary_structure(3, neighbours) for neighbours in (3, 1))
# Spacing is stored as float32, so 3 voxels of 0.8 × 0.8 × 5 mm may come out a little below 9.6 mm³.
_ROUNDING = 1e-6
# NumPy counts and looks up with 8 bytes per voxel; this many voxels at a time bound that.
_VOXELS_AT_ONCE = 2**23

_Box = tuple[slice, slice, slice]


@dataclass(frozen=True)
class PostprocessSettings:
    """What to clean; the defaults leave a label map as it is. Raises InputError for values out of range."""

    keep_largest: tuple[int, ...] = ()
    """Class indices of which only the largest component stays."""
    fill_holes: bool = False
    min_volume_mm3: float = 0.0
    """Components smaller than this are dropped."""

    def __post_init__(self) -> None:
        if not 0 <= self.min_volume_mm3 < math.inf:
            raise InputError(f"min_volume_mm3 must be a volume of 0 mm³ or more; got {self.min_volume_mm3:g}")
        if any(index < 1 for index in self.keep_largest):
            raise InputError(f"keep_largest holds class indices, which start at 1; got {list(self.keep_largest)}")


def postprocess(
    mask: UInt8[np.ndarray, "i j k"], voxel_volume_mm3: float, settings: PostprocessSettings
) -> UInt8[np.ndarray, "i j k"]:
    """A cleaned copy of a map of class indices: small components dropped, then all but the largest, then holes filled.

    Dropped voxels become background. Of equally large components, the one whose bounding box begins first along i, then
    j, then k stays.
    A hole is what one class encloses on all sides. Its background voxels become that class, and other classes in it
    stay as they are; where several classes enclose a voxel, the innermost one gets it. What is open towards the border
    of the volume is no hole: nobody knows what lies beyond.
    """
    cleaned = mask.copy(order="K")
    fewest_voxels = math.ceil(settings.min_volume_mm3 / voxel_volume_mm3 * (1 - _ROUNDING))
    for class_index, box in _bounding_boxes(mask).items():
        only_largest = class_index in settings.keep_largest
        if only_largest or fewest_voxels > 1:
            _drop_components(cleaned[box], class_index, fewest_voxels, only_largest)
    if settings.fill_holes:
        _fill_holes(cleaned)
    return cleaned


def components(mask: MaskVolume) -> list[int]:
    """Voxel counts of the connected components (26 neighbours), the largest first; empty for an empty mask."""
    box = _bounding_boxes(mask.view(np.uint8)).get(1)
    if box is None:
        return []
    counts = _voxel_counts(*_label(mask[box], _CORNERS_JOIN))
    return sorted(counts[1:].tolist(), reverse=True)


def _drop_components(
    labels: UInt8[np.ndarray, "i j k"], class_index: int, fewest_voxels: int, only_largest: bool
) -> None:
    """Set components of one class to background, in place."""
    regions, n_regions = _label(labels == class_index, _CORNERS_JOIN)
    counts = _voxel_counts(regions, n_regions)
    stays = counts >= fewest_voxels
    if only_largest:
        stays &= np.arange(n_regions + 1) == _largest(regions, counts)
    stays[0] = True  # everything that is not of this class
    for planes, of_region in _in_parts(labels, regions):
        planes[~stays[of_region]] = 0


def _largest(regions: Int32[np.ndarray, "i j k"], counts: Int64[np.ndarray, " regions"]) -> int:
    """Number of the largest region."""
    largest = np.flatnonzero(counts[1:] == counts[1:].max()) + 1
    if len(largest) == 1:
        return int(largest[0])
    boxes = _bounding_boxes(regions)
    return min(largest.tolist(), key=lambda region: [side.start for side in boxes[region]])


@dataclass(frozen=True)
class _Hole:
    """A piece of the volume that one class encloses."""

    n_voxels: int
    class_index: int
    box: _Box
    inside: Bool[np.ndarray, "i j k"]


def _fill_holes(labels: UInt8[np.ndarray, "i j k"]) -> None:
    """Fill the holes of every class, in place.

    Of two holes that share a voxel one lies inside the other, so in order of their size the innermost is filled first.
    """
    holes = [hole for class_index, box in _bounding_boxes(labels).items() for hole in _holes(labels, class_index, box)]
    for hole in sorted(holes, key=lambda hole: hole.n_voxels):
        part = labels[hole.box]
        part[hole.inside & (part == 0)] = hole.class_index


def _holes(labels: UInt8[np.ndarray, "i j k"], class_index: int, box: _Box) -> Iterator[_Hole]:
    """The holes of one class. Around its bounding box there is nothing of it, so what reaches a face is open."""
    regions, n_regions = _label(labels[box] != class_index, _FACES_JOIN)
    opened = np.zeros(n_regions + 1, dtype=bool)
    for axis in range(3):
        for end in (0, -1):
            opened[regions.take(end, axis)] = True
    counts = _voxel_counts(regions, n_regions)
    for region, part in _bounding_boxes(regions).items():
        if not opened[region]:
            yield _Hole(int(counts[region]), class_index, _inside(box, part), regions[part] == region)


def _inside(box: _Box, part: _Box) -> _Box:
    """A box given within another one, in the indices of the volume."""
    i, j, k = (
        slice(outer.start + inner.start, outer.start + inner.stop) for outer, inner in zip(box, part, strict=True)
    )
    return i, j, k


def _memory_order(array: Shaped[np.ndarray, "i j k"]) -> list[int]:
    """The axes from the longest stride to the shortest; SciPy walks them in this order four times as fast."""
    return sorted(range(3), key=lambda axis: -abs(array.strides[axis]))


def _bounding_boxes(labels: Integer[np.ndarray, "i j k"]) -> dict[int, _Box]:
    """The bounding box of every value above 0 that is there."""
    order = _memory_order(labels)
    back = np.argsort(order)
    found = enumerate(ndimage.find_objects(labels.transpose(order)), start=1)
    return {value: (box[back[0]], box[back[1]], box[back[2]]) for value, box in found if box is not None}


def _label(solid: MaskVolume, neighbours: Bool[np.ndarray, "3 3 3"]) -> tuple[Int32[np.ndarray, "i j k"], int]:
    """Number the connected regions of `solid` from 1 on; returns the numbers and how many there are."""
    order = _memory_order(solid)
    regions, n_regions = ndimage.label(solid.transpose(order), neighbours)
    return regions.transpose(np.argsort(order)), n_regions


def _voxel_counts(regions: Int32[np.ndarray, "i j k"], n_regions: int) -> Int64[np.ndarray, " regions"]:
    """Voxels of each region, number 0 included."""
    counts = np.zeros(n_regions + 1, dtype=np.int64)
    for (part,) in _in_parts(regions):
        counts += np.bincount(part.ravel(order="K"), minlength=n_regions + 1)
    return counts


def _in_parts(*arrays: Shaped[np.ndarray, "i j k"]) -> Iterator[tuple[Shaped[np.ndarray, "part j k"], ...]]:
    """Arrays of one shape, cut together along i into parts of bounded size."""
    n_planes, *plane = arrays[0].shape
    step = max(1, _VOXELS_AT_ONCE // math.prod(plane))
    for start in range(0, n_planes, step):
        yield tuple(array[start : start + step] for array in arrays)
