"""One case of the slice store, opened: what is known of it, and its arrays, of which a batch reads its planes alone."""

import math
import os
from dataclasses import dataclass
from io import FileIO
from itertools import pairwise
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Int64, Shaped

from spleen.slicing import InPlaneGrid
from spleen.types import AxisName

PlaneIndex = int | slice | Int64[np.ndarray, "..."]


@dataclass(frozen=True)
class StoredArray:
    """An array (n, …) in a .npy file of the store, of which only the wanted planes are read, each time anew.

    Nothing stays open or mapped, so neither files nor memory grow with the cases; the system's cache keeps what is
    wanted often. Unlike a mapped file, a read takes from a disk these planes alone and not what lies around them.
    """

    path: Path
    shape: tuple[int, ...]
    dtype: np.dtype[np.generic]
    offset: int
    """Where the numbers begin in the file, in bytes."""

    @classmethod
    def at(cls, path: Path) -> "StoredArray":
        """The array of a file; only the header is read. Raises ValueError for a file that is damaged."""
        with path.open("rb") as file:
            if np.lib.format.read_magic(file) != (1, 0):
                raise ValueError(f"{path} is not of the version that the store writes")
            shape, in_fortran_order, dtype = np.lib.format.read_array_header_1_0(file)
            array = cls(path, shape, dtype, file.tell())
            size = os.fstat(file.fileno()).st_size
        if in_fortran_order or size != array.offset + math.prod(shape) * dtype.itemsize:
            raise ValueError(f"{path} holds {size} bytes, which do not fit its header")
        return array

    def __getitem__(self, index: PlaneIndex | tuple[PlaneIndex, *tuple[int | slice, ...]]) -> Shaped[np.ndarray, "..."]:
        """A copy of what NumPy's indexing picks: the planes are read, then the rest is applied to them."""
        first, *rest = index if isinstance(index, tuple) else (index,)
        numbers = np.arange(len(self))[first]
        planes = self._read(numbers.ravel()).reshape(*numbers.shape, *self.shape[1:])
        return planes[(slice(None),) * numbers.ndim + tuple(rest)]

    def _read(self, numbers: Int64[np.ndarray, " m"]) -> Shaped[np.ndarray, "m ..."]:
        """The planes with these numbers; neighbours, such as a slice with its context, in one go."""
        planes = np.empty((len(numbers), *self.shape[1:]), self.dtype)
        content = planes.reshape(-1).view(np.uint8).data
        plane_bytes = math.prod(self.shape[1:]) * self.dtype.itemsize
        starts = np.flatnonzero(np.diff(numbers, prepend=-2) != 1)
        with self.path.open("rb", buffering=0) as file:
            for start, end in pairwise([*starts.tolist(), len(numbers)]):
                file.seek(self.offset + int(numbers[start]) * plane_bytes)
                self._fill(file, content[start * plane_bytes : end * plane_bytes])
        return planes

    def _fill(self, file: FileIO, content: memoryview) -> None:
        while content:  # a system call reads at most 2 GiB
            n_read = file.readinto(content)
            if not n_read:
                raise OSError(f"{self.path} has become shorter since it was opened")
            content = content[n_read:]

    def __array__(self, dtype: np.dtype[np.generic] | None = None, copy: bool | None = None) -> np.ndarray:
        """The whole array."""
        return self[:].astype(dtype or self.dtype, copy=False)

    def __len__(self) -> int:
        return self.shape[0]


@dataclass(frozen=True)
class StoredCase:
    """One opened entry of the store."""

    case_id: str
    axis: AxisName
    grid: InPlaneGrid
    spacing_mm: tuple[float, float, float]
    """Between slices, along h and along w of the native planes."""
    images: StoredArray
    """Normalised intensities (n c h w), float16."""
    labels: StoredArray
    """Class indices on the network's grid (n h w), uint8."""
    reference: StoredArray
    """Class indices on the native planes (n H W), uint8."""
    foreground: Bool[np.ndarray, " n"]
    label_values: tuple[tuple[int, ...], ...]
    """For each class, the values of the label file that stand for it."""
    volumes_mm3: tuple[float, ...]
    """Volume of each class in the reference."""
    fingerprint: str
    """Hash of the image's voxels: the same for two files of the same image."""
    doubt: str | None = None
    """Why the intensities cannot be what the setting takes them for."""
    group: str | None = None
    """What must not be torn apart by a split, such as the patient."""

    @property
    def n_slices(self) -> int:
        """Slices along the axis."""
        return len(self.images)

    @property
    def n_channels(self) -> int:
        """Channels of the image."""
        return self.images.shape[1]

    @property
    def voxel_volume_mm3(self) -> float:
        """Volume of one native voxel."""
        return float(np.prod(self.spacing_mm))
