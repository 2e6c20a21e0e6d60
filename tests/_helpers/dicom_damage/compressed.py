"""Files whose compressed pixels are damaged, or lie about their size."""

import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pydicom
from pydicom.encaps import encapsulate
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from tests._helpers.dicom_damage.files import Folder, Mutant, bytes_of, read, with_pixels


def damaged_frames(files: Folder) -> Iterator[Mutant]:
    random = np.random.default_rng(31)
    for syntax in (RLELossless, JPEG2000Lossless, JPEGLSLossless, JPEGLosslessSV1):
        sound = {name: _compress(content, syntax) for name, content in files.items()}
        yield f"sound {syntax.name}", sound
        dataset = read(sound["IM0001.dcm"])
        frame = pydicom.encaps.get_frame(dataset.PixelData, 0, number_of_frames=1)
        for name, lie in _lying(frame, random):
            yield f"{syntax.name}: {name}", sound | {"IM0001.dcm": with_pixels(dataset, encapsulate([lie]))}
        pixels = {
            "no frames": b"", "no offset table": encapsulate([frame])[8:], "not encapsulated": frame,
            "offset table of huge offsets": b"\xfe\xff\x00\xe0\x04\0\0\0\xff\xff\xff\xff" + encapsulate([frame])[8:],
            "huge item": encapsulate([frame])[:12] + b"\xff\xff\xff\x7f" + frame,
            "endless items": encapsulate([frame]) + b"\xfe\xff\x00\xe0\0\0\0\0" * 5000,
            "empty fragment": encapsulate([b"\0\0"]),
        }  # fmt: skip
        for name, each in pixels.items():
            yield f"{syntax.name}: {name}", sound | {"IM0001.dcm": with_pixels(dataset, each)}
    jpegs = {
        JPEGBaseline8Bit: b"\xff\xd8\xff\xc0\x00\x0b\x08\xff\xff\xff\xff\x01\x01\x11\x00\xff\xd9",
        JPEGLosslessSV1: b"\xff\xd8\xff\xff\xff\xc3\x00\x0b\x10\xff\xff\xff\xff\x01\x01\x11\x00\xff\xd9",
    }
    for syntax, frame in jpegs.items():
        dataset = read(files["IM0001.dcm"])
        dataset.file_meta.TransferSyntaxUID = syntax
        dataset["PixelData"].VR = "OB"
        yield f"{syntax.name}: huge by its own header", {"a.dcm": with_pixels(dataset, encapsulate([frame]))}
        yield (
            f"{syntax.name}: endless markers",
            {"a.dcm": with_pixels(dataset, encapsulate([b"\xff\xd8" + b"\xff\xe0\0\0" * 99]))},
        )


def _compress(content: bytes, syntax: UID) -> bytes:
    if syntax == JPEGLosslessSV1:  # pydicom cannot
        return _compress_by_gdcm(content)
    dataset = read(content)
    dataset.compress(syntax, generate_instance_uid=False)
    return bytes_of(dataset)


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


def deflated_files(files: Folder) -> Iterator[Mutant]:
    dataset = read(files["IM0001.dcm"])
    dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    sound = bytes_of(dataset)
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
