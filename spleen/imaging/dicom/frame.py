"""What a DICOM file says of itself and of each of its frames: identity, place in space, and how pixels are stored."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from spleen.errors import InputError
from spleen.imaging.dicom.header import Keyword, damage_as_error, number, numbers, read_header, text, whole

if TYPE_CHECKING:
    from pydicom import Dataset

# What tells the volumes of one series apart, in the order in which it is tried: names for the user, and elements.
_VOLUME_TAGS: Sequence[tuple[str, Keyword]] = (
    ("stack", "StackID"),
    ("b-value", "DiffusionBValue"),
    ("b-value", 0x0019100C),  # Siemens, before the standard had one
    ("gradient direction", "DiffusionGradientOrientation"),
    ("time point", "TemporalPositionIdentifier"),
    ("time point", "TemporalPositionIndex"),
    ("echo time", "EchoTime"),
    ("echo time", "EffectiveEchoTime"),
    ("echo", "EchoNumbers"),
    ("inversion time", "InversionTime"),
    ("cardiac phase", "NominalPercentageOfCardiacPhase"),
    ("trigger time", "TriggerTime"),
    ("trigger time", "NominalCardiacTriggerDelayTime"),
    ("image type", "ImageType"),
    ("kernel", "ConvolutionKernel"),
    ("acquisition", "AcquisitionNumber"),
    ("acquisition time", "AcquisitionTime"),
)
_IDENTITY = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID")
_SERIES = ("SeriesNumber", "SeriesDescription", "Modality", "InstanceNumber", "NumberOfFrames")
_PIXELS = (
    "Rows", "Columns", "SamplesPerPixel", "PhotometricInterpretation", "BitsAllocated", "BitsStored", "HighBit",
    "PixelRepresentation", "PixelPaddingValue", "PixelPaddingRangeLimit", "ModalityLUTSequence", "RescaleSlope",
    "RescaleIntercept",
)  # fmt: skip
_SPACE = (
    "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "ImagerPixelSpacing", "SliceThickness",
    "SpacingBetweenSlices", "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence",
)  # fmt: skip
_KEYWORDS = (*_IDENTITY, *_SERIES, *_PIXELS, *_SPACE, *(keyword for _, keyword in _VOLUME_TAGS))
_NO_IMAGE = frozenset({"SEG", "SR", "PR", "KO", "RTSTRUCT", "RTPLAN", "RTDOSE", "REG", "DOC", "FID", "RWV", "M3D"})
_MOST_FRAMES = 100_000

Vector = tuple[float, float, float]


@dataclass(frozen=True)
class PixelFormat:
    """How the pixels of a file are stored (PS3.3 C.7.6.3)."""

    rows: int
    columns: int
    bits_allocated: int
    bits_stored: int
    high_bit: int
    signed: bool
    photometric: str
    transfer_syntax: str
    padding: tuple[int, int] | None
    """Smallest and largest stored value that stands for no pixel at all."""
    offset: int
    """Byte of the file at which the element Pixel Data starts."""


@dataclass(frozen=True)
class Instance:
    """One DICOM file that holds an image."""

    path: Path
    sop_class_uid: str
    sop_instance_uid: str
    study_uid: str
    series_uid: str
    frame_of_reference_uid: str
    series_number: str
    """As written; empty if it is missing."""
    series_description: str
    modality: str
    pixels: PixelFormat
    n_frames: int


@dataclass(frozen=True)
class Frame:
    """One slice: a file, or one frame of a multi-frame file. Positions and directions are DICOM's, LPS in mm."""

    instance: Instance
    index: int
    """Number of the frame in its file, from 0."""
    instance_number: int | None
    position_mm: Vector
    """Centre of the first pixel, Image Position (Patient)."""
    row_direction: Vector
    """Unit vector in which the column index grows, the first half of Image Orientation (Patient)."""
    column_direction: Vector
    """Unit vector in which the row index grows."""
    pixel_spacing_mm: tuple[float, float]
    """Between rows, and between columns."""
    thickness_mm: float | None
    """Slice Thickness, which need not be the distance to the next slice."""
    spacing_between_mm: float | None
    """Spacing Between Slices."""
    slope: float
    intercept: float
    volume_tags: tuple[tuple[str, str], ...]
    """Name and value of what may tell the volumes of one series apart."""
    is_localiser: bool


class NoSliceError(InputError):
    """An image that is sound, but no slice of a volume: its pixels or its place in space cannot be known."""

    def __init__(self, message: str, series_uid: str) -> None:
        super().__init__(message)
        self.series_uid = series_uid


def read_frames(path: Path) -> tuple[Frame, ...] | str:
    """The frames of one file; for a file without an image, what it is in a word or two, such as SEG.

    Raises InputError for a damaged file, and NoSliceError for one whose pixels or place in space cannot be known.
    """
    header = read_header(path, _KEYWORDS)
    dataset = header.dataset
    with damage_as_error(path), _naming(path, text([dataset], "SeriesInstanceUID")):
        modality = text([dataset], "Modality")
        if modality in _NO_IMAGE or "Rows" not in dataset or header.pixel_offset is None:
            return modality or "no image"
        instance = _instance(path, dataset, modality, header.pixel_offset)
        if "PerFrameFunctionalGroupsSequence" not in dataset:
            if instance.n_frames > 1:
                raise InputError(
                    f"{instance.n_frames} frames without positions (no Per-Frame Functional Groups); only Enhanced "
                    "multi-frame images are read. Export the series as single frames"
                )
            return (_frame(instance, 0, [dataset]),)
        shared = _groups(dataset.get("SharedFunctionalGroupsSequence"), 0)
        per_frame = dataset.PerFrameFunctionalGroupsSequence
        if len(per_frame) != instance.n_frames:
            raise InputError(f"Number of Frames is {instance.n_frames}, but {len(per_frame)} are described")
        return tuple(
            _frame(instance, index, [*_groups(per_frame, index), *shared, dataset])
            for index in range(instance.n_frames)
        )


@contextmanager
def _naming(path: Path, series_uid: str) -> Iterator[None]:
    """Begin messages of InputError with the path."""
    try:
        yield
    except InputError as error:
        raise NoSliceError(f"{path}: {error}", series_uid) from error


def _groups(sequence: "Sequence[Dataset] | None", index: int) -> list["Dataset"]:
    """The content of the functional groups of one frame."""
    if not sequence:
        return []
    return [element.value[0] for element in sequence[index] if element.VR == "SQ" and element.value]


def _instance(path: Path, dataset: "Dataset", modality: str, offset: int) -> Instance:
    missing = [each for each in ("SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID") if not text([dataset], each)]
    if missing:
        raise InputError(f"{' and '.join(missing)} missing; the file is damaged or was anonymised too far")
    n_frames = whole([dataset], "NumberOfFrames", 1)
    if not 1 <= n_frames <= _MOST_FRAMES:
        raise InputError(f"Number of Frames must be 1 to {_MOST_FRAMES:,}; got {n_frames}")
    return Instance(
        path=path,
        **{
            name: text([dataset], keyword)
            for name, keyword in {
                "sop_class_uid": "SOPClassUID",
                "sop_instance_uid": "SOPInstanceUID",
                "study_uid": "StudyInstanceUID",
                "series_uid": "SeriesInstanceUID",
                "frame_of_reference_uid": "FrameOfReferenceUID",
                "series_number": "SeriesNumber",
                "series_description": "SeriesDescription",
            }.items()
        },
        modality=modality,
        pixels=_pixel_format(dataset, offset),
        n_frames=n_frames,
    )


def _pixel_format(dataset: "Dataset", offset: int) -> PixelFormat:
    levels = [dataset]
    photometric = text(levels, "PhotometricInterpretation")
    if whole(levels, "SamplesPerPixel", 1) != 1 or photometric not in ("MONOCHROME1", "MONOCHROME2"):
        raise InputError(f"Photometric Interpretation is {photometric or 'missing'}; only grey values can be segmented")
    if "ModalityLUTSequence" in dataset:
        raise InputError("its values go through a Modality LUT, which is not read; export it with Rescale Slope")
    allocated = whole(levels, "BitsAllocated", 0)
    stored = whole(levels, "BitsStored", allocated)
    rows, columns, high = (whole(levels, each, -1) for each in ("Rows", "Columns", "HighBit"))
    high = stored - 1 if high < 0 else high
    if allocated not in (8, 16, 32) or not 1 <= stored <= high + 1 <= allocated:
        raise InputError(
            f"Bits Allocated {allocated}, Bits Stored {stored} and High Bit {high} do not fit together; 8, 16 or 32 "
            "allocated bits are read"
        )
    if rows < 1 or columns < 1:
        raise InputError(f"Rows and Columns must be at least 1; got {rows} × {columns}")
    syntax = str(dataset.file_meta.get("TransferSyntaxUID", "") or "")
    signed = whole(levels, "PixelRepresentation", 0) == 1
    return PixelFormat(
        rows, columns, allocated, stored, high, signed, photometric, syntax, _padding(levels, signed, allocated), offset
    )


def _padding(levels: Sequence["Dataset"], signed: bool, bits: int) -> tuple[int, int] | None:
    value = number(levels, "PixelPaddingValue")
    if value is None:
        return None
    limit = number(levels, "PixelPaddingRangeLimit")
    ends = [int(each) for each in (value, value if limit is None else limit)]
    if signed:  # some devices write it as unsigned all the same
        ends = [each - (1 << bits) if each >= 1 << (bits - 1) else each for each in ends]
    elif min(ends) < 0:
        ends = [each % (1 << bits) for each in ends]
    return min(ends), max(ends)


def _frame(instance: Instance, index: int, levels: Sequence["Dataset"]) -> Frame:
    position = numbers(levels, "ImagePositionPatient", 3)
    directions = numbers(levels, "ImageOrientationPatient", 6)
    spacing = numbers(levels, "PixelSpacing", 2)
    if position is None or directions is None:
        what = " and ".join(
            name for name, value in (("Image Position", position), ("Image Orientation", directions)) if value is None
        )
        raise InputError(f"{what} (Patient) missing, so its place in the patient is unknown; is it a cross-section?")
    if spacing is None or min(spacing) <= 0:
        imager = " (Imager Pixel Spacing is that of a projection)" if text(levels, "ImagerPixelSpacing") else ""
        came = "missing" if spacing is None else f"{spacing[0]:g} × {spacing[1]:g} mm"
        raise InputError(f"Pixel Spacing is {came}{imager}, so the size of its pixels is unknown; export it again")
    slope, intercept = number(levels, "RescaleSlope"), number(levels, "RescaleIntercept")
    if slope == 0:
        raise InputError("Rescale Slope is 0, which would erase the image")
    image_type = text(levels, "ImageType").upper()
    return Frame(
        instance=instance,
        index=index,
        instance_number=_instance_number(levels),
        position_mm=(position[0], position[1], position[2]),
        row_direction=(directions[0], directions[1], directions[2]),
        column_direction=(directions[3], directions[4], directions[5]),
        pixel_spacing_mm=(spacing[0], spacing[1]),
        thickness_mm=_positive(number(levels, "SliceThickness")),
        spacing_between_mm=_positive(number(levels, "SpacingBetweenSlices")),
        slope=1.0 if slope is None else slope,
        intercept=intercept or 0.0,
        volume_tags=tuple((name, value) for name, keyword in _VOLUME_TAGS if (value := text(levels, keyword))),
        is_localiser="LOCALIZER" in image_type.split("\\"),
    )


def _instance_number(levels: Sequence["Dataset"]) -> int | None:
    found = number(levels, "InstanceNumber")
    return None if found is None else int(found)


def _positive(value: float | None) -> float | None:
    """Some devices write negative spacings between slices."""
    return abs(value) if value else None
