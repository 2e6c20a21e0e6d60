"""Reading and writing NIfTI volumes; every header is checked before its array is allocated."""

import gzip
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
from jaxtyping import Float32, Num, Shaped

from spleen.errors import InputError
from spleen.imaging.dicom.location import is_series
from spleen.imaging.dicom.volume import check_even, open_series, series_of
from spleen.imaging.foreign import describe_file, describe_folder
from spleen.imaging.geometry import (
    affine_to_ras,
    align_axes,
    check_affine,
    check_same_grid,
    reorient_to_ras,
    spacing_mm,
    voxel_volume_mm3,
)
from spleen.imaging.headers import check_offset, check_size
from spleen.system.files import temporary_sibling
from spleen.system.memory import free_memory_bytes
from spleen.types import Affine, LabelVolume, SpacingMm, VolumeArray

log = logging.getLogger(__name__)

# Working memory per voxel during preprocessing: the file's array, its float32 copy and one temporary.
_BYTES_PER_VOXEL = 12
_MOST_PADDING_MIB = 64


@dataclass(frozen=True)
class Volume:
    """A 3D array on a RAS grid, with the file's affine to restore its orientation."""

    array: Shaped[np.ndarray, "i j k"]
    affine: Affine
    file_affine: Affine

    @property
    def spacing_mm(self) -> SpacingMm:
        """Voxel spacing along i, j, k in mm."""
        return spacing_mm(self.affine)

    @property
    def voxel_volume_mm3(self) -> float:
        """Volume of one voxel in mm³."""
        return voxel_volume_mm3(self.affine)


@dataclass(frozen=True)
class Channels:
    """The channels of one image on one RAS grid."""

    arrays: tuple[Float32[np.ndarray, "i j k"], ...]
    affine: Affine

    @property
    def spacing_mm(self) -> SpacingMm:
        """Voxel spacing along i, j, k in mm."""
        return spacing_mm(self.affine)

    @property
    def voxel_volume_mm3(self) -> float:
        """Volume of one voxel in mm³."""
        return voxel_volume_mm3(self.affine)


def read_image(path: Path, like: Affine | None = None) -> Volume:
    """Read intensities as float32 (scl_slope and scl_inter applied), reoriented to RAS.

    With `like`, the array axes run as those of the RAS grid with that affine, which matters near 45°.

    Raises InputError for a file that is missing, not NIfTI, damaged, not 3D or too large, or contains NaN or Inf.
    """
    nifti = _open(path)
    array = np.asarray(_decode(nifti, path, np.dtype(np.float32)))
    _check_finite(array, path)
    return _to_ras(array, nifti, path, like)


def read_channels(paths: Sequence[Path], tolerance_mm: float) -> Channels:
    """Read the channels of an image as float32: one file per channel, or one file with channels in its 4th dimension.

    Raises InputError as `read_image` does, and for channels whose grids differ by more than `tolerance_mm`.
    """
    if len(paths) == 1:
        nifti = _open(paths[0], channels=True)
        array = np.asarray(_decode(nifti, paths[0], np.dtype(np.float32), channels=True))
        _check_finite(array, paths[0])
        volumes = [_to_ras(array[..., number], nifti, paths[0]) for number in range(array.shape[3])]
    else:
        first = read_image(paths[0])
        volumes = [first, *(read_image(path, first.affine) for path in paths[1:])]
    for path, volume in zip(paths[1:], volumes[1:], strict=False):
        check_same_grid(
            (volumes[0].array.shape, volume.array.shape),
            (volumes[0].affine, volume.affine),
            tolerance_mm,
            (str(paths[0]), str(path)),
        )
    return Channels(tuple(volume.array for volume in volumes), volumes[0].affine)


def read_label(path: Path, like: Affine | None = None) -> Volume:
    """Read an integer label map as int32, reoriented to RAS; `like` as in `read_image`.

    Raises InputError as `read_image` does, and for non-integer values (a probability map, or a label resampled with
    interpolation).
    """
    nifti = _open(path)
    array = np.asarray(_decode(nifti, path, None))
    if not np.issubdtype(array.dtype, np.integer):
        rounded = np.rint(array)
        with np.errstate(invalid="ignore"):  # Inf - Inf
            wrong = ~(np.abs(array - rounded) < 1e-3)  # also true for NaN
        if wrong.any():
            raise InputError(
                f"{path}: a label must contain integers; {np.count_nonzero(wrong)} of {array.size} voxels do not, "
                f"for example {array[wrong][0]:.4g}. Was it resampled with interpolation? Use nearest neighbour. "
                "Or is it the image?"
            )
        array = rounded
    largest = int(np.abs(array).max(initial=0))
    if largest > np.iinfo(np.int32).max:
        raise InputError(f"{path}: label value {largest} is out of range; label values must be below 2^31")
    return _to_ras(array.astype(np.int32), nifti, path, like)


def read_shape(path: Path) -> tuple[tuple[int, ...], Affine]:
    """Shape (without channels) and affine of an image on its RAS grid, from the header alone.

    The affine is in the header's unit. Raises InputError as `read_image` does, except for volumes that are too large.
    """
    nifti = _open(path, bytes_per_voxel=0, channels=True)
    _check_affine_of(path, nifti.affine)
    shape = tuple(int(size) for size in nifti.shape[:3])
    array_axes = np.argsort(nib.orientations.io_orientation(nifti.affine)[:, 0])
    return tuple(shape[axis] for axis in array_axes), affine_to_ras(nifti.affine, shape)


def write_volume(path: Path, array: VolumeArray | LabelVolume, affine: Affine) -> None:
    """Write an array with its affine as NIfTI in mm, atomically (temporary name, then rename)."""
    nifti = nib.nifti1.Nifti1Image(array, affine)
    nifti.header.set_xyzt_units("mm", "sec")
    _save(nifti, path)


def _save(nifti: nib.nifti1.Nifti1Image, path: Path) -> None:
    temporary = temporary_sibling(path)
    try:
        nib.save(nifti, temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _open(
    path: Path, bytes_per_voxel: int = _BYTES_PER_VOXEL, channels: bool = False, uneven: bool = False
) -> nib.nifti1.Nifti1Pair:
    """Read and check the header only. With `uneven`, slices of a DICOM series may be unevenly spaced."""
    if is_series(path):
        image = open_series(path)
        series = series_of(image)
        if series is not None and not uneven:
            check_even(series, path)
        _check_shape(image, path, bytes_per_voxel, channels)
        return image
    if not path.exists():
        raise InputError(f"{path}: no such file (looked in {path.absolute().parent})")
    if path.is_dir():
        raise InputError(
            f"{path} is a folder; expected a NIfTI file (.nii or .nii.gz) or a DICOM series: {describe_folder(path)}"
        )
    try:
        check_offset(path)
        nifti = nib.load(path)
    except InputError:
        raise
    except Exception as error:  # whatever nibabel, NumPy and the decompressors raise for a damaged file
        reason = describe_file(path) or str(error) or type(error).__name__
        raise InputError(f"{path} cannot be read as NIfTI (.nii or .nii.gz): {reason}") from error
    if not isinstance(nifti, nib.nifti1.Nifti1Pair):
        raise InputError(f"{path} is {type(nifti).__name__}, not NIfTI; convert it to .nii.gz")
    with _one_error(f"{path} has a damaged header: "):
        _check_shape(nifti, path, bytes_per_voxel, channels)
        check_size(nifti, path)
    return nifti


@contextmanager
def _one_error(prefix: str, suffix: str = "") -> Iterator[None]:
    """Turn whatever nibabel, NumPy and the decompressors raise for a damaged file into InputError."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        raise InputError(f"{prefix}{error or type(error).__name__}{suffix}") from error


def _check_shape(nifti: nib.nifti1.Nifti1Pair, path: Path, bytes_per_voxel: int, channels: bool) -> None:
    shape = tuple(int(size) for size in nifti.shape)
    if len(shape) < 3 or (not channels and any(size != 1 for size in shape[3:])):
        raise InputError(
            f"{path} has {len(shape)} dimensions, shape {shape}; it must be 3D, or 4D with a single channel. "
            "Split it into one file per channel or time point"
        )
    if any(size < 1 for size in shape):
        raise InputError(f"{path}: the header has the invalid shape {shape}; the file is damaged")
    if nifti.get_data_dtype().fields is not None or np.issubdtype(nifti.get_data_dtype(), np.complexfloating):
        raise InputError(f"{path} has colour or complex voxels ({nifti.get_data_dtype()}); they must be real numbers")
    needed = int(np.prod(shape, dtype=object)) * bytes_per_voxel
    available = free_memory_bytes()
    if needed > available:
        raise InputError(
            f"{path}: the header declares {' × '.join(map(str, shape))} voxels, which need about "
            f"{needed / 2**30:,.1f} GiB; {available / 2**30:.1f} GiB of memory are free. Check the header, crop or "
            "downsample the volume, or use a machine with more memory"
        )


def _decode(
    nifti: nib.nifti1.Nifti1Pair, path: Path, dtype: np.dtype[np.float32] | None, channels: bool = False
) -> Num[np.ndarray, "..."]:
    """Decompress the voxels, as 3D, or 4D with the channels last; damaged data raise InputError."""
    with _one_error(f"{path} is damaged or truncated: ", ". Copy or download it again"):
        if isinstance(nifti, nib.nifti1.Nifti1Image) and series_of(nifti) is None and path.suffix.lower() == ".gz":
            with gzip.open(path) as stream:
                array = np.asanyarray(nifti.from_stream(stream).dataobj, dtype=dtype)
                _read_to_checksum(stream)
        else:
            array = np.asanyarray(nifti.dataobj, dtype=dtype)
    return array.reshape(*array.shape[:3], -1) if channels else array.reshape(array.shape[:3])


def _read_to_checksum(stream: gzip.GzipFile) -> None:
    """Read what follows the last voxel, where nibabel stops: the checksum is verified at the end."""
    for _ in range(_MOST_PADDING_MIB):
        if not stream.read(1 << 20):
            return
    raise InputError(f"the header declares far fewer voxels than the file holds (over {_MOST_PADDING_MIB} MiB follow)")


def _in_mm(affine: Affine, nifti: nib.nifti1.Nifti1Pair, path: Path | str) -> Affine:
    """Convert an affine in metres or micrometres to mm; a header without a unit means mm, by convention."""
    try:
        unit = str(nifti.header.get_xyzt_units()[0])
    except KeyError:
        log.warning("%s: the header has an unknown code for the unit of length; assuming mm", path)
        unit = "unknown"
    factor = {"meter": 1000.0, "micron": 0.001}.get(unit, 1.0)
    if factor != 1.0:
        log.warning("%s: the header's unit of length is %s; converting to mm", path, unit)
    in_mm: Affine = np.diag([factor, factor, factor, 1.0]) @ affine
    return in_mm


def _check_finite(array: Num[np.ndarray, "..."], path: Path | str) -> None:
    n_bad = int(array.size - np.count_nonzero(np.isfinite(array)))
    if n_bad:
        raise InputError(
            f"{path}: {n_bad} of {array.size} voxels are NaN or Inf; replace them with a finite intensity "
            "(for CT that of air, -1024)"
        )


def _check_affine_of(path: Path | str, affine: Affine) -> None:
    try:
        check_affine(affine)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def _checked_affine(nifti: nib.nifti1.Nifti1Pair, path: Path | str) -> Affine:
    """The file's affine in mm; raises InputError if it is not finite or is singular."""
    file_affine = _in_mm(np.asarray(nifti.affine, dtype=np.float64), nifti, path)
    _check_affine_of(path, file_affine)
    if isinstance(nifti.header, nib.nifti1.Nifti1Header) and not (
        int(nifti.header["sform_code"]) or int(nifti.header["qform_code"])
    ):
        log.warning(
            "%s: neither sform nor qform is set, so the patient orientation is unknown; "
            "anatomical axes follow nibabel's default and may be wrong",
            path,
        )
    return file_affine


def _to_ras(array: VolumeArray, nifti: nib.nifti1.Nifti1Pair, path: Path, like: Affine | None = None) -> Volume:
    file_affine = _checked_affine(nifti, path)
    ras, affine = reorient_to_ras(array, file_affine)
    if like is not None:
        ras, affine = align_axes(ras, affine, like)
    return Volume(np.ascontiguousarray(ras), affine, file_affine)
