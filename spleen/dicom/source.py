"""The images that a result refers to, as highdicom takes them: patient and study, and one header for each frame."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from spleen.dicom.uids import uid_of
from spleen.errors import InputError
from spleen.imaging.dicom.frame import Frame
from spleen.imaging.dicom.header import read_header, text
from spleen.imaging.dicom.series import Series

if TYPE_CHECKING:
    from pydicom import Dataset

# What a result repeats of its source; highdicom copies the Patient and General Study modules, as far as they are there.
_REQUIRED = (
    "PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "StudyID",
    "AccessionNumber", "ReferringPhysicianName",
)  # fmt: skip
_OPTIONAL = (
    "SpecificCharacterSet", "IssuerOfPatientID", "PatientAge", "PatientSize", "PatientWeight", "StudyDescription",
    "PositionReferenceIndicator", "PatientIdentityRemoved", "DeidentificationMethod", "LossyImageCompression",
    "LossyImageCompressionRatio", "LossyImageCompressionMethod", "TimezoneOffsetFromUTC",
)  # fmt: skip
_DATES, _TIMES, _SEXES = ("PatientBirthDate", "StudyDate"), ("StudyTime",), ("M", "F", "O", "")
# Any class of single-frame images will do: references get the frame's own class.
_SINGLE_FRAME = "1.2.840.10008.5.1.4.1.1.2"
UTF_8 = "ISO_IR 192"


def frame_headers(series: Series) -> list["Dataset"]:
    """A header for each frame of a series, as if each were a file of its own.

    Frames of a multi-frame file, of several, or only some of them are thereby all the same to highdicom. Its references
    to these headers are turned into references to the frames by `refer_to_frames`.
    Raises InputError for files that cannot be read again, and without Study Instance UID.
    """
    from pydicom import Dataset

    shared = study_header(series)
    headers = []
    for number, frame in enumerate(series.frames):
        header = Dataset()
        header.update(shared)
        header.SOPClassUID, header.SOPInstanceUID = _SINGLE_FRAME, stand_in_uid(number)
        header.ImagePositionPatient = _as_text(frame.position_mm)
        headers.append(header)
    return headers


def stand_in_uid(number: int) -> str:
    """The SOP Instance UID of a frame's header."""
    return f"2.25.{number}"


def study_header(series: Series) -> "Dataset":
    """What all frames share: patient, study, series, and the geometry of a slice."""
    first = series.frames[0]
    header = _patient_and_study(first)
    header.SpecificCharacterSet = UTF_8
    header.SeriesInstanceUID, header.Modality = series.uid, series.modality
    # Without one, slices of a series still share their coordinates, or they could not have been stacked.
    header.FrameOfReferenceUID = first.instance.frame_of_reference_uid or uid_of("frame of reference", series.uid)
    header.Columns, header.Rows, _ = series.shape
    header.PixelSpacing = _as_text(first.pixel_spacing_mm)
    header.ImageOrientationPatient = _as_text((*first.row_direction, *first.column_direction))
    thickness = first.thickness_mm or sum(series.stack.slab_mm) / len(series.frames)
    header.SliceThickness = _as_text((thickness,))[0]
    if series.stack.is_even and len(series.frames) > 1:
        header.SpacingBetweenSlices = _as_text((series.stack.spacing_mm,))[0]
    return header


def refer_to_frames(references: Sequence["Dataset"], frames: Sequence[Frame]) -> None:
    """Turn references to headers of `frame_headers` into references to their frames, in place."""
    by_uid = {stand_in_uid(number): frame for number, frame in enumerate(frames)}
    for reference in {id(each): each for each in references}.values():  # highdicom shares some between segments
        frame = by_uid[reference.ReferencedSOPInstanceUID]
        reference.ReferencedSOPClassUID = frame.instance.sop_class_uid
        reference.ReferencedSOPInstanceUID = frame.instance.sop_instance_uid
        if is_multi_frame(frame):
            reference.ReferencedFrameNumber = frame.index + 1


def is_multi_frame(frame: Frame) -> bool:
    """Whether the frame's file may hold several."""
    from pydicom.uid import UID

    return frame.instance.n_frames > 1 or UID(frame.instance.sop_class_uid).name.startswith("Enhanced")


def instances(series: Series, study: "Dataset") -> list["Dataset"]:
    """The files of a series, each once and in the order of its frames, as references take them."""
    from pydicom import Dataset

    unique = {frame.instance.sop_instance_uid: frame.instance for frame in series.frames}
    found = []
    for instance in unique.values():
        each = Dataset()
        each.StudyInstanceUID, each.SeriesInstanceUID = study.StudyInstanceUID, series.uid
        each.SOPClassUID, each.SOPInstanceUID = instance.sop_class_uid, instance.sop_instance_uid
        found.append(each)
    return found


def _patient_and_study(frame: Frame) -> "Dataset":
    """Values that break the standard are left empty: a result must be valid, and they matter to nothing else."""
    from pydicom import Dataset

    path = frame.instance.path
    found = read_header(path, (*_REQUIRED, *_OPTIONAL, "StudyInstanceUID")).dataset
    if not text([found], "StudyInstanceUID"):
        raise InputError(f"{path} has no Study Instance UID, so no result can belong to its study; export it again")
    header = Dataset()
    header.StudyInstanceUID = text([found], "StudyInstanceUID")
    for keyword in _REQUIRED:
        setattr(header, keyword, _valid(keyword, str(found.get(keyword) or "").strip()))
    for keyword in _OPTIONAL:
        if text([found], keyword):
            setattr(header, keyword, found.get(keyword))
    return header


def _valid(keyword: str, value: str) -> str:
    from pydicom.valuerep import DA, TM

    if keyword == "PatientSex":
        return value if value in _SEXES else ""
    try:
        if keyword in _DATES:
            DA(value)
        if keyword in _TIMES:
            TM(value)
    except ValueError:
        return ""
    return value


def _as_text(numbers: Sequence[float]) -> list[str]:
    from pydicom.valuerep import format_number_as_ds

    return [format_number_as_ds(float(number)) for number in numbers]
