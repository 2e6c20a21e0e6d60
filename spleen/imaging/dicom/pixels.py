"""The voxels of a series: stored values of any layout, compressed or not, as intensities."""

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any, cast

import numpy as np
from jaxtyping import Integer, Num

from spleen.errors import InputError
from spleen.imaging.dicom.compressed import decode
from spleen.imaging.dicom.frame import Frame, Instance, PixelFormat
from spleen.imaging.dicom.header import damage_as_error
from spleen.imaging.dicom.jpeg_process import JpegProcess
from spleen.imaging.dicom.series import Series

_BIG_ENDIAN = "1.2.840.10008.1.2.2"
_UNCOMPRESSED = ("1.2.840.10008.1.2", "1.2.840.10008.1.2.1", _BIG_ENDIAN, "")
# Scanners write nothing below this as an intensity; what pads a CT is often far below.
_DARKEST_HU = -1024.0
_INTEGERS = (np.int16, np.uint16, np.int32)

Stored = Integer[np.ndarray, "frames rows columns"]


def read_voxels(series: Series) -> Num[np.ndarray, "columns rows frames"]:
    """Intensities (Rescale Slope and Intercept applied) on the grid of the series; integers where they are whole.

    Pixels that pad the image are as dark as air in CT, and as its darkest pixel otherwise. MONOCHROME1 is inverted,
    except for CT, whose values are HU however they are shown.
    Raises InputError for damaged, compressed and missing pixels that cannot be read.
    """
    frames = series.frames
    stored = np.empty((len(frames), *series.shape[1::-1]), _stored_type(frames))
    padded: dict[int, np.ndarray] = {}
    for number, (frame, values) in enumerate(_stored_frames(frames)):
        padding = frame.instance.pixels.padding
        if padding is not None:
            mask = (values >= padding[0]) & (values <= padding[1])
            if mask.any():
                padded[number] = mask
        stored[number] = values
    voxels = _rescaled(stored, series)
    _fill(voxels, padded, series.modality)
    return voxels.transpose(2, 1, 0)


def voxel_type(series: Series) -> np.dtype[Any]:
    """The type of the voxels as far as the headers tell: int32 for whole numbers, else float32."""
    return np.dtype(np.int32 if _is_whole(series.frames) else np.float32)


def _stored_type(frames: Sequence[Frame]) -> np.dtype[Any]:
    formats = {(frame.instance.pixels.bits_allocated, frame.instance.pixels.signed) for frame in frames}
    if len(formats) == 1:
        bits, signed = formats.pop()
        return np.dtype(f"{'i' if signed else 'u'}{bits // 8}")
    return np.dtype(np.int64)


def _stored_frames(frames: Sequence[Frame]) -> Iterator[tuple[Frame, Integer[np.ndarray, "rows columns"]]]:
    """The stored values of each frame in order; neighbouring frames of one file are read together."""
    with JpegProcess() as jpeg:
        for instance, of_file in groupby(frames, key=lambda frame: frame.instance):
            listed = list(of_file)
            indices = [frame.index for frame in listed]
            with damage_as_error(instance.path):
                if instance.pixels.transfer_syntax in _UNCOMPRESSED:
                    yield from zip(listed, _native(instance, indices), strict=True)
                else:
                    yield from zip(listed, decode(instance, indices, jpeg), strict=True)


def _native(instance: Instance, indices: Sequence[int]) -> Iterator[np.ndarray]:
    """Uncompressed frames, straight from their place in the file."""
    pixels = instance.pixels
    big = pixels.transfer_syntax == _BIG_ENDIAN
    with instance.path.open("rb") as file:
        file.seek(pixels.offset)
        start = pixels.offset + _header_bytes(file.read(12))
        bytes_each = pixels.rows * pixels.columns * pixels.bits_allocated // 8
        dtype = np.dtype(f"{'>' if big else '<'}{'i' if pixels.signed else 'u'}{pixels.bits_allocated // 8}")
        for index in indices:
            file.seek(start + index * bytes_each)
            content = file.read(bytes_each)
            if len(content) < bytes_each:
                raise InputError(
                    f"{instance.path} is truncated: its pixels need {bytes_each * instance.n_frames:,} bytes, and "
                    f"{start + index * bytes_each + len(content) - start:,} are there; copy it again"
                )
            values = np.frombuffer(content, dtype).reshape(pixels.rows, pixels.columns)
            yield _without_unused_bits(values.astype(dtype.newbyteorder("="), copy=big), pixels)


def _header_bytes(start: bytes) -> int:
    """Length of the element's own header: with a value representation in explicit transfer syntaxes."""
    return 12 if start[4:6] in (b"OW", b"OB", b"UN") else 8


def _without_unused_bits(values: np.ndarray, pixels: PixelFormat) -> np.ndarray:
    """Only the stored bits, with their sign: others may hold overlays or rubbish (PS3.5 8.1.1)."""
    if pixels.bits_stored == pixels.bits_allocated:
        return values
    left = pixels.bits_allocated - 1 - pixels.high_bit
    shifted: np.ndarray = (values << left) >> (pixels.bits_allocated - pixels.bits_stored)
    return shifted


def _is_whole(frames: Sequence[Frame]) -> bool:
    return all(frame.slope == int(frame.slope) and frame.intercept == int(frame.intercept) for frame in frames)


def _rescaled(stored: Stored, series: Series) -> Num[np.ndarray, "frames rows columns"]:
    """Intensities of stored values: slope × value + intercept (PS3.3 C.11.1), each frame with its own."""
    frames = series.frames
    slopes, intercepts = _scales(frames, series.modality)
    if not _is_whole(frames):
        scaled = stored.astype(np.float32)
        scaled *= np.array(slopes, np.float32)[:, None, None]
        scaled += np.array(intercepts, np.float32)[:, None, None]
        return scaled
    if set(slopes) == {1.0} and set(intercepts) == {0.0}:
        return stored if stored.dtype.itemsize <= 4 else stored.astype(np.int32)
    low, high = _range(stored, slopes, intercepts)
    dtype = next((each for each in _INTEGERS if np.iinfo(each).min <= low and high <= np.iinfo(each).max), None)
    if dtype is None:
        raise InputError(f"its intensities reach from {low:g} to {high:g}, which is out of range")
    # Modular arithmetic is exact for what fits in the end.
    whole: Any = stored.view(dtype) if dtype(0).itemsize == stored.dtype.itemsize else stored.astype(dtype)
    with np.errstate(over="ignore"):
        whole *= np.array(slopes, np.int64).astype(dtype)[:, None, None]
        whole += np.array(intercepts, np.int64).astype(dtype)[:, None, None]
    return cast(np.ndarray, whole)


def _scales(frames: Sequence[Frame], modality: str) -> tuple[list[float], list[float]]:
    """Slope and intercept of each frame, those of MONOCHROME1 turned around the middle of its stored range."""
    slopes, intercepts = [], []
    for frame in frames:
        slope, intercept = frame.slope, frame.intercept
        pixels = frame.instance.pixels
        if pixels.photometric == "MONOCHROME1" and modality != "CT":
            ends = (1 << pixels.bits_stored) - 1
            both = -1 if pixels.signed else ends  # smallest + largest stored value
            slope, intercept = -slope, intercept + slope * both
        slopes.append(slope)
        intercepts.append(intercept)
    return slopes, intercepts


def _range(stored: Stored, slopes: Sequence[float], intercepts: Sequence[float]) -> tuple[float, float]:
    ends = [
        slope * float(end) + intercept
        for values, slope, intercept in zip(stored, slopes, intercepts, strict=True)
        for end in (values.min(), values.max())
    ]
    return min(ends), max(ends)


def _fill(voxels: Num[np.ndarray, "frames rows columns"], padded: dict[int, np.ndarray], modality: str) -> None:
    """Give padding an intensity that occurs: a value of its own would spoil every statistic of the image."""
    if not padded:
        return
    if modality == "CT":
        for number, mask in padded.items():
            voxels[number][mask] = np.maximum(voxels[number][mask], _DARKEST_HU)
        return
    real = [plane[~padded[number]] if number in padded else plane.ravel() for number, plane in enumerate(voxels)]
    darkest = min((values.min() for values in real if values.size), default=0)
    for number, mask in padded.items():
        voxels[number][mask] = darkest
