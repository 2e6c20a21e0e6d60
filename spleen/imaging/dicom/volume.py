"""A DICOM series in the place of a NIfTI file: header first, voxels when they are asked for."""

import logging
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import DTypeLike

from spleen.errors import InputError
from spleen.imaging.dicom.pixels import read_voxels, voxel_type
from spleen.imaging.dicom.series import Series, read_series

_MOST_VOXELS = np.iinfo(np.int16).max
"""Along an axis, in NIfTI-1, as which a series is handed on."""

log = logging.getLogger(__name__)


class SeriesVoxels:
    """The voxels of a series as nibabel expects an array that is still in its file."""

    is_proxy = True
    ndim = 3
    slope, inter = 1.0, 0.0
    offset = 0

    def __init__(self, series: Series) -> None:
        self.series = series

    @property
    def shape(self) -> tuple[int, int, int]:
        """Columns, rows, frames."""
        return self.series.shape

    @property
    def dtype(self) -> np.dtype[np.generic]:
        """Type of the voxels by the headers; they may come in a smaller one."""
        return voxel_type(self.series)

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> np.ndarray:
        voxels = read_voxels(self.series)
        return voxels if dtype is None else voxels.astype(dtype, copy=False)

    def __getitem__(self, index: Any) -> Any:
        return np.asarray(self)[index]


def open_series(path: Path) -> nib.nifti1.Nifti1Image:
    """A series as an image whose voxels are read when they are asked for; array axes are (column, row, frame).

    Raises InputError as `read_series` does.
    """
    series = read_series(path)
    for note in series.stack.notes:
        log.warning("%s: %s", path, note)
    if max(series.shape) > _MOST_VOXELS:
        raise InputError(f"{path}: {' × '.join(map(str, series.shape))} voxels; at most {_MOST_VOXELS:,} along an axis")
    voxels, header = SeriesVoxels(series), nib.nifti1.Nifti1Header()
    header.set_data_dtype(voxels.dtype)  # nibabel would find it out by reading the whole series
    image = nib.nifti1.Nifti1Image(voxels, series.stack.affine, header)
    image.header.set_xyzt_units("mm", "sec")
    return image


def series_of(image: nib.nifti1.Nifti1Pair) -> Series | None:
    """The series that an opened image was read from; None for a NIfTI file."""
    voxels = image.dataobj
    return voxels.series if isinstance(voxels, SeriesVoxels) else None


def check_even(series: Series, path: Path) -> None:
    """Raise InputError for uneven slices where a regular grid is needed."""
    if not series.stack.is_even:
        raise InputError(
            f"{path}: its slices are unevenly spaced, which no regular grid can hold; predict it slice by slice (a run "
            "along the axis of the stack, --format dicom-seg), or resample it first"
        )
