"""Damaged DICOM files by the hundred, and a process that reads each of them under limits of time and memory.

    python -m tests._helpers.dicom_mutants FOLDER EVERY

prints one line of JSON for each tried mutant: its name, and how it ended.
"""

import io
import json
import resource
import signal
import struct
import sys
import time
import zlib
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory
from types import FrameType

import numpy as np
import pydicom
from pydicom import Dataset
from pydicom.datadict import tag_for_keyword
from pydicom.encaps import encapsulate
from pydicom.uid import (
    UID,
    AllTransferSyntaxes,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from spleen.dicom.write_series import write_series
from spleen.errors import InputError
from spleen.exploration.explore import explore
from spleen.imaging.native import read_native
from tests._helpers.nifti import ras_affine

Folder = dict[str, bytes]
"""Content of the files of one mutant by name; folders in a name are made."""
Mutant = tuple[str, Folder]

SECONDS_PER_FILE = 60  # read twice, and 20 seconds for a frame that a decoder does not come to an end with
BYTES_ABOVE_START = 512 * 2**20
_SHAPE = (48, 40, 3)
_LONG_VRS = {"OB", "OD", "OF", "OL", "OV", "OW", "SQ", "SV", "UC", "UN", "UR", "UT", "UV"}
_NUMBERS = (
    "1e400", "-1e308", "nan", "inf", "", " ", "abc", "1\\2", "0", "-1", "1e-320", "9" * 400, "1,5", "\0", "é", "0x10",
    "1e308\\1e308\\-1e308", "1\\0\\0\\1\\0\\0", "0\\0\\0\\0\\0\\0", "1e200\\0\\0\\0\\1e-200\\0",
)  # fmt: skip
_NUMERIC = (
    "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness", "RescaleSlope",
    "RescaleIntercept", "SeriesNumber", "InstanceNumber", "AcquisitionNumber",
)  # fmt: skip


# Sound files ----------------------------------------------------------------------------------------------------------


def _bytes_of(dataset: Dataset) -> bytes:
    """As pydicom writes it, whether or not it keeps to the standard."""
    stream = io.BytesIO()
    pydicom.dcmwrite(stream, dataset, enforce_file_format=False)
    return stream.getvalue()


def _read(content: bytes) -> Dataset:
    return pydicom.dcmread(io.BytesIO(content), force=True)


def _sound(folder: Path) -> Folder:
    array = np.arange(np.prod(_SHAPE)).reshape(_SHAPE).astype(np.int16)
    return {path.name: path.read_bytes() for path in write_series(folder, array, ras_affine())}


def _enhanced(files: Folder) -> Dataset:
    """The series as one multi-frame file."""
    datasets = [_read(content) for content in files.values()]
    whole = _read(next(iter(files.values())))
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


def _elements(content: bytes) -> Iterator[tuple[str, int, int, bool]]:
    """Name, offset of the tag, offset of the value, and whether its length has four bytes, of a sound explicit file."""
    dataset = _read(content)
    for part in (dataset.file_meta, dataset):
        for element in part:
            start = content.find(struct.pack("<HH", element.tag.group, element.tag.elem) + element.VR.encode())
            long = element.VR in _LONG_VRS
            if start >= 0:
                yield element.keyword, start, start + (12 if long else 8), long


# Mutants --------------------------------------------------------------------------------------------------------------


def mutants(folder: Path) -> Iterator[Mutant]:
    """All of them, always the same."""
    files = _sound(folder)
    first, middle, last = files
    content = files[middle]

    def in_series(changed: bytes) -> Folder:
        return {first: files[first], middle: changed, last: files[last]}

    def each_file(change: Callable[[Dataset], None]) -> Folder:
        return {name: _changed(each, change) for name, each in files.items()}

    yield "sound", files
    for name, changed in (*_bytewise(content), *_elementwise(content)):
        yield name, in_series(changed)
    yield from _by_value(files, each_file)
    yield from _multi_frame(files)
    yield from _compressed(files)
    yield from _nested(content, in_series)
    yield from _directories(files)
    yield from _deflated(files)
    yield from _no_dicom()


def _changed(content: bytes, change: Callable[[Dataset], None]) -> bytes:
    dataset = _read(content)
    change(dataset)
    return _bytes_of(dataset)


def _bytewise(content: bytes) -> Iterator[tuple[str, bytes]]:
    header = content.find(b"\xe0\x7f\x10\x00")
    for cut in (*range(0, header + 16, 11), *range(header + 16, len(content), 1500)):
        yield f"truncated at {cut}", content[:cut]
    random = np.random.default_rng(17)
    for number in range(250):
        damaged = bytearray(content)
        for at in random.integers(0, header + 20, int(random.integers(1, 9))):
            damaged[at] = int(random.integers(256))
        yield f"random bytes {number}", bytes(damaged)
    for number in range(40):
        at, length = int(random.integers(132, header)), int(random.integers(1, 60))
        yield f"lost bytes {number}", content[:at] + content[at + length :]
        yield f"doubled bytes {number}", content[: at + length] + content[at:]


def _elementwise(content: bytes) -> Iterator[tuple[str, bytes]]:
    """Each element without its own, with another value representation, and with lying lengths."""
    wrong = ["SQ", "DS", "FD", "PN", "OW", "UN", "AT", "??", "\0\0"]
    for number, (name, start, value, long) in enumerate(_elements(content)):
        yield f"{name} missing", content[:start] + content[value + _length(content, start, long) :]
        for vr in (wrong[number % 9], wrong[(number + 4) % 9]):
            yield f"{name} as {vr!r}", content[: start + 4] + vr.encode() + content[start + 6 :]
        at = start + (8 if long else 6)
        for length in (0, 1, 0xFFFE, 0xFFFFFFFE if long else 0xFFFF, 0xFFFFFFFF if long else 7):
            packed = struct.pack("<I" if long else "<H", length)
            yield f"{name} of length {length:#x}", content[:at] + packed + content[at + len(packed) :]


def _length(content: bytes, start: int, long: bool) -> int:
    return struct.unpack_from("<I" if long else "<H", content, start + (8 if long else 6))[0]


def _raw(dataset: Dataset, keyword: str, text: str) -> None:
    """Set a value as bytes, which pydicom would not write otherwise."""
    from pydicom.dataelem import RawDataElement
    from pydicom.tag import Tag

    tag = tag_for_keyword(keyword)
    vr = pydicom.datadict.dictionary_VR(tag).partition(" ")[0]
    value = text.encode("utf-8")
    dataset.set_original_encoding(False, True)
    dataset._dict[Tag(tag)] = RawDataElement(Tag(tag), vr, len(value), value, 0, False, True, True)


def _by_value(files: Folder, each_file: Callable[[Callable[[Dataset], None]], Folder]) -> Iterator[Mutant]:
    for keyword, text in product(_NUMERIC, _NUMBERS):
        yield f"{keyword} = {text[:20]!r}", each_file(lambda dataset, k=keyword, t=text: _raw(dataset, k, t))
    bits = ((0, 0, 0), (1, 1, 0), (8, 8, 7), (12, 12, 11), (16, 12, 15), (16, 12, 3), (16, 17, 16), (16, 0, 0))
    bits += ((16, 16, 65535), (16, 65535, 15), (24, 24, 23), (32, 32, 31), (64, 64, 63), (16, 8, 6), (32, 1, 31))
    for (allocated, stored, high), signed in product(bits, (0, 1, 7)):
        yield (
            f"bits {allocated} {stored} {high} {signed}",
            each_file(lambda d, a=allocated, s=stored, h=high, n=signed: _set_bits(d, a, s, h, n)),
        )
    for rows, columns in product((0, 1, 40, 65535), (0, 1, 48, 30000, 65535)):
        yield (
            f"{rows} x {columns}",
            each_file(lambda d, r=rows, c=columns: (setattr(d, "Rows", r), setattr(d, "Columns", c))),
        )
    for syntax in (*AllTransferSyntaxes, "1.2.3", "", "x" * 64):
        yield f"transfer syntax {syntax}", {name: _with_syntax(content, syntax) for name, content in files.items()}
    yield from _by_text(each_file)
    same = _read(files["IM0001.dcm"])
    same.PixelData = bytes(len(same.PixelData))
    yield "two of one UID", files | {"IM0009.dcm": _bytes_of(same)}


def _by_text(each_file: Callable[[Callable[[Dataset], None]], Folder]) -> Iterator[Mutant]:
    for keyword in ("SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID", "FrameOfReferenceUID", "SOPClassUID"):
        for text in ("../../etc/passwd", "", "\0", "9" * 60000, "é\n\x1b[2J", "a/b\\c"):
            yield f"{keyword} = {text[:16]!r}", each_file(lambda d, k=keyword, t=text: _raw(d, k, t))
    for text in ("ISO_IR 999", "\\ISO 2022 IR 87", "GB18030", "utf_7", "\0", "ISO 2022 IR 149\\ISO_IR 192"):

        def in_charset(d: Dataset, t: str = text) -> None:
            _raw(d, "SpecificCharacterSet", t)
            _raw(d, "SeriesDescription", "Ünïcödé \x1b$B0!")

        yield f"character set {text!r}", each_file(in_charset)
    for text in ("RGB", "PALETTE COLOR", "", "MONOCHROME2\\MONOCHROME1", "\0"):
        yield f"photometric {text!r}", each_file(lambda d, t=text: _raw(d, "PhotometricInterpretation", t))
    for text in ("-1", "0", "2", "99999", "2147483648", "1e400", "abc", "1\\2", "1.5"):
        yield f"frames without places = {text}", each_file(lambda d, t=text: _raw(d, "NumberOfFrames", t))


def _set_bits(dataset: Dataset, allocated: int, stored: int, high: int, signed: int) -> None:
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = allocated, stored, high
    dataset.PixelRepresentation = signed


def _multi_frame(files: Folder) -> Iterator[Mutant]:
    sound = _bytes_of(_enhanced(files))
    yield "sound multi-frame", {"a.dcm": sound}

    def changes() -> Iterator[tuple[str, Callable[[Dataset], object]]]:
        for text in ("-1", "0", "1", "2", "4", "99999", "2147483648", "abc"):
            yield f"NumberOfFrames {text}", lambda d, t=text: _raw(d, "NumberOfFrames", t)
        for keyword in ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"):
            yield f"no {keyword}", lambda d, k=keyword: delattr(d, k)
            yield f"empty {keyword}", lambda d, k=keyword: setattr(d, k, [])
            yield f"doubled {keyword}", lambda d, k=keyword: d[k].value.extend(list(d[k].value))
            yield f"bare {keyword}", lambda d, k=keyword: setattr(d, k, [Dataset()] * len(d[k].value))
        for keyword in ("PixelMeasuresSequence", "PlaneOrientationSequence"):
            yield f"no {keyword}", lambda d, k=keyword: delattr(d.SharedFunctionalGroupsSequence[0], k)
            yield f"empty {keyword}", lambda d, k=keyword: setattr(d.SharedFunctionalGroupsSequence[0], k, [])
        yield "frame without place", lambda d: delattr(d.PerFrameFunctionalGroupsSequence[1], "PlanePositionSequence")
        yield "pixels cut", lambda d: setattr(d, "PixelData", d.PixelData[:101])
        yield "no pixels", lambda d: delattr(d, "PixelData")

    for name, change in changes():
        yield f"multi-frame: {name}", {"a.dcm": _changed(sound, change)}
    random = np.random.default_rng(23)
    start = sound.find(struct.pack("<HH", 0x5200, 0x9229))
    for number in range(60):
        damaged = bytearray(sound)
        for at in random.integers(start, sound.find(b"\xe0\x7f\x10\x00") + 12, int(random.integers(1, 5))):
            damaged[at] = int(random.integers(256))
        yield f"multi-frame: random bytes {number}", {"a.dcm": bytes(damaged)}


def _compressed(files: Folder) -> Iterator[Mutant]:
    random = np.random.default_rng(31)
    for syntax in (RLELossless, JPEG2000Lossless, JPEGLSLossless, JPEGLosslessSV1):
        sound = {name: _compress(content, syntax) for name, content in files.items()}
        yield f"sound {syntax.name}", sound
        dataset = _read(sound["IM0001.dcm"])
        frame = pydicom.encaps.get_frame(dataset.PixelData, 0, number_of_frames=1)
        for name, lie in _lying(frame, random):
            yield f"{syntax.name}: {name}", sound | {"IM0001.dcm": _with_pixels(dataset, encapsulate([lie]))}
        pixels = {
            "no frames": b"", "no offset table": encapsulate([frame])[8:], "not encapsulated": frame,
            "offset table of huge offsets": b"\xfe\xff\x00\xe0\x04\0\0\0\xff\xff\xff\xff" + encapsulate([frame])[8:],
            "huge item": encapsulate([frame])[:12] + b"\xff\xff\xff\x7f" + frame,
            "endless items": encapsulate([frame]) + b"\xfe\xff\x00\xe0\0\0\0\0" * 5000,
            "empty fragment": encapsulate([b"\0\0"]),
        }  # fmt: skip
        for name, each in pixels.items():
            yield f"{syntax.name}: {name}", sound | {"IM0001.dcm": _with_pixels(dataset, each)}
    jpegs = {
        JPEGBaseline8Bit: b"\xff\xd8\xff\xc0\x00\x0b\x08\xff\xff\xff\xff\x01\x01\x11\x00\xff\xd9",
        JPEGLosslessSV1: b"\xff\xd8\xff\xff\xff\xc3\x00\x0b\x10\xff\xff\xff\xff\x01\x01\x11\x00\xff\xd9",
    }
    for syntax, frame in jpegs.items():
        dataset = _read(files["IM0001.dcm"])
        dataset.file_meta.TransferSyntaxUID = syntax
        dataset["PixelData"].VR = "OB"
        yield f"{syntax.name}: huge by its own header", {"a.dcm": _with_pixels(dataset, encapsulate([frame]))}
        yield (
            f"{syntax.name}: endless markers",
            {"a.dcm": _with_pixels(dataset, encapsulate([b"\xff\xd8" + b"\xff\xe0\0\0" * 99]))},
        )


def _compress(content: bytes, syntax: UID) -> bytes:
    if syntax == JPEGLosslessSV1:  # pydicom cannot
        return _compress_by_gdcm(content)
    dataset = _read(content)
    dataset.compress(syntax, generate_instance_uid=False)
    return _bytes_of(dataset)


def _compress_by_gdcm(content: bytes) -> bytes:
    import gdcm

    with TemporaryDirectory() as folder:
        path = Path(folder) / "a.dcm"
        path.write_bytes(content)
        reader, change, writer = gdcm.ImageReader(), gdcm.ImageChangeTransferSyntax(), gdcm.ImageWriter()
        reader.SetFileName(str(path))
        assert reader.Read()
        change.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.JPEGLosslessProcess14_1))
        change.SetInput(reader.GetImage())
        assert change.Change()
        writer.SetFile(reader.GetFile())
        writer.SetImage(change.GetOutput())
        writer.SetFileName(str(path))
        assert writer.Write()
        return path.read_bytes()


def _lying(frame: bytes, random: np.random.Generator) -> Iterator[tuple[str, bytes]]:
    """A compressed frame whose own header lies, that is cut, and with damaged bytes."""
    codestream = frame.find(b"\xff\x4f\xff\x51")
    if codestream >= 0:
        for at, name in (
            (8, "width"),
            (12, "height"),
            (16, "left"),
            (20, "top"),
            (24, "tile width"),
            (28, "tile height"),
        ):
            for value in (0, 1, 0x7FFFFFFF, 0xFFFFFFFF):
                place = codestream + at
                yield f"{name} {value:#x}", frame[:place] + struct.pack(">I", value) + frame[place + 4 :]
        for components in (0, 2, 16384):
            place = codestream + 40
            yield f"{components} components", frame[:place] + struct.pack(">H", components) + frame[place + 2 :]
        lying = frame[:8] + struct.pack(">2I", 60000, 60000) + frame[16:]
        boxes = b"\0\0\0\x0cjP  \r\n\x87\n" + struct.pack(">I", 120) + b"free" + bytes(112)
        yield "huge in a JP2 file", boxes + struct.pack(">I", 0) + b"jp2c" + lying
        yield "huge behind a decoy", boxes[:-60] + frame[:60] + struct.pack(">I", 0) + b"jp2c" + lying
    start = max(frame.find(b"\xff\xf7"), frame.find(b"\xff\xc3"))
    if start >= 0:
        for rows, columns, components in ((65535, 65535, 1), (0, 48, 1), (40, 48, 255), (40, 48, 0)):
            changed = struct.pack(">HHB", rows, columns, components)
            yield f"{rows} x {columns} x {components}", frame[: start + 5] + changed + frame[start + 10 :]
        yield "fill bytes", frame[:start] + b"\xff\xff" + frame[start:]
    for number in range(50):
        damaged = bytearray(frame)
        for at in random.integers(0, min(len(frame), 160), int(random.integers(1, 5))):
            damaged[at] = int(random.integers(256))
        yield f"damaged {number}", bytes(damaged)
    for cut in range(2, len(frame), max(1, len(frame) // 9)):
        yield f"cut at {cut}", frame[:cut]


def _with_pixels(dataset: Dataset, pixels: bytes) -> bytes:
    dataset.PixelData = pixels + b"\0" * (len(pixels) % 2)
    dataset["PixelData"].is_undefined_length = True
    try:
        return _bytes_of(dataset)
    except ValueError:  # pydicom does not write what is not encapsulated
        dataset["PixelData"].is_undefined_length = False
        syntax, dataset.file_meta.TransferSyntaxUID = dataset.file_meta.TransferSyntaxUID, ExplicitVRLittleEndian
        content = _with_syntax(_bytes_of(dataset), syntax)
        dataset.file_meta.TransferSyntaxUID = syntax
        return content


def _with_syntax(content: bytes, syntax: str) -> bytes:
    """Another transfer syntax in the file's meta information, and all the rest as it was."""
    start = content.find(b"\x02\x00\x10\x00UI")
    (length,) = struct.unpack_from("<H", content, start + 6)
    value = syntax.encode() + b"\0" * (len(syntax) % 2)
    (meta,) = struct.unpack_from("<I", content, 140)
    content = content[:140] + struct.pack("<I", meta + len(value) - length) + content[144:]
    return content[: start + 6] + struct.pack("<H", len(value)) + value + content[start + 8 + length :]


def _nested(content: bytes, in_series: Callable[[bytes], Folder]) -> Iterator[Mutant]:
    """Sequences in sequences, at places where they are looked into and where they are not."""
    places = {"shared groups": (0x5200, 0x9229), "unknown": (0x5200, 0x0010), "referenced": (0x0008, 0x1140)}
    cut = content.find(b"\xe0\x7f\x10\x00")
    for (name, (group, element)), depth in product(places.items(), (3, 60, 900, 5000, 40000)):
        head = struct.pack("<HH", group, element) + b"SQ\0\0\xff\xff\xff\xff"
        opened = (head + b"\xfe\xff\x00\xe0\xff\xff\xff\xff") * depth
        closed = (b"\xfe\xff\x0d\xe0\0\0\0\0" + b"\xfe\xff\xdd\xe0\0\0\0\0") * depth
        at = cut if group > 0x20 else content.find(b"\x08\x00\x60\x00CS")
        yield f"{depth} deep in {name}", in_series(content[:at] + opened + closed + content[at:])
        yield f"{depth} deep in {name}, open", in_series(content[:at] + opened + content[at:])
    for items in (1000, 20000):
        head = struct.pack("<HH", 0x5200, 0x9230) + b"SQ\0\0\xff\xff\xff\xff"
        wide = head + b"\xfe\xff\x00\xe0\0\0\0\0" * items + b"\xfe\xff\xdd\xe0\0\0\0\0"
        yield f"{items} frames described", in_series(content[:cut] + wide + content[cut:])


def _directories(files: Folder) -> Iterator[Mutant]:
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
    return _bytes_of(directory)


def _deflated(files: Folder) -> Iterator[Mutant]:
    dataset = _read(files["IM0001.dcm"])
    dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    sound = _bytes_of(dataset)
    yield "deflated", {"a.dcm": sound}
    body = sound.find(b"1.2.840.10008.1.2.1.99")
    bomb = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    head = struct.pack("<HH", 0x0008, 0x0008) + b"UN\0\0" + struct.pack("<I", 3 * 2**30)
    packed = bomb.compress(head) + b"".join(bomb.compress(bytes(2**24)) for _ in range(96)) + bomb.flush()
    meta = sound[: body + 22]
    yield "deflated bomb", {"a.dcm": meta + packed}
    far = struct.pack("<HH", 2, 3) + b"UI" + struct.pack("<H", 5000) + b"1" * 5000
    at = meta.find(b"\x02\0\x10\0UI")
    yield "deflated bomb behind a long UID", {"a.dcm": meta[:at] + far + meta[at:] + packed}


def _no_dicom() -> Iterator[Mutant]:
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


# Reading under limits -------------------------------------------------------------------------------------------------


class _TooLongError(BaseException):
    pass


def _too_long(_signal: int, _frame: FrameType | None) -> None:
    raise _TooLongError


def _write(folder: Path, content: Folder) -> Path:
    folder.mkdir()
    for name, each in content.items():
        (folder / name).write_bytes(each)
    return folder


def outcome(folder: Path) -> str:
    """How exploring a folder and reading it for prediction end: read, refused, or what else came."""
    signal.setitimer(signal.ITIMER_REAL, SECONDS_PER_FILE)
    try:
        str(explore(folder, identifying=True))
        read_native(folder)
    except InputError:
        return "refused"
    except _TooLongError:
        return f"longer than {SECONDS_PER_FILE} s"
    except BaseException as error:
        return f"{type(error).__name__}: {error}"[:300]
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    return "read"


def _peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main() -> None:
    """Read every N-th mutant; only sound ones are never left out."""
    parent, every = Path(sys.argv[1]), int(sys.argv[2])
    signal.signal(signal.SIGALRM, _too_long)
    import logging

    logging.disable()
    read_native(_write(parent / "first", _sound(parent / "sound")))
    start = _peak_bytes()
    for number, (name, content) in enumerate(mutants(parent / "sound")):
        if number % every and not name.startswith("sound"):
            continue
        print(json.dumps({"trying": name}), flush=True)
        before, began = _peak_bytes(), time.monotonic()
        ended = outcome(_write(parent / str(number), content))
        if _peak_bytes() - before > BYTES_ABOVE_START:
            ended = f"needed {(_peak_bytes() - start) / 2**20:.0f} MiB"
        seconds = round(time.monotonic() - began, 2)
        print(json.dumps({"name": name, "ended": ended, "seconds": seconds}), flush=True)
    print(json.dumps({"peak_mib": round((_peak_bytes() - start) / 2**20)}))


if __name__ == "__main__":
    main()
