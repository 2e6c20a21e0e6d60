"""From the values in a label file to the classes of the model."""

import logging
from collections.abc import Iterator

import numpy as np
from jaxtyping import UInt8

from spleen.errors import InputError
from spleen.imaging.classes import ClassMap
from spleen.system.text import shortened
from spleen.types import LabelVolume

log = logging.getLogger(__name__)

IGNORED = 255
"""The class index of voxels that are neither trained on nor scored, in a label map of type uint8."""


def resolve(
    label: LabelVolume, classes: ClassMap, allow_empty_label: bool = False, ignore_value: int | None = None
) -> ClassMap:
    """The classes with their label values in this file: an empty tuple becomes the file's single non-zero value.

    `ignore_value` marks voxels of unknown class. Raises InputError if it marks all of them, if it is ambiguous which
    value is the organ; and, unless `allow_empty_label`, if the label is empty or contains none of the classes' values.
    """
    if ignore_value is not None and (label == ignore_value).all():
        raise InputError(f"every voxel of the label is {ignore_value} (data.ignore_value), so nothing is labelled")
    if allow_empty_label and () not in classes.values:
        return classes
    present = [int(value) for value in np.unique(label) if value not in (0, ignore_value)]
    if not present and allow_empty_label:
        raise InputError(
            "the label is empty, so the label value of the organ is unknown; set data.label_values, "
            "for example data.label_values=[1]"
        )
    if not present:
        raise InputError("the label is empty: every voxel is 0, so there is no organ to learn")
    if () in classes.values and len(present) > 1:
        raise InputError(
            f"the label contains the values {shortened(present, 12)}, so it is unclear which one is the organ. "
            f"Set data.label_values, for example data.label_values=[{present[0]}]"
        )
    resolved = ClassMap(classes.names, tuple(values or tuple(present) for values in classes.values))
    requested = [value for values in resolved.values for value in values]
    if not set(requested) & set(present):
        raise InputError(
            f"the label has no voxels with {shortened(requested, 12)} (data.label_values); "
            f"it contains {shortened(present, 12)}"
        )
    for name, values in zip(resolved.names, resolved.values, strict=True):
        if not set(values) & set(present):
            log.warning("no voxel of the label belongs to the class '%s' (values %s)", name, list(values))
    return resolved


def to_class_indices(
    label: LabelVolume, classes: ClassMap, ignore_value: int | None = None
) -> UInt8[np.ndarray, "i j k"]:
    """Map label values to class indices: 0 background, then 1, 2, … in the order of the resolved `classes`.

    Of overlapping classes they are those of `Regions`. `ignore_value` becomes `IGNORED`.
    """
    indices = np.zeros(label.shape, dtype=np.uint8)
    if ignore_value is not None:
        indices[label == ignore_value] = IGNORED
    for index, values in _values_of_index(classes):
        indices[np.isin(label, values)] = index
    return indices


def _values_of_index(classes: ClassMap) -> Iterator[tuple[int, tuple[int, ...]]]:
    if classes.regions is None:
        yield from enumerate(classes.values, start=1)
        return
    first_of = {members: index for index, members in reversed([*enumerate(classes.regions.of_index, start=1)])}
    on_top = [values[0] for values in classes.values]
    yield from ((index, (value,)) for index, value in enumerate(on_top, start=1))
    for value in {value for values in classes.values for value in values} - {*on_top}:
        members = frozenset(number for number, values in enumerate(classes.values, start=1) if value in values)
        yield first_of[members], (value,)
