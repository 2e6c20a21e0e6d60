"""Compressed pixels, through the decoders that pydicom finds installed."""

import struct
from collections.abc import Iterator, Sequence

import numpy as np

from spleen.errors import InputError
from spleen.imaging.dicom.frame import Instance
from spleen.imaging.dicom.header import read_whole
from spleen.imaging.dicom.jpeg_process import JpegProcess

# Transfer syntax → its name, and the package that decodes it.
_NEEDS = {
    "1.2.840.10008.1.2.4.50": ("JPEG baseline", "python-gdcm"),
    "1.2.840.10008.1.2.4.51": ("JPEG extended", "python-gdcm"),
    "1.2.840.10008.1.2.4.57": ("JPEG lossless", "python-gdcm"),
    "1.2.840.10008.1.2.4.70": ("JPEG lossless", "python-gdcm"),
    "1.2.840.10008.1.2.4.80": ("JPEG-LS lossless", "pyjpegls"),
    "1.2.840.10008.1.2.4.81": ("JPEG-LS", "pyjpegls"),
    "1.2.840.10008.1.2.4.90": ("JPEG 2000 lossless", "pylibjpeg-openjpeg"),
    "1.2.840.10008.1.2.4.91": ("JPEG 2000", "pylibjpeg-openjpeg"),
    "1.2.840.10008.1.2.4.201": ("HTJ2K lossless", "pylibjpeg-openjpeg"),
    "1.2.840.10008.1.2.4.202": ("HTJ2K lossless", "pylibjpeg-openjpeg"),
    "1.2.840.10008.1.2.4.203": ("HTJ2K", "pylibjpeg-openjpeg"),
    "1.2.840.10008.1.2.5": ("RLE lossless", ""),
}
# The decoders that may be taken, in this order, and those of them that damaged frames upset too much for this process.
_DECODERS = {"python-gdcm": ("pylibjpeg", "gdcm", "pillow"), "pyjpegls": ("pyjpegls",)}
_OTHER_DECODERS = ("pylibjpeg", "pydicom")
_APART = ("gdcm", "pyjpegls")
_START_OF_FRAME = {0xC0, 0xC1, 0xC2, 0xC3, 0xF7}  # of JPEG and JPEG-LS
_END_OF_IMAGE, _MOST_PADDING = b"\xff\xd9", 16
_SIZE_OF_JPEG_2000 = b"\xff\x4f\xff\x51"


_UNCOMPRESSED = ("1.2.840.10008.1.2.1", "1.2.840.10008.1.2")


def readable_syntaxes() -> list[str]:
    """The transfer syntaxes that can be read with what is installed, uncompressed ones first."""
    return [*_UNCOMPRESSED, *(syntax for syntax in _NEEDS if _decoder(syntax) is not None)]


def _decoder(syntax: str) -> str | None:
    """The decoder to take of those that are installed; None if it is not."""
    from pydicom.pixels.decoders.base import get_decoder
    from pydicom.uid import UID

    installed = get_decoder(UID(syntax)).available_plugins
    return next((each for each in _DECODERS.get(_NEEDS[syntax][1], _OTHER_DECODERS) if each in installed), None)


def decode(instance: Instance, indices: Sequence[int], jpeg: JpegProcess) -> Iterator[np.ndarray]:
    """The stored values of some frames of a compressed file; `jpeg` decodes those of JPEG and JPEG-LS.

    Raises InputError for a transfer syntax that is not known or whose decoder is not installed, and for frames whose
    own header does not promise the size of the file's, in one component: the decoders allocate what it promises.
    """
    from pydicom.encaps import get_frame
    from pydicom.pixels.utils import pixel_array
    from pydicom.uid import UID

    syntax = instance.pixels.transfer_syntax
    name, package = _NEEDS.get(syntax, (UID(syntax).name, ""))
    if syntax not in _NEEDS:
        raise InputError(
            f"{instance.path} has the transfer syntax {name}, which is not read; convert it, for example with "
            "gdcmconv --raw IN OUT"
        )
    decoder = _decoder(syntax)
    if decoder is None:
        raise InputError(
            f"{instance.path} is compressed ({name}), which needs {package}: pip install 'spleen[dicom-codecs]'"
        )
    dataset = read_whole(instance.path)
    if "PixelData" not in dataset:
        raise InputError(f"{instance.path} is truncated: it has no pixels; copy it again")
    for index in indices:
        if package:  # RLE frames have no size of their own
            frame = get_frame(dataset.PixelData, index, number_of_frames=instance.n_frames)
            _check_size(frame, instance)
            if decoder == "pyjpegls" and _END_OF_IMAGE not in frame[-_MOST_PADDING:]:
                raise InputError(f"{instance.path} is truncated: a compressed frame has no end; copy it again")
        if decoder in _APART:
            values = jpeg.frame(instance.path, index, decoder)
        else:
            values = pixel_array(dataset, index=index, raw=True, decoding_plugin=decoder)
        if values.shape != (instance.pixels.rows, instance.pixels.columns):
            raise InputError(
                f"{instance.path}: a frame has {values.shape} pixels, the header says "
                f"{instance.pixels.rows} × {instance.pixels.columns}"
            )
        yield values


def _check_size(frame: bytes, instance: Instance) -> None:
    found = _size_of_jpeg_2000(frame) if frame[:2] != b"\xff\xd8" else _size_of_jpeg(frame)
    if found is None:
        raise InputError(f"{instance.path} is damaged: a compressed frame does not say its size; copy it again")
    rows, columns, components = found
    wanted = instance.pixels.rows, instance.pixels.columns
    if (rows, columns) != wanted or components != 1:
        came = f"{rows} × {columns} pixels" + (f" of {components} components" if components != 1 else "")
        raise InputError(
            f"{instance.path} is damaged: a compressed frame has {came}, the header says {wanted[0]} × {wanted[1]}"
        )


def _size_of_jpeg_2000(frame: bytes) -> tuple[int, int, int] | None:
    """Rows, columns and components by the marker SIZ (ISO 15444-1 A.5.1), also within the boxes of a JP2 file."""
    start = 0
    while frame[start : start + 4] != _SIZE_OF_JPEG_2000 and len(frame) >= start + 8:
        length, kind = struct.unpack_from(">I4s", frame, start)
        start += 8 if kind == b"jp2c" else length
        if kind != b"jp2c" and length < 8:
            return None
    if frame[start : start + 4] != _SIZE_OF_JPEG_2000 or len(frame) < start + 42:
        return None
    right, bottom, left, top = struct.unpack_from(">4I", frame, start + 8)
    (components,) = struct.unpack_from(">H", frame, start + 40)
    return bottom - top, right - left, components


def _size_of_jpeg(frame: bytes) -> tuple[int, int, int] | None:
    """Rows, columns and components by the start of the frame of JPEG or JPEG-LS (ISO 10918-1 B.2.2)."""
    at = 2
    while at + 10 <= len(frame) and frame[at] == 0xFF:
        if frame[at + 1] == 0xFF:  # markers may be filled up
            at += 1
            continue
        if frame[at + 1] in _START_OF_FRAME:
            rows, columns, components = struct.unpack_from(">2HB", frame, at + 5)
            return rows, columns, components
        at += 2 + int.from_bytes(frame[at + 2 : at + 4], "big")
    return None
