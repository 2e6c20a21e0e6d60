"""Postprocessing of predicted label maps: remove small components, keep only the largest, fill holes.

Components are 26-connected (face, edge or corner). Their complement is 6-connected (faces only), so that a wall whose
voxels touch only at corners is closed. Each class is processed inside its bounding box: the cost depends on the size of
the organ, not of the volume.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int64, Integer, Shaped, UInt8
from scipy import ndimage

from spleen.errors import InputError
from spleen.imaging.classes import ClassMap, Regions, in_class
from spleen.types import MaskVolume

_CORNERS_JOIN, _FACES_JOIN = (ndimage.generate_binary_structure(3, neighbours) for neighbours in (3, 1))
# Spacing is stored as float32, so 3 voxels of 0.8 × 0.8 × 5 mm may be slightly less than 9.6 mm³.
_ROUNDING = 1e-6
# NumPy's bincount and indexing need 8 bytes per voxel; processing this many voxels at a time limits that.
_VOXELS_AT_ONCE = 2**23

_Box = tuple[slice, slice, slice]


@dataclass(frozen=True)
class PostprocessSettings:
    """Postprocessing steps; the defaults change nothing. Raises InputError for values out of range."""

    keep_largest: tuple[int, ...] = ()
    """Class indices of which only the largest component is kept."""
    fill_holes: bool = False
    min_volume_mm3: float = 0.0
    """Components smaller than this are removed."""
    regions: Regions | None = None
    """How the classes overlap, if they do."""

    def __post_init__(self) -> None:
        if not 0 <= self.min_volume_mm3 < math.inf:
            raise InputError(f"min_volume_mm3 must be at least 0 mm³ and finite; got {self.min_volume_mm3:g}")
        if any(index < 1 for index in self.keep_largest):
            raise InputError(f"keep_largest takes class indices, which start at 1; got {list(self.keep_largest)}")


def check_removable(classes: ClassMap, numbers: Iterable[int]) -> None:
    """Raise InputError if voxels that leave one of these classes, from 1, would be of classes without a common value.

    This can only be where classes overlap in part and their intersection is a class too.
    """
    if (regions := classes.regions) is None:
        return
    for number in numbers:
        for left in regions.remaining(number):
            if regions.index_of(left) is None:
                others = " and ".join(classes.names[other - 1] for other in sorted(left))
                raise InputError(
                    f"keep-largest and min-volume-mm3: voxels taken out of '{classes.names[number - 1]}' would be of "
                    f"{others}, and no value of a mask means these alone; use keep-largest for "
                    "other classes only"
                )


def postprocess(
    mask: UInt8[np.ndarray, "i j k"], voxel_volume_mm3: float, settings: PostprocessSettings
) -> UInt8[np.ndarray, "i j k"]:
    """A cleaned copy of a label map: small components removed, then all but the largest, then holes filled.

    Removed voxels become background. Of equally large components, the one whose bounding box starts first along i, then
    j, then k is kept.
    A hole is a region fully enclosed by one class. Its background voxels become that class, and other classes in it are
    unchanged; a voxel enclosed by several classes goes to the innermost one. A region that reaches the border of the
    volume is not a hole, because what is beyond the border is unknown.
    Of overlapping classes, components and holes are those of all voxels of a class, and outer classes come before those
    inside: what leaves a class leaves the ones inside it too, and stays in the ones around it.
    """
    cleaned, regions = mask.copy(order="K"), settings.regions
    min_voxels = math.ceil(settings.min_volume_mm3 / voxel_volume_mm3 * (1 - _ROUNDING))
    for class_index, box in _class_boxes(mask, regions):
        only_largest = class_index in settings.keep_largest
        if only_largest or min_voxels > 1:
            _drop_components(cleaned[box], class_index, min_voxels, only_largest, regions)
    if settings.fill_holes:
        _fill_holes(cleaned, regions)
    return cleaned


def components(mask: MaskVolume) -> list[int]:
    """Voxel counts of the connected components (26-connected), largest first; empty for an empty mask."""
    box = _bounding_boxes(mask.view(np.uint8)).get(1)
    if box is None:
        return []
    counts = _voxel_counts(*_label(mask[box], _CORNERS_JOIN))
    return sorted(counts[1:].tolist(), reverse=True)


def without_specks(mask: MaskVolume, fraction: float) -> MaskVolume:
    """A mask without the components that are smaller than this fraction of the largest one."""
    box = _bounding_boxes(mask.view(np.uint8)).get(1)
    if box is None:
        return mask
    regions, n_regions = _label(mask[box], _CORNERS_JOIN)
    counts = _voxel_counts(regions, n_regions)
    keep = counts >= fraction * counts[1:].max()
    keep[0] = False
    kept = np.zeros_like(mask)
    kept[box] = keep[regions]
    return kept


def _class_boxes(labels: UInt8[np.ndarray, "i j k"], regions: Regions | None) -> list[tuple[int, _Box]]:
    """The classes in a label map, outer ones before those inside, each with a box around its voxels."""
    boxes = _bounding_boxes(labels)
    if regions is None:
        return list(boxes.items())
    found = {
        number: [boxes[index] for index in regions.indices(number) if index in boxes]
        for number in regions.outermost_first()
    }
    return [(number, _around(parts)) for number, parts in found.items() if parts]


def _around(boxes: Sequence[_Box]) -> _Box:
    i, j, k = (
        slice(min(side.start for side in sides), max(side.stop for side in sides)) for sides in zip(*boxes, strict=True)
    )
    return i, j, k


def _drop_components(
    labels: UInt8[np.ndarray, "i j k"], class_index: int, min_voxels: int, only_largest: bool, regions: Regions | None
) -> None:
    """Take components out of one class, in place."""
    found, n_found = _label(in_class(labels, class_index, regions), _CORNERS_JOIN)
    if not n_found:
        return  # gone with the class around it
    counts = _voxel_counts(found, n_found)
    keep = counts >= min_voxels
    if only_largest:
        keep &= np.arange(n_found + 1) == _largest(found, counts)
    keep[0] = True  # everything that is not of this class
    after = _after_leaving(class_index, regions)
    for planes, component in _in_parts(labels, found):
        dropped = ~keep[component]
        planes[dropped] = after[planes[dropped]]


def _after_leaving(class_index: int, regions: Regions | None) -> UInt8[np.ndarray, " indices"]:
    """What each index becomes where a voxel leaves the class: background, or the class around it."""
    if regions is None:
        return np.zeros(1 + class_index, np.uint8)
    left = [regions.index_of(classes) for classes in regions.remaining(class_index)]
    assert None not in left  # by `check_removable`
    return np.array(left, np.uint8)


def _largest(regions: Integer[np.ndarray, "i j k"], counts: Int64[np.ndarray, " regions"]) -> int:
    """Number of the largest region."""
    largest = np.flatnonzero(counts[1:] == counts[1:].max()) + 1
    if len(largest) == 1:
        return int(largest[0])
    boxes = _bounding_boxes(regions)
    return min(largest.tolist(), key=lambda region: [side.start for side in boxes[region]])


@dataclass(frozen=True)
class _Hole:
    """A region enclosed by one class."""

    n_voxels: int
    class_index: int
    box: _Box
    inside: Bool[np.ndarray, "i j k"]


def _fill_holes(labels: UInt8[np.ndarray, "i j k"], regions: Regions | None) -> None:
    """Fill the holes of every class, in place.

    Holes that share a voxel are nested, so filling them in order of size fills the innermost first. Where overlapping
    classes have the same hole, it is filled as the inner one.
    """
    inner_first = reversed(_class_boxes(labels, regions))
    holes = [hole for class_index, box in inner_first for hole in _holes(labels, class_index, box, regions)]
    for hole in sorted(holes, key=lambda hole: hole.n_voxels):
        part = labels[hole.box]
        part[hole.inside & (part == 0)] = hole.class_index


def _holes(labels: UInt8[np.ndarray, "i j k"], class_index: int, box: _Box, regions: Regions | None) -> Iterator[_Hole]:
    """The holes of one class. The class does not extend beyond its box, so what reaches a face is open."""
    found, n_found = _label(~in_class(labels[box], class_index, regions), _FACES_JOIN)
    is_open = np.zeros(n_found + 1, dtype=bool)
    for axis in range(3):
        for end in (0, -1):
            is_open[found.take(end, axis)] = True
    counts = _voxel_counts(found, n_found)
    for number, part in _bounding_boxes(found).items():
        if not is_open[number]:
            yield _Hole(int(counts[number]), class_index, _inside(box, part), found[part] == number)


def _inside(box: _Box, part: _Box) -> _Box:
    """A box relative to another box, in volume indices."""
    i, j, k = (
        slice(outer.start + inner.start, outer.start + inner.stop) for outer, inner in zip(box, part, strict=True)
    )
    return i, j, k


def _memory_order(array: Shaped[np.ndarray, "i j k"]) -> list[int]:
    """The axes from the longest stride to the shortest; in this order SciPy is four times as fast."""
    return sorted(range(3), key=lambda axis: -abs(array.strides[axis]))


def _bounding_boxes(labels: Integer[np.ndarray, "i j k"]) -> dict[int, _Box]:
    """The bounding box of every value above 0."""
    order = _memory_order(labels)
    back = np.argsort(order)
    found = enumerate(ndimage.find_objects(labels.transpose(order)), start=1)
    return {value: (box[back[0]], box[back[1]], box[back[2]]) for value, box in found if box is not None}


def _label(solid: MaskVolume, neighbours: Bool[np.ndarray, "3 3 3"]) -> tuple[Integer[np.ndarray, "i j k"], int]:
    """Label the connected regions of `solid` from 1; returns the labels and the number of regions.

    The labels take 2 bytes per voxel, or 4 where there are more regions than that can number.
    """
    order = _memory_order(solid)
    try:
        regions, n_regions = ndimage.label(solid.transpose(order), neighbours, output=np.uint16)
    except RuntimeError:  # too few bits
        regions, n_regions = ndimage.label(solid.transpose(order), neighbours, output=np.int32)
    return regions.transpose(np.argsort(order)), n_regions


def _voxel_counts(regions: Integer[np.ndarray, "i j k"], n_regions: int) -> Int64[np.ndarray, " regions"]:
    """Voxel count of each region, including label 0."""
    counts = np.zeros(n_regions + 1, dtype=np.int64)
    for (part,) in _in_parts(regions):
        counts += np.bincount(part.ravel(order="K"), minlength=n_regions + 1)
    return counts


def _in_parts(*arrays: Shaped[np.ndarray, "i j k"]) -> Iterator[tuple[Shaped[np.ndarray, "part j k"], ...]]:
    """Arrays of the same shape, cut along i into chunks of bounded size."""
    n_planes, *plane = arrays[0].shape
    step = max(1, _VOXELS_AT_ONCE // math.prod(plane))
    for start in range(0, n_planes, step):
        yield tuple(array[start : start + step] for array in arrays)
