"""Write a volume as a DICOM series: `write_series(folder, array, affine)`. For tests, demonstrations and phantoms."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from jaxtyping import Integer

from spleen import __version__
from spleen.dicom.uids import uid_of
from spleen.errors import InputError
from spleen.imaging.dicom.stack import LPS_TO_RAS
from spleen.imaging.geometry import check_affine
from spleen.types import Affine

if TYPE_CHECKING:
    from pydicom import FileDataset

_SOP_CLASS = {"CT": "1.2.840.10008.5.1.4.1.1.2", "MR": "1.2.840.10008.5.1.4.1.1.4"}
_SQUARE = 1e-4
# Air is the smallest value of a CT in HU.
_CT_INTERCEPT = -1024


def write_series(
    folder: Path,
    array: Integer[np.ndarray, "i j k"],
    affine: Affine,
    *,
    modality: Literal["CT", "MR"] = "CT",
    description: str = "phantom",
    series_number: int = 1,
    seed: str = "",
    places: Sequence[float] | None = None,
    thickness_mm: float | None = None,
) -> list[Path]:
    """Write a volume as one file per slice of its third axis, IM0001.dcm and so on; returns the files.

    `affine` maps indices to mm in RAS. The first two axes must be perpendicular; the third may be sheared, as by a
    tilted gantry. `places` are the positions of the slices along the third axis in voxels, 0, 1, 2, … by default.
    UIDs follow from `seed`, the description and the number of the series.
    Raises InputError for values outside 16 bits and for axes that no DICOM image can have.
    """
    check_affine(affine)
    low, high = int(array.min()), int(array.max())
    intercept = _CT_INTERCEPT if modality == "CT" else 0
    if low < intercept or high - intercept > np.iinfo(np.uint16).max:
        raise InputError(f"intensities must lie between {intercept} and {65535 + intercept}; got {low} to {high}")
    along_i, along_j = (affine[:3, axis] / np.linalg.norm(affine[:3, axis]) for axis in (0, 1))
    if abs(float(along_i @ along_j)) > _SQUARE:
        raise InputError("the axes of a slice must be perpendicular; only the third axis may be sheared")
    if places is not None and len(places) != array.shape[2]:
        raise InputError(f"places must be one for each of the {array.shape[2]} slices; got {len(places)}")
    folder.mkdir(parents=True, exist_ok=True)
    lps = LPS_TO_RAS @ affine  # its own inverse
    paths = []
    for number, place in enumerate(range(array.shape[2]) if places is None else places):
        dataset = _slice(array[:, :, number], lps, float(place), modality, intercept, thickness_mm)
        words = (seed, description, str(series_number))
        dataset.SeriesDescription, dataset.SeriesNumber = description, series_number
        dataset.InstanceNumber = number + 1
        dataset.StudyInstanceUID = uid_of(seed, "study")
        dataset.FrameOfReferenceUID = uid_of(seed, "frame of reference")
        dataset.SeriesInstanceUID = uid_of(*words, "series")
        dataset.SOPInstanceUID = uid_of(*words, "instance", str(number))
        dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
        path = folder / f"IM{number + 1:04d}.dcm"
        dataset.save_as(path, enforce_file_format=True)
        paths.append(path)
    return paths


def _slice(
    plane: Integer[np.ndarray, "i j"],
    lps: Affine,
    place: float,
    modality: str,
    intercept: int,
    thickness_mm: float | None,
) -> "FileDataset":
    """One image: the first axis of the plane runs along a row."""
    from pydicom import FileDataset
    from pydicom.dataset import FileMetaDataset
    from pydicom.uid import UID, ExplicitVRLittleEndian
    from pydicom.valuerep import format_number_as_ds

    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = UID(_SOP_CLASS[modality])
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset = FileDataset(None, {}, file_meta=meta, preamble=bytes(128))  # type: ignore[arg-type]
    dataset.SOPClassUID = _SOP_CLASS[modality]
    dataset.ImageType = ["DERIVED", "PRIMARY", "AXIAL"] if modality == "CT" else ["DERIVED", "PRIMARY", "OTHER"]
    dataset.Modality = modality
    dataset.Manufacturer, dataset.ManufacturerModelName = "spleen", "phantom"
    dataset.SoftwareVersions = __version__
    dataset.PatientName, dataset.PatientID = "Phantom", "PHANTOM"
    dataset.PatientBirthDate, dataset.PatientSex = "", "O"
    dataset.StudyDate, dataset.StudyTime = "20000101", "000000"
    dataset.AccessionNumber = dataset.ReferringPhysicianName = ""
    dataset.StudyID = "1"
    dataset.PositionReferenceIndicator = dataset.PatientPosition = ""
    dataset.AcquisitionNumber = 1
    if modality == "CT":
        dataset.KVP = ""
        dataset.RescaleType = "HU"
        dataset.PatientPosition = "HFS"
    else:
        dataset.ScanningSequence, dataset.SequenceVariant, dataset.ScanOptions = "RM", "NONE", ""
        dataset.MRAcquisitionType, dataset.RepetitionTime, dataset.EchoTime = "3D", "", ""
        dataset.EchoTrainLength = ""
        dataset.PatientPosition = "HFS"
    width, height = (float(np.linalg.norm(lps[:3, axis])) for axis in (0, 1))
    directions = [*(lps[:3, 0] / width), *(lps[:3, 1] / height)]
    position = lps[:3, 3] + place * lps[:3, 2]
    normal = np.cross(directions[:3], directions[3:])
    dataset.ImagePositionPatient = [format_number_as_ds(float(each)) for each in position]
    dataset.ImageOrientationPatient = [format_number_as_ds(float(each)) for each in directions]
    dataset.PixelSpacing = [format_number_as_ds(height), format_number_as_ds(width)]
    thickness = abs(float(normal @ lps[:3, 2])) if thickness_mm is None else float(thickness_mm)
    dataset.SliceThickness = format_number_as_ds(thickness)
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 16, 15, 0
    dataset.Columns, dataset.Rows = plane.shape
    if modality == "CT":
        dataset.RescaleIntercept, dataset.RescaleSlope = intercept, 1
    stored = (plane.astype(np.int32) - intercept).astype("<u2")
    dataset.PixelData = np.ascontiguousarray(stored.T).tobytes()
    return dataset
