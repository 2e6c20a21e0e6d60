"""Compressed pixels, through the decoders that pydicom finds installed."""

import struct
from collections.abc import Iterator, Sequence

import numpy as np

from spleen.errors import InputError
from spleen.imaging.dicom.frame import Instance
from spleen.imaging.dicom.header import read_whole

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
_START_OF_FRAME = {0xC0, 0xC1, 0xC2, 0xC3, 0xF7}  # of JPEG and JPEG-LS
_SIZE_OF_JPEG_2000 = b"\xff\x4f\xff\x51"


_UNCOMPRESSED = ("1.2.840.10008.1.2.1", "1.2.840.10008.1.2")


def readable_syntaxes() -> list[str]:
    """The transfer syntaxes that can be read with what is installed, uncompressed ones first."""
    from pydicom.pixels import get_decoder
    from pydicom.uid import UID

    return [*_UNCOMPRESSED, *(syntax for syntax in _NEEDS if get_decoder(UID(syntax)).is_available)]


def decode(instance: Instance, indices: Sequence[int]) -> Iterator[np.ndarray]:
    """The stored values of some frames of a compressed file.

    Raises InputError for a transfer syntax that is not known or whose decoder is not installed, and for frames whose
    own header promises another size than the file's: they would be allocated before anything is compared.
    """
    from pydicom.encaps import get_frame
    from pydicom.pixels import get_decoder, pixel_array
    from pydicom.uid import UID

    syntax = instance.pixels.transfer_syntax
    name, package = _NEEDS.get(syntax, (UID(syntax).name, ""))
    if syntax not in _NEEDS:
        raise InputError(
            f"{instance.path} has the transfer syntax {name}, which is not read; convert it, for example with "
            "gdcmconv --raw IN OUT"
        )
    if not get_decoder(UID(syntax)).is_available:
        raise InputError(
            f"{instance.path} is compressed ({name}), which needs {package}: pip install 'spleen[dicom-codecs]'"
        )
    dataset = read_whole(instance.path)
    if "PixelData" not in dataset:
        raise InputError(f"{instance.path} is truncated: it has no pixels; copy it again")
    for index in indices:
        _check_size(get_frame(dataset.PixelData, index, number_of_frames=instance.n_frames), instance)
        values = pixel_array(dataset, index=index, raw=True)
        if values.shape != (instance.pixels.rows, instance.pixels.columns):
            raise InputError(
                f"{instance.path}: a frame has {values.shape} pixels, the header says "
                f"{instance.pixels.rows} × {instance.pixels.columns}"
            )
        yield values


def _check_size(frame: bytes, instance: Instance) -> None:
    found = _size_of(frame)
    wanted = instance.pixels.rows, instance.pixels.columns
    if found is not None and found != wanted:
        raise InputError(
            f"{instance.path} is damaged: a compressed frame has {found[0]} × {found[1]} pixels, the header says "
            f"{wanted[0]} × {wanted[1]}"
        )


def _size_of(frame: bytes) -> tuple[int, int] | None:
    """Rows and columns of a JPEG, JPEG-LS or JPEG 2000 frame by its own header; None if it has none."""
    start = frame.find(_SIZE_OF_JPEG_2000, 0, 64)
    if start >= 0 and len(frame) >= start + 24:
        right, bottom, left, top = struct.unpack_from(">4I", frame, start + 8)
        return bottom - top, right - left
    if frame[:2] != b"\xff\xd8":
        return None
    at = 2
    while at + 9 <= len(frame) and frame[at] == 0xFF:
        if frame[at + 1] in _START_OF_FRAME:
            rows, columns = struct.unpack_from(">2H", frame, at + 5)
            return rows, columns
        at += 2 + int.from_bytes(frame[at + 2 : at + 4], "big")
    return None
