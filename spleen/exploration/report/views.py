"""Three slices through the middle of the organ, as they are shown on the page and in the picture."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, UInt8

from spleen.exploration.facts.case import CaseFacts
from spleen.exploration.facts.label import ValueFacts, middle_slice
from spleen.exploration.facts.reading import read_image_file, read_label_file
from spleen.exploration.suggestion.suggest import DEFAULT_WINDOW_HU
from spleen.imaging.intensity import DisplayWindow
from spleen.imaging.nifti import Volume
from spleen.imaging.slicing import AXES, slice_spacing_mm, to_slices
from spleen.reporting.numbers import format_number
from spleen.types import AxisName

_MOST_VALUES = 24  # label values that are outlined


@dataclass(frozen=True)
class MiddleSlice:
    """One slice, rows and columns rising along the RAS axes (see `spleen.imaging.slicing`)."""

    axis: AxisName
    slice_index: int
    image: Float[np.ndarray, "h w"]
    """From 0 (black) to 1 (white)."""
    labels: UInt8[np.ndarray, "h w"]
    """0, then 1, 2, … for the label values in `values`; all 0 where the grids of image and label differ."""
    values: tuple[ValueFacts, ...]
    size_mm: tuple[float, float]
    """Height and width."""
    shown: str
    """The window, in words."""
    unlabelled: Bool[np.ndarray, "h w"] | None = None
    """Pixels that nobody has labelled; None where the whole label is known."""


@dataclass(frozen=True)
class NumberedLabels:
    """A label on the image's grid."""

    values: tuple[ValueFacts, ...]
    """The label values that are shown."""
    numbers: UInt8[np.ndarray, "i j k"]
    """1, 2, … in the place of those values."""
    unlabelled: Bool[np.ndarray, "i j k"] | None = None
    """Voxels that nobody has labelled; None if there are none."""


@dataclass(frozen=True)
class DisplayRange:
    """Intensities shown black and white, in numbers and in words."""

    low: float
    high: float
    words: str


def middle_slices(case: CaseFacts, organ: tuple[int, ...], window: DisplayWindow | None = None) -> list[MiddleSlice]:
    """Sagittal, coronal and axial slice where the organ is largest, or the middle one; none where nothing can be read.

    They are shown through `window`, by default through one that suits the image (`display_range`). The files are read
    again, so that an exploration of many cases need not keep their voxels.
    """
    image = read_image_file(case.image).volume
    if image is None or case.intensity is None:
        return []
    labels = numbered_labels(case, organ, image)
    shown = display_range(case, window)
    low, high = shown.low, shown.high
    slices = []
    for number, axis in enumerate(AXES):
        counts = case.labels.organ_per_slice[number] if case.labels is not None else ()
        planes = to_slices(image.array, axis)
        usable = len(counts) == len(planes)
        index = middle_slice(counts) if usable else len(planes) // 2
        _, height_mm, width_mm = slice_spacing_mm(image.affine, axis)
        plane = np.clip((np.nan_to_num(planes[index], nan=low) - low) / (high - low), 0.0, 1.0).astype(np.float32)
        rows, columns = plane.shape
        size_mm = (rows * height_mm, columns * width_mm)
        unlabelled = None if labels.unlabelled is None else to_slices(labels.unlabelled, axis)[index]
        numbers = to_slices(labels.numbers, axis)[index]
        slices.append(MiddleSlice(axis, index, plane, numbers, labels.values, size_mm, shown.words, unlabelled))
    return slices


def display_range(case: CaseFacts, window: DisplayWindow | None = None) -> DisplayRange:
    """What is shown black and white: the window, else in a CT soft tissue, widened to the organ, else the whole range.

    A preset is in HU and is therefore used for a CT only.
    """
    assert case.intensity is not None
    facts = case.intensity
    is_ct = facts.modality == "CT"
    if window is not None and (is_ct or window.name is None):
        low, high = window.ends
        return DisplayRange(low, high, _in_words(low, high, is_ct, window.name))
    low, high = facts.whole.p0_5, facts.whole.p99_5
    if is_ct:
        low, high = DEFAULT_WINDOW_HU
        if facts.organ is not None:
            low, high = min(low, facts.organ.p0_5), max(high, facts.organ.p99_5)
    high = high if high > low else low + 1
    ignored = "no CT, so not the preset; " if window is not None else ""
    return DisplayRange(low, high, ignored + _in_words(low, high, is_ct, None))


def _in_words(low: float, high: float, is_ct: bool, preset: str | None) -> str:
    name, unit = f"{preset}: " if preset else "", " HU" if is_ct else ""
    return f"{name}level {format_number((low + high) / 2)}, width {format_number(high - low)}{unit}"


def numbered_labels(case: CaseFacts, organ: tuple[int, ...], image: Volume) -> NumberedLabels:
    """The label of a case, which is read again; without any value where its grid is not the image's."""
    shape = image.array.shape
    numbered = np.zeros(shape, dtype=np.uint8)
    volume = read_label_file(case.label, image).volume if case.label is not None else None
    if volume is None or volume.array.shape != shape or case.labels is None:
        return NumberedLabels((), numbered)
    present = [value for value in case.labels.values if not organ or value.value in organ]
    for number, value in enumerate(present[:_MOST_VALUES], start=1):
        numbered[volume.array == value.value] = number
    unlabelled = None if case.ignore_value is None else volume.array == case.ignore_value
    has_any = unlabelled is not None and bool(unlabelled.any())
    return NumberedLabels(tuple(present[:_MOST_VALUES]), numbered, unlabelled if has_any else None)
