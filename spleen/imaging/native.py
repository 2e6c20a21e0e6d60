"""Images in their native data type and grid, for prediction: compact reading, and writing results on the same grid."""

import gzip
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import nibabel as nib
import numpy as np
from jaxtyping import Float32, Num
from nibabel.arrayproxy import ArrayProxy
from nibabel.spatialimages import SpatialImage
from numpy.typing import ArrayLike

from spleen.errors import InputError
from spleen.imaging.dicom.series import Series
from spleen.imaging.dicom.volume import SeriesVoxels, check_even, series_of
from spleen.imaging.geometry import (
    GRID_TOLERANCE_MM,
    align_axes,
    check_affine,
    check_same_grid,
    reorient_to_ras,
    restore_orientation,
    spacing_mm,
    voxel_volume_mm3,
)
from spleen.imaging.nifti import _BYTES_PER_VOXEL, _check_finite, _checked_affine, _decode, _open, _save
from spleen.imaging.slicing import AXES
from spleen.types import Affine, AxisName, MaskVolume, SpacingMm


@dataclass(frozen=True)
class NativeImage:
    """An image in its stored data type (integers stay integers), with the header for results on the same grid."""

    channels: tuple[Num[np.ndarray, "i j k"], ...]
    """RAS views of the files' arrays, without copies."""
    affine: Affine
    file_affine: Affine
    """Affine of the first channel's file, whose orientation the written files get."""
    header: nib.nifti1.Nifti1Header
    """Header of the first channel, without the channel dimension."""
    file_shape: tuple[int, ...]
    """Shape of one channel in its file."""
    series: Series | None = None
    """The DICOM series that it was read from."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """Voxels along i, j, k."""
        i, j, k = self.channels[0].shape
        return i, j, k

    @property
    def spacing_mm(self) -> SpacingMm:
        """Voxel spacing along i, j, k in mm."""
        return spacing_mm(self.affine)

    @property
    def voxel_volume_mm3(self) -> float:
        """Volume of one voxel in mm³; the mean one where slices are unevenly spaced."""
        return voxel_volume_mm3(self.affine)

    @property
    def uneven_axis(self) -> AxisName | None:
        """The anatomical axis along which slices are unevenly spaced; None on a regular grid."""
        if self.series is None or self.series.stack.is_even:
            return None
        return AXES[int(nib.orientations.io_orientation(self.file_affine)[2, 0])]

    def volume_mm3(self, mask: MaskVolume) -> float:
        """Volume of a mask on the RAS grid; where slices are unevenly spaced, each counts with its own share."""
        if self.series is None or self.series.stack.is_even:
            return int(np.count_nonzero(mask)) * self.voxel_volume_mm3
        counts = np.count_nonzero(restore_orientation(mask, self.file_affine), axis=(0, 1))
        stack = self.series.stack
        return float(counts @ np.array(stack.slab_mm) / stack.spacing_mm * self.voxel_volume_mm3)


def read_native(
    *paths: Path,
    n_channels: int = 1,
    tolerance_mm: float = GRID_TOLERANCE_MM,
    bytes_per_voxel: int = _BYTES_PER_VOXEL,
) -> NativeImage:
    """Read an image compactly, channel by channel: as stored integers where possible, otherwise as float32.

    Several channels are one file each, or one file with the channels in its fourth dimension. `bytes_per_voxel` is the
    memory that the caller will need per voxel of the grid, all channels included.
    Raises InputError as `read_image` does, for a wrong number of channels, and for channels whose grids differ by more
    than `tolerance_mm`.
    """
    if len(paths) == 1 and n_channels > 1:
        return _read_one_file(paths[0], n_channels, bytes_per_voxel)
    if len(paths) != n_channels:
        raise InputError(f"{paths[0]}: {len(paths)} files for the {n_channels} channel(s) that the run was trained on")
    opened = [
        (_open(path, bytes_per_voxel, uneven=True), path) for path in paths
    ]  # all headers are checked before any array is read
    images = [_image(_stored(nifti, path), nifti, path) for nifti, path in opened]
    channels = [images[0].channels[0]]
    for path, image in zip(paths[1:], images[1:], strict=True):
        channel, affine = align_axes(image.channels[0], image.affine, images[0].affine)
        check_same_grid(
            (images[0].shape, channel.shape), (images[0].affine, affine), tolerance_mm, (str(paths[0]), str(path))
        )
        channels.append(channel)
    first = images[0]
    return NativeImage(tuple(channels), first.affine, first.file_affine, first.header, first.file_shape, first.series)


def image_in_memory(
    image: Num[np.ndarray, "..."] | SpatialImage, affine: ArrayLike | None, n_channels: int
) -> NativeImage:
    """An image as `read_native` would give it from a file: integers stay integers, everything else becomes float32.

    `image` is an array (i, j, k) or (c, i, j, k) with its `affine` to mm, or a nibabel image without, whose channels
    are its fourth dimension. It is neither changed nor copied, unless its data type is converted.
    Raises InputError for another shape or number of channels, NaN or Inf, and an invalid affine.
    """
    if isinstance(image, SpatialImage):
        if affine is not None:
            raise InputError("a nibabel image has its own affine; leave affine out")
        channels, file_affine = _channels_of_nibabel(image), _affine_of_nibabel(image)
    elif isinstance(image, np.ndarray):
        channels, file_affine = ([image] if image.ndim != 4 else list(image)), _affine_of_array(affine)
    else:
        raise InputError(f"the image must be a NumPy array or a nibabel image; got {type(image).__name__}")
    if len(channels) != n_channels:
        raise InputError(f"the image has {len(channels)} channel(s), but the run was trained on {n_channels}")
    shape = channels[0].shape
    if len(shape) != 3 or 0 in shape:
        raise InputError(f"a volume must be an array (i, j, k), or (c, i, j, k); got shape {shape}")
    ras = [reorient_to_ras(_real_numbers(channel), file_affine) for channel in channels]
    return NativeImage(tuple(array for array, _ in ras), ras[0][1], file_affine, nib.nifti1.Nifti1Header(), shape)


def _channels_of_nibabel(image: SpatialImage) -> list[Num[np.ndarray, "..."]]:
    if isinstance(stored := image.dataobj, nib.arrayproxy.ArrayProxy):  # not decoded yet, or not kept by nibabel
        unscaled = (stored.slope, stored.inter) == (1, 0)
        array = np.asanyarray(stored, None if unscaled else np.float32)
    else:
        array = np.asanyarray(stored)
    if array.ndim < 4:
        return [array]
    array = array.reshape(*array.shape[:3], -1)
    return [array[..., number] for number in range(array.shape[3])]


def _affine_of_nibabel(image: SpatialImage) -> Affine:
    if isinstance(image, nib.nifti1.Nifti1Pair):
        return _checked_affine(image, "the image")
    return _affine_of_array(image.affine)


def _affine_of_array(affine: ArrayLike | None) -> Affine:
    if affine is None:
        raise InputError("an array needs its affine: predict(array, affine), 4 × 4, from voxel indices to mm in RAS")
    try:
        matrix: Affine = np.array(affine, np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"affine must be a 4 × 4 matrix of numbers: {error}") from error
    if matrix.shape != (4, 4):
        raise InputError(f"affine must be a 4 × 4 matrix; got shape {matrix.shape}")
    check_affine(matrix)
    return matrix.astype(np.float32).astype(np.float64)  # as a NIfTI file stores it, for the same result


def _real_numbers(array: Num[np.ndarray, "i j k"]) -> Num[np.ndarray, "i j k"]:
    if array.dtype == bool:
        return array.view(np.uint8)
    if np.iscomplexobj(array) or not np.issubdtype(array.dtype, np.number):
        raise InputError(f"intensities must be real numbers; got an array of {array.dtype}")
    if np.issubdtype(array.dtype, np.integer):
        return array
    converted = array.astype(np.float32, copy=False)
    _check_finite(converted, "the image")
    return converted


def _read_one_file(path: Path, n_channels: int, bytes_per_voxel: int) -> NativeImage:
    """An image with the channels in its fourth dimension."""
    nifti = _open(path, -(-bytes_per_voxel // n_channels), channels=True)
    found = int(np.prod(nifti.shape[3:]))
    if found != n_channels:
        raise InputError(
            f"{path} has {found} channel(s), but the run was trained on {n_channels}; provide one file with "
            f"{n_channels} channels in its fourth dimension, or files named CASE_0000 to CASE_{n_channels - 1:04d}"
        )
    return _image(_stored(nifti, path, channels=True), nifti, path)


def _stored(nifti: nib.nifti1.Nifti1Pair, path: Path, channels: bool = False) -> Num[np.ndarray, "..."]:
    """The array in its stored integer type, or as float32 if the file contains scaled integers or floats."""
    stored = nifti.dataobj
    assert isinstance(stored, nib.arrayproxy.ArrayProxy | SeriesVoxels)  # true for every image loaded from a file
    unscaled = (stored.slope, stored.inter) == (1, 0)
    keeps_integers = unscaled and np.issubdtype(nifti.get_data_dtype(), np.integer)
    array = np.asarray(_decode(nifti, path, None if keeps_integers else np.dtype(np.float32), channels))
    if not keeps_integers:
        _check_finite(array, path)
    return array


def _image(array: Num[np.ndarray, "..."], nifti: nib.nifti1.Nifti1Pair, path: Path) -> NativeImage:
    """The image of one file: a 3D array is its only channel, a 4D array has the channels last."""
    file_affine = _checked_affine(nifti, path)
    header, file_shape = nifti.header, tuple(int(size) for size in nifti.shape)
    if array.ndim == 4:
        header, file_shape = header.copy(), file_shape[:3]
        header.set_data_shape(file_shape)  # also resets the spacing along the dropped dimensions
    volumes = [array] if array.ndim == 3 else [array[..., number] for number in range(array.shape[3])]
    ras = [reorient_to_ras(volume, file_affine) for volume in volumes]
    return NativeImage(
        tuple(channel for channel, _ in ras), ras[0][1], file_affine, header, file_shape, series_of(nifti)
    )


def write_like(path: Path, array: Num[np.ndarray, "i j k"], image: NativeImage) -> None:
    """Write a RAS array on the native grid of the image: same shape, affine, sform, qform, units and orientation.

    Written atomically (temporary name, then rename). The file has the array's data type; nothing is scaled.
    Raises InputError for an image whose slices are unevenly spaced: NIfTI has no place for them.
    """
    _write(path, restore_orientation(array, image.file_affine).reshape(image.file_shape), image)


def write_channels_like(path: Path, channels: Float32[np.ndarray, "c i j k"], image: NativeImage) -> None:
    """Write RAS maps as one file on the native grid of the image; several maps become its fourth dimension."""
    restored = [restore_orientation(channel, image.file_affine) for channel in channels]
    array = restored[0].reshape(image.file_shape) if len(restored) == 1 else np.stack(restored, axis=-1)
    _write(path, array, image)


def is_whole(path: Path) -> bool:
    """Whether a written file can be read to its end: all of its voxels, and the checksum of its compression."""
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as stream:
            length = sum(map(len, iter(partial(stream.read, 1 << 20), b"")))
        written = nib.load(path)
        assert isinstance(written, nib.nifti1.Nifti1Image)
        stored = written.dataobj
        assert isinstance(stored, ArrayProxy)
        voxels = int(np.prod(written.shape, dtype=object)) * written.get_data_dtype().itemsize
        return bool(length >= stored.offset + voxels)
    except Exception:  # whatever NumPy, nibabel and zlib raise for damaged bytes
        return False


def _write(path: Path, array: Num[np.ndarray, "..."], image: NativeImage) -> None:
    if image.series is not None:
        check_even(image.series, path)
    header = image.header.copy()
    header.set_data_dtype(array.dtype)
    header.set_slope_inter(1, 0)
    header["cal_min"] = header["cal_max"] = 0  # the image's display window does not apply to this array
    header.set_intent("none")
    del header.extensions[:]
    second = isinstance(header, nib.nifti2.Nifti2Header)
    kind: type[nib.nifti1.Nifti1Image] = nib.nifti2.Nifti2Image if second else nib.nifti1.Nifti1Image
    _save(kind(array, None, header), path)
