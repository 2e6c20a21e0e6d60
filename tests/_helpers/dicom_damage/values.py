"""Sound files with values that make no sense."""

import struct
from collections.abc import Callable, Iterator
from itertools import product

import numpy as np
from pydicom import Dataset
from pydicom.uid import AllTransferSyntaxes

from tests._helpers.dicom_damage.files import (
    Folder,
    Mutant,
    as_multi_frame,
    bytes_of,
    read,
    set_raw,
    with_change,
    with_syntax,
)

_NUMBERS = (
    "1e400", "-1e308", "nan", "inf", "", " ", "abc", "1\\2", "0", "-1", "1e-320", "9" * 400, "1,5", "\0", "é", "0x10",
    "1e308\\1e308\\-1e308", "1\\0\\0\\1\\0\\0", "0\\0\\0\\0\\0\\0", "1e200\\0\\0\\0\\1e-200\\0",
)  # fmt: skip
_NUMERIC = (
    "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness", "RescaleSlope",
    "RescaleIntercept", "SeriesNumber", "InstanceNumber", "AcquisitionNumber",
)  # fmt: skip


def wrong_values(files: Folder, each_file: Callable[[Callable[[Dataset], None]], Folder]) -> Iterator[Mutant]:
    for keyword, text in product(_NUMERIC, _NUMBERS):
        yield f"{keyword} = {text[:20]!r}", each_file(lambda dataset, k=keyword, t=text: set_raw(dataset, k, t))
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
        yield f"transfer syntax {syntax}", {name: with_syntax(content, syntax) for name, content in files.items()}
    yield from _by_text(each_file)
    same = read(files["IM0001.dcm"])
    same.PixelData = bytes(len(same.PixelData))
    yield "two of one UID", files | {"IM0009.dcm": bytes_of(same)}


def _by_text(each_file: Callable[[Callable[[Dataset], None]], Folder]) -> Iterator[Mutant]:
    for keyword in ("SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID", "FrameOfReferenceUID", "SOPClassUID"):
        for text in ("../../etc/passwd", "", "\0", "9" * 60000, "é\n\x1b[2J", "a/b\\c"):
            yield f"{keyword} = {text[:16]!r}", each_file(lambda d, k=keyword, t=text: set_raw(d, k, t))
    for text in ("ISO_IR 999", "\\ISO 2022 IR 87", "GB18030", "utf_7", "\0", "ISO 2022 IR 149\\ISO_IR 192"):

        def in_charset(d: Dataset, t: str = text) -> None:
            set_raw(d, "SpecificCharacterSet", t)
            set_raw(d, "SeriesDescription", "Ünïcödé \x1b$B0!")

        yield f"character set {text!r}", each_file(in_charset)
    for text in ("RGB", "PALETTE COLOR", "", "MONOCHROME2\\MONOCHROME1", "\0"):
        yield f"photometric {text!r}", each_file(lambda d, t=text: set_raw(d, "PhotometricInterpretation", t))
    for text in ("-1", "0", "2", "99999", "2147483648", "1e400", "abc", "1\\2", "1.5"):
        yield f"frames without places = {text}", each_file(lambda d, t=text: set_raw(d, "NumberOfFrames", t))


def _set_bits(dataset: Dataset, allocated: int, stored: int, high: int, signed: int) -> None:
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = allocated, stored, high
    dataset.PixelRepresentation = signed


def wrong_multi_frame(files: Folder) -> Iterator[Mutant]:
    sound = bytes_of(as_multi_frame(files))
    yield "sound multi-frame", {"a.dcm": sound}

    def changes() -> Iterator[tuple[str, Callable[[Dataset], object]]]:
        for text in ("-1", "0", "1", "2", "4", "99999", "2147483648", "abc"):
            yield f"NumberOfFrames {text}", lambda d, t=text: set_raw(d, "NumberOfFrames", t)
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
        yield f"multi-frame: {name}", {"a.dcm": with_change(sound, change)}
    random = np.random.default_rng(23)
    start = sound.find(struct.pack("<HH", 0x5200, 0x9229))
    for number in range(60):
        damaged = bytearray(sound)
        for at in random.integers(start, sound.find(b"\xe0\x7f\x10\x00") + 12, int(random.integers(1, 5))):
            damaged[at] = int(random.integers(256))
        yield f"multi-frame: random bytes {number}", {"a.dcm": bytes(damaged)}
