"""What a label map holds: values, volumes, extents and components."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Integer
from scipy import ndimage

from spleen.imaging.nifti import Volume
from spleen.imaging.postprocessing import components
from spleen.types import LabelVolume, MaskVolume

# Lower and upper end of each axis of a RAS grid.
_ENDS = (("left", "right"), ("posterior", "anterior"), ("inferior", "superior"))

_IN_PLANE = ((1, 2), (0, 2), (0, 1))
"""The array axes of sagittal, coronal and axial slices."""


@dataclass(frozen=True)
class Extent:
    """Slices along one anatomical axis: the first and last that hold a value, and how many do."""

    first: int
    last: int
    n_slices: int


@dataclass(frozen=True)
class ValueFacts:
    """One value of a label map."""

    value: int
    n_voxels: int
    volume_mm3: float
    extents: tuple[Extent, Extent, Extent]
    """Along sagittal, coronal and axial slices, numbered from left, posterior and inferior, from 0."""
    n_components: int
    """Connected components (26 neighbours)."""
    largest_component_fraction: float
    """Fraction of the voxels in the largest component."""
    touches: tuple[str, ...]
    """Faces of the volume that it reaches, such as "superior"."""
    name: str | None = None
    """Name of its class, where the dataset defines one."""

    @property
    def title(self) -> str:
        """What tables and pictures call it: "label 1", or "label 1 (spleen)"."""
        return f"label {self.value}" + (f" ({self.name})" if self.name else "")


@dataclass(frozen=True)
class LabelFacts:
    """One label map on its RAS grid."""

    values: tuple[ValueFacts, ...]
    """Every value but 0, in rising order."""
    organ_per_slice: tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]
    """Voxels of the organ in every sagittal, coronal and axial slice."""
    voxel_mm3: float
    unlabelled_slices: tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]] = ((), (), ())
    """Sagittal, coronal and axial slices of which nobody has labelled a voxel."""

    @property
    def organ_voxels(self) -> int:
        """Voxels of the organ."""
        return sum(self.organ_per_slice[0])


def organ_mask(label: LabelVolume, organ: Sequence[int]) -> MaskVolume:
    """Where the organ is: the given values, or every value but 0 if none is given."""
    mask: MaskVolume = np.isin(label, organ) if organ else label != 0
    return mask


def label_facts(
    label: Volume, organ: Sequence[int], names: Mapping[int, str], ignored: MaskVolume | None = None
) -> LabelFacts:
    """Facts of a label map.

    `organ` are the values that make up the organ, by default all but 0; `names` are those of label values; `ignored`
    are the voxels that nobody has labelled.
    """
    voxel_mm3 = label.voxel_volume_mm3
    sagittal, coronal, axial = _per_slice(organ_mask(label.array, organ))
    values = tuple(replace(facts, name=names.get(facts.value)) for facts in _values(label.array, voxel_mm3))
    facts = LabelFacts(values, (sagittal, coronal, axial), voxel_mm3)
    if ignored is None:
        return facts
    sagittal, coronal, axial = (tuple(np.flatnonzero(ignored.all(axis=axes)).tolist()) for axes in _IN_PLANE)
    return replace(facts, unlabelled_slices=(sagittal, coronal, axial))


def _per_slice(mask: MaskVolume) -> list[tuple[int, ...]]:
    return [tuple(int(n) for n in np.count_nonzero(mask, axis=axes)) for axes in _IN_PLANE]


def _values(label: LabelVolume, voxel_mm3: float) -> tuple[ValueFacts, ...]:
    window = _window(label != 0)
    if window is None:
        return ()
    values, numbered = _numbered(label[window])
    places = ndimage.find_objects(numbered)
    facts = []
    for number, (value, place) in enumerate(zip(values.tolist(), places, strict=True), start=1):
        if value != 0:
            offset = [axis.start + inner.start for axis, inner in zip(window, place, strict=True)]
            facts.append(_value(value, numbered[place] == number, offset, label.shape, voxel_mm3))
    return tuple(facts)


def _numbered(label: LabelVolume) -> tuple[Integer[np.ndarray, " values"], Integer[np.ndarray, "i j k"]]:
    """The sorted values, and the label with 1, 2, … in their place: 2,000,000 must not cost a list of that length.

    Plane by plane, because NumPy's unique needs 28 bytes per voxel.
    """
    values = np.unique(np.concatenate([np.unique(plane) for plane in label]))
    numbered = np.empty(label.shape, np.min_scalar_type(len(values)) if len(values) < 2**16 else np.int32)
    for plane, numbers in zip(label, numbered, strict=True):
        numbers[...] = np.searchsorted(values, plane) + 1
    return values, numbered


def _window(mask: MaskVolume) -> tuple[slice, slice, slice] | None:
    """The box around a mask."""
    boxes = ndimage.find_objects(mask.view(np.uint8))
    return boxes[0] if boxes else None


def _value(
    value: int, mask: Bool[np.ndarray, "i j k"], offset: Sequence[int], shape: tuple[int, ...], voxel_mm3: float
) -> ValueFacts:
    """Facts of one value from the box around it, which begins at `offset` of the volume."""
    sizes = components(mask)
    sagittal, coronal, axial = (
        Extent(start, start + len(counts) - 1, sum(count > 0 for count in counts))
        for start, counts in zip(offset, _per_slice(mask), strict=True)
    )
    extents = (sagittal, coronal, axial)
    touches = [
        name
        for extent, size, (low, high) in zip(extents, shape, _ENDS, strict=True)
        for name, touched in ((low, extent.first == 0), (high, extent.last == size - 1))
        if touched
    ]
    n_voxels = sum(sizes)
    return ValueFacts(
        value=int(value),
        n_voxels=n_voxels,
        volume_mm3=n_voxels * voxel_mm3,
        extents=extents,
        n_components=len(sizes),
        largest_component_fraction=sizes[0] / n_voxels,
        touches=tuple(touches),
    )


def organ_diameter_mm(facts: LabelFacts, axis_index: int, pixel_mm2: float) -> float:
    """Diameter of the circle that has the organ's median area on the slices (of one axis) that show it."""
    areas = [count * pixel_mm2 for count in facts.organ_per_slice[axis_index] if count]
    return 2 * math.sqrt(float(np.median(areas)) / math.pi) if areas else 0.0


def middle_slice(counts: Sequence[int]) -> int:
    """The slice with most of the organ, or the middle of the volume where there is none."""
    return int(np.argmax(counts)) if any(counts) else len(counts) // 2
