"""Sound DICOM files, and changes that pydicom would not make by itself."""

import io
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
from pydicom import Dataset
from pydicom.datadict import tag_for_keyword
from pydicom.uid import ExplicitVRLittleEndian

from spleen.dicom.write_series import write_series
from tests._helpers.nifti import ras_affine

Folder = dict[str, bytes]
"""Content of the files of one mutant by name; folders in a name are made."""
Mutant = tuple[str, Folder]

_SHAPE = (48, 40, 3)


def bytes_of(dataset: Dataset) -> bytes:
    """As pydicom writes it, whether or not it keeps to the standard."""
    stream = io.BytesIO()
    pydicom.dcmwrite(stream, dataset, enforce_file_format=False)
    return stream.getvalue()


def read(content: bytes) -> Dataset:
    return pydicom.dcmread(io.BytesIO(content), force=True)


def sound_series(folder: Path) -> Folder:
    array = np.arange(np.prod(_SHAPE)).reshape(_SHAPE).astype(np.int16)
    return {path.name: path.read_bytes() for path in write_series(folder, array, ras_affine())}


def as_multi_frame(files: Folder) -> Dataset:
    """The series as one multi-frame file."""
    datasets = [read(content) for content in files.values()]
    whole = read(next(iter(files.values())))
    shared, measures, orientation = Dataset(), Dataset(), Dataset()
    measures.PixelSpacing, measures.SliceThickness = whole.PixelSpacing, whole.SliceThickness
    orientation.ImageOrientationPatient = whole.ImageOrientationPatient
    shared.PixelMeasuresSequence, shared.PlaneOrientationSequence = [measures], [orientation]
    whole.SharedFunctionalGroupsSequence = [shared]
    per_frame = []
    for dataset in datasets:
        position, frame = Dataset(), Dataset()
        position.ImagePositionPatient = dataset.ImagePositionPatient
        frame.PlanePositionSequence = [position]
        per_frame.append(frame)
    whole.PerFrameFunctionalGroupsSequence = per_frame
    whole.NumberOfFrames = len(datasets)
    whole.PixelData = b"".join(dataset.PixelData for dataset in datasets)
    for keyword in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness"):
        del whole[keyword]
    return whole


def with_change(content: bytes, change: Callable[[Dataset], None]) -> bytes:
    dataset = read(content)
    change(dataset)
    return bytes_of(dataset)


def set_raw(dataset: Dataset, keyword: str, text: str) -> None:
    """Set a value as bytes, which pydicom would not write otherwise."""
    from pydicom.dataelem import RawDataElement
    from pydicom.tag import Tag

    tag = tag_for_keyword(keyword)
    vr = pydicom.datadict.dictionary_VR(tag).partition(" ")[0]
    value = text.encode("utf-8")
    dataset.set_original_encoding(False, True)
    dataset._dict[Tag(tag)] = RawDataElement(Tag(tag), vr, len(value), value, 0, False, True, True)


def with_pixels(dataset: Dataset, pixels: bytes) -> bytes:
    dataset.PixelData = pixels + b"\0" * (len(pixels) % 2)
    dataset["PixelData"].is_undefined_length = True
    try:
        return bytes_of(dataset)
    except ValueError:  # pydicom does not write what is not encapsulated
        dataset["PixelData"].is_undefined_length = False
        syntax, dataset.file_meta.TransferSyntaxUID = dataset.file_meta.TransferSyntaxUID, ExplicitVRLittleEndian
        content = with_syntax(bytes_of(dataset), syntax)
        dataset.file_meta.TransferSyntaxUID = syntax
        return content


def with_syntax(content: bytes, syntax: str) -> bytes:
    """Another transfer syntax in the file's meta information, and all the rest as it was."""
    start = content.find(b"\x02\x00\x10\x00UI")
    (length,) = struct.unpack_from("<H", content, start + 6)
    value = syntax.encode() + b"\0" * (len(syntax) % 2)
    (meta,) = struct.unpack_from("<I", content, 140)
    content = content[:140] + struct.pack("<I", meta + len(value) - length) + content[144:]
    return content[: start + 6] + struct.pack("<H", len(value)) + value + content[start + 8 + length :]
