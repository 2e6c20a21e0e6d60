"""Damaged DICOMDIR files, and files that are no DICOM at all."""

import struct
from collections.abc import Iterator

import numpy as np
import pydicom
from pydicom import Dataset
from pydicom.uid import ExplicitVRLittleEndian

from tests._helpers.dicom_damage.files import Folder, Mutant, bytes_of


def damaged_directories(files: Folder) -> Iterator[Mutant]:
    names: dict[str, list[object]] = {
        "sound": [["IM0001"], ["IM0002"], ["IM0003"]], "itself": [["DICOMDIR"]], "twice": [["IM0001"]] * 3,
        "outside": [["..", "IM0001"]], "absolute": [["", "etc", "passwd"]], "root": ["/etc/passwd"], "none": [[]],
        "missing file": [["IM0007"]], "folder": [["."]], "odd": [["IM\n0001"]], "very long": [["A" * 300]],
        "deep": [["A"] * 3000], "no names": [],
    }  # fmt: skip
    plain = {name.removesuffix(".dcm"): content for name, content in files.items()}
    for name, listed in names.items():
        yield f"DICOMDIR: {name}", plain | {"DICOMDIR": _directory(listed)}
    directory = _directory([["IM0001"], ["IM0002"], ["IM0003"]])
    for vr in ("SQ", "PN", "FD", "AT", "UN", "OB"):
        yield (
            f"DICOMDIR: names as {vr}",
            plain | {"DICOMDIR": directory.replace(b"\x04\0\0\x15CS", b"\x04\0\0\x15" + vr.encode())},
        )
    yield "DICOMDIR: records as text", plain | {"DICOMDIR": directory.replace(b"\x04\0\x20\x12SQ", b"\x04\0\x20\x12LO")}
    for cut in range(140, len(directory), 37):
        yield f"DICOMDIR: cut at {cut}", plain | {"DICOMDIR": directory[:cut]}
    random = np.random.default_rng(47)
    for number in range(60):
        damaged = bytearray(directory)
        for at in random.integers(132, len(directory), int(random.integers(1, 5))):
            damaged[at] = int(random.integers(256))
        yield f"DICOMDIR: random bytes {number}", plain | {"DICOMDIR": bytes(damaged)}


def _directory(names: list[object]) -> bytes:
    """A directory whose records refer to each other in a circle."""
    directory = Dataset()
    directory.file_meta = pydicom.dataset.FileMetaDataset()
    directory.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.1.3.10"
    directory.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    directory.preamble = bytes(128)
    directory.OffsetOfTheFirstDirectoryRecordOfTheRootDirectoryEntity = 200
    records = []
    for name in names:
        record = Dataset()
        record.OffsetOfTheNextDirectoryRecord = record.OffsetOfReferencedLowerLevelDirectoryEntity = 200
        record.DirectoryRecordType, record.ReferencedFileID = "IMAGE", name
        records.append(record)
    directory.DirectoryRecordSequence = records
    return bytes_of(directory)


def other_files() -> Iterator[Mutant]:
    random = np.random.default_rng(53)
    start = bytes(128) + b"DICM"
    contents = {
        "empty": b"", "a byte": b"\0", "only the preamble": start, "text": b"patient,volume\n1,2\n",
        "zip": b"PK\x03\x04" + bytes(100), "gzip": b"\x1f\x8b\x08" + bytes(100),
        "a page": b"<!doctype html><html></html>",
        "zeros": bytes(100000), "ones": b"\xff" * 100000, "zeros after the preamble": start + bytes(100000),
        "ones after the preamble": start + b"\xff" * 100000,
        "many empty elements": start + (struct.pack("<HH", 8, 9) + b"LO\0\0") * 20000,
    }  # fmt: skip
    for name, content in contents.items():
        yield name, {"a.dcm": content}
    for number in range(40):
        noise = random.integers(0, 256, int(random.integers(1, 3000)), dtype=np.uint8).tobytes()
        yield f"noise {number}", {"a.dcm": start + noise}
