"""What the headers of a DICOM series say: device, pixels, and the elements that decide where voxels lie.

Nothing here identifies the patient, unless it is asked for.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from spleen.errors import InputError
from spleen.imaging.dicom.frame import Frame
from spleen.imaging.dicom.header import number, read_header, text
from spleen.imaging.dicom.series import Series
from spleen.imaging.dicom.stack import Stack

if TYPE_CHECKING:
    from pydicom import Dataset

# Elements that other programs use too, read from the first file.
_DEVICE = ("Manufacturer", "ManufacturerModelName", "GantryDetectorTilt", "PatientPosition", "RescaleType")
# Free text may hold a name as well, and UIDs lead to the patient in the archive (PS3.15 E.1).
_IDENTIFYING = (
    "PatientName", "PatientID", "PatientBirthDate", "PatientSex", "PatientAge", "PatientComments", "AccessionNumber",
    "StudyID", "StudyDate", "StudyTime", "StudyDescription", "SeriesDate", "SeriesTime", "SeriesDescription",
    "ProtocolName", "AcquisitionDate", "AcquisitionTime", "ContentDate", "ContentTime", "ImageComments",
    "InstitutionName", "InstitutionAddress", "InstitutionalDepartmentName", "ReferringPhysicianName",
    "PerformingPhysicianName", "OperatorsName", "StationName", "DeviceSerialNumber", "StudyInstanceUID",
    "SeriesInstanceUID", "FrameOfReferenceUID",
)  # fmt: skip
_TILTED_DEGREES = 0.1

Range = tuple[float, float]
Value = str | int | float | tuple[float, ...] | None


@dataclass(frozen=True)
class Element:
    """One element of the headers as people look it up."""

    tag: str
    """(gggg,eeee), in hexadecimal digits."""
    keyword: str
    value: str
    """Of all slices; where they differ, the first and the last one and how many there are."""


@dataclass(frozen=True)
class DicomFacts:
    """The headers of one series. A range is the smallest and the largest value of its slices."""

    modality: str
    manufacturer: str
    model: str
    sop_class: str
    """Kind of object, such as CT Image Storage."""
    n_files: int
    n_frames: int
    transfer_syntax: str
    photometric_interpretation: str
    bits_allocated: int
    bits_stored: int
    high_bit: int
    is_signed: bool
    rescale_slope: Range
    rescale_intercept: Range
    image_orientation: tuple[float, ...]
    """Image Orientation (Patient): the directions of rows and of columns, in LPS."""
    position_low_mm: tuple[float, float, float]
    position_high_mm: tuple[float, float, float]
    """Image Position (Patient) of all slices: smallest and largest coordinates, in LPS."""
    apart_mm: Range | None
    """From each slice to the next by their positions, along the normal; None for a single slice."""
    slice_thickness_mm: Range | None
    spacing_between_slices_mm: Range | None
    tilt_degrees: float
    """Between the normal of the slices and the way from one to the next: a tilted gantry, by the positions."""
    declared_tilt_degrees: float | None
    """Gantry/Detector Tilt."""
    is_even: bool
    """Whether all slices are equally far apart."""
    notes: tuple[str, ...]
    elements: tuple[Element, ...]
    """Those that decide where voxels lie and what they are worth."""
    identifying: tuple[Element, ...]
    """Those that identify the patient; empty unless they were asked for."""


def dicom_facts(series: Series, identifying: bool = False) -> DicomFacts:
    """Facts of a series that has been assembled. Only the first file is read once more."""
    frames, first = series.frames, series.frames[0].instance
    device = _read(first.path, _DEVICE)
    positions = np.array([frame.position_mm for frame in frames])
    low, high = (_three(each) for each in (positions.min(0), positions.max(0)))
    return DicomFacts(
        modality=series.modality,
        manufacturer=text(device, "Manufacturer"),
        model=text(device, "ManufacturerModelName"),
        sop_class=_uid_names(frames, lambda frame: frame.instance.sop_class_uid),
        n_files=len({frame.instance.path for frame in frames}),
        n_frames=len(frames),
        transfer_syntax=_uid_names(frames, lambda frame: frame.instance.pixels.transfer_syntax),
        photometric_interpretation=_listed(frames, lambda frame: frame.instance.pixels.photometric),
        bits_allocated=max(frame.instance.pixels.bits_allocated for frame in frames),
        bits_stored=max(frame.instance.pixels.bits_stored for frame in frames),
        high_bit=max(frame.instance.pixels.high_bit for frame in frames),
        is_signed=any(frame.instance.pixels.signed for frame in frames),
        rescale_slope=_range(frames, lambda frame: frame.slope) or (1.0, 1.0),
        rescale_intercept=_range(frames, lambda frame: frame.intercept) or (0.0, 0.0),
        image_orientation=(*frames[0].row_direction, *frames[0].column_direction),
        position_low_mm=low,
        position_high_mm=high,
        apart_mm=_apart_mm(series.stack),
        slice_thickness_mm=_range(frames, lambda frame: frame.thickness_mm),
        spacing_between_slices_mm=_range(frames, lambda frame: frame.spacing_between_mm),
        tilt_degrees=_tilt_degrees(series.stack),
        declared_tilt_degrees=_declared_tilt(device),
        is_even=series.stack.is_even,
        notes=series.stack.notes,
        elements=tuple(_elements(frames, device)),
        identifying=tuple(_identifying(first.path)) if identifying else (),
    )


def dicom_rows(facts: DicomFacts) -> list[tuple[str, str]]:
    """Name and value of each fact, in words."""
    orientation = ", ".join(f"{each:.4g}" for each in facts.image_orientation)
    ends = zip("xyz", facts.position_low_mm, facts.position_high_mm, strict=True)
    device = " ".join(filter(None, (facts.manufacturer, facts.model))) or "not said"
    signed = "signed" if facts.is_signed else "unsigned"
    return [
        ("DICOM", f"{facts.modality or 'no modality'}, {facts.sop_class}; {facts.transfer_syntax}"),
        ("device", device),
        (
            "pixels",
            f"{facts.photometric_interpretation}, {facts.bits_allocated} bits allocated, {facts.bits_stored} stored, "
            f"high bit {facts.high_bit}, {signed}",
        ),
        ("rescale", f"slope {_in_words(facts.rescale_slope)}, intercept {_in_words(facts.rescale_intercept)}"),
        ("image orientation (patient)", f"rows and columns run along {orientation} (LPS)"),
        (
            "image position (patient)",
            ", ".join(f"{axis} {_in_words((low, high))}" for axis, low, high in ends) + " mm (LPS)",
        ),
        ("slices apart", _slices_apart(facts)),
        ("gantry tilt", _tilt_in_words(facts)),
        *((element.keyword, element.value) for element in facts.identifying),
    ]


def _slices_apart(facts: DicomFacts) -> str:
    apart = f"{_in_words(facts.apart_mm)} mm by the positions" if facts.apart_mm else "a single slice"
    said = [
        f"{name} {_in_words(length)} mm" if length else f"{name} not set"
        for name, length in (
            ("Slice Thickness", facts.slice_thickness_mm),
            ("Spacing Between Slices", facts.spacing_between_slices_mm),
        )
    ]
    return "; ".join([apart, *said])


def _tilt_in_words(facts: DicomFacts) -> str:
    tilt = f"{facts.tilt_degrees:.1f}°" if facts.tilt_degrees >= _TILTED_DEGREES else "none"
    declared = facts.declared_tilt_degrees
    return f"{tilt} by the positions; Gantry/Detector Tilt " + ("not set" if declared is None else f"{declared:g}°")


def _in_words(values: Range) -> str:
    """One number, or the smallest and the largest one."""
    low, high = (f"{each:.6g}" for each in values)
    return low if low == high else f"{low} to {high}"


def _read(path: Path, keywords: Sequence[str]) -> list["Dataset"]:
    """Elements of one file; none where one of them is damaged."""
    with suppress(InputError):
        return [read_header(path, keywords).dataset]
    return []


def _declared_tilt(device: Sequence["Dataset"]) -> float | None:
    with suppress(InputError):
        return number(device, "GantryDetectorTilt")
    return None


def _identifying(path: Path) -> Iterator[Element]:
    levels = _read(path, _IDENTIFYING)
    for keyword in _IDENTIFYING:
        if value := text(levels, keyword):
            yield Element(_tag(keyword), keyword, value)


def _elements(frames: Sequence[Frame], device: Sequence["Dataset"]) -> Iterator[Element]:
    values: dict[str, Callable[[Frame], Value]] = {
        "Rows": lambda frame: frame.instance.pixels.rows,
        "Columns": lambda frame: frame.instance.pixels.columns,
        "NumberOfFrames": lambda frame: frame.instance.n_frames if frame.instance.n_frames > 1 else None,
        "PixelSpacing": lambda frame: frame.pixel_spacing_mm,
        "ImageOrientationPatient": lambda frame: (*frame.row_direction, *frame.column_direction),
        "ImagePositionPatient": lambda frame: frame.position_mm,
        "SliceThickness": lambda frame: frame.thickness_mm,
        "SpacingBetweenSlices": lambda frame: frame.spacing_between_mm,
        "GantryDetectorTilt": lambda _: text(device, "GantryDetectorTilt"),
        "PatientPosition": lambda _: text(device, "PatientPosition"),
        "PhotometricInterpretation": lambda frame: frame.instance.pixels.photometric,
        "BitsAllocated": lambda frame: frame.instance.pixels.bits_allocated,
        "BitsStored": lambda frame: frame.instance.pixels.bits_stored,
        "HighBit": lambda frame: frame.instance.pixels.high_bit,
        "PixelRepresentation": lambda frame: int(frame.instance.pixels.signed),
        "PixelPaddingValue": lambda frame: frame.instance.pixels.padding,
        "RescaleSlope": lambda frame: frame.slope,
        "RescaleIntercept": lambda frame: frame.intercept,
        "RescaleType": lambda _: text(device, "RescaleType"),
    }
    for keyword, value_of in values.items():
        found = [_element_text(value_of(frame)) for frame in frames]
        different = len(set(found))
        value = found[0] if different == 1 else f"{found[0]} … {found[-1]} ({different} different)"
        if value:
            yield Element(_tag(keyword), keyword, value)


def _element_text(value: Value) -> str:
    """As in a header: several numbers joined by a backslash."""
    if value is None:
        return ""
    if isinstance(value, tuple):
        return "\\".join(f"{each:.6g}" for each in value)
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _tag(keyword: str) -> str:
    from pydicom.datadict import tag_for_keyword

    tag = tag_for_keyword(keyword)
    assert tag is not None  # all keywords here are the standard's
    return f"({tag >> 16:04x},{tag & 0xFFFF:04x})"


def _uid_names(frames: Sequence[Frame], uid_of_frame: Callable[[Frame], str]) -> str:
    """The standard's name of a UID; one that it does not name is another maker's."""
    from pydicom.uid import UID

    def name(frame: Frame) -> str:
        uid = UID(uid_of_frame(frame))
        return uid.name if uid and uid.name != uid else "private" if uid else "not said"

    return _listed(frames, name)


def _listed(frames: Sequence[Frame], name: Callable[[Frame], str]) -> str:
    return ", ".join(dict.fromkeys(map(name, frames)))


def _range(frames: Sequence[Frame], value_of: Callable[[Frame], float | None]) -> Range | None:
    values = [value for frame in frames if (value := value_of(frame)) is not None]
    return (min(values), max(values)) if values else None


def _apart_mm(stack: Stack) -> Range | None:
    gaps = np.diff(stack.distances_mm)
    return (float(gaps.min()), float(gaps.max())) if gaps.size else None


def _tilt_degrees(stack: Stack) -> float:
    rows, columns, step = (stack.affine[:3, axis] for axis in (1, 0, 2))
    normal = np.cross(columns, rows)
    cosine = abs(normal @ step) / (np.linalg.norm(normal) * np.linalg.norm(step))
    return float(np.degrees(np.arccos(min(1.0, float(cosine)))))


def _three(values: np.ndarray) -> tuple[float, float, float]:
    x, y, z = (float(each) for each in values)
    return x, y, z
