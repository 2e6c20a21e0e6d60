"""One opened case of the slice store: its metadata, and its arrays, of which a batch reads only the planes it needs."""

import math
import os
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from io import FileIO
from itertools import pairwise
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Int64, Shaped

from spleen.imaging.classes import Regions, count_indices, regions_of
from spleen.imaging.geometry import Box
from spleen.imaging.slicing import InPlaneGrid, in_slice_order
from spleen.types import AxisName

_BLOCK_BYTES = 1 << 22

PlaneIndex = int | slice | Int64[np.ndarray, "..."]


def _cannot_rebuild() -> None:
    """Nothing is known of how the file was made; the read that failed reports it."""


@dataclass(frozen=True)
class StoredArray:
    """An array (n, …) in a .npy file of the store; each access reads only the requested planes.

    Nothing stays open or mapped, so neither open files nor memory grow with the number of cases; the page cache keeps
    frequently used planes. Unlike a memory map, a read does not load neighbouring data from disk.
    """

    path: Path
    shape: tuple[int, ...]
    dtype: np.dtype[np.generic]
    offset: int
    """Start of the array data in the file, in bytes."""
    rebuild: Callable[[], None] = field(default=_cannot_rebuild, compare=False, repr=False)
    """Writes the file again, if it has been deleted since it was opened; raises InputError if it cannot."""

    @classmethod
    def at(cls, path: Path, rebuild: Callable[[], None] = _cannot_rebuild) -> "StoredArray":
        """The array of a file; only the header is read. Raises ValueError for a damaged file."""
        with path.open("rb") as file:
            if np.lib.format.read_magic(file) != (1, 0):
                raise ValueError(f"{path} does not have the .npy version that the store writes")
            shape, in_fortran_order, dtype = np.lib.format.read_array_header_1_0(file)
            array = cls(path, shape, dtype, file.tell(), rebuild)
            size = os.fstat(file.fileno()).st_size
        if in_fortran_order or size != array.offset + math.prod(shape) * dtype.itemsize:
            raise ValueError(f"{path} has {size} bytes, which does not match its header")
        return array

    def check(self, crc32: int, written_ns: int | None) -> None:
        """Raise ValueError if the content differs from its CRC-32.

        A file that was last changed at `written_ns` is not read: only its time is compared.
        """
        with self.path.open("rb") as file:
            if os.fstat(file.fileno()).st_mtime_ns == written_ns:
                return
            file.seek(self.offset)
            found = 0
            while block := file.read(_BLOCK_BYTES):
                found = zlib.crc32(block, found)
        if found != crc32:
            raise ValueError(f"the content of {self.path.name} does not match its checksum")

    def __getitem__(self, index: PlaneIndex | tuple[PlaneIndex, *tuple[int | slice, ...]]) -> Shaped[np.ndarray, "..."]:
        """A copy, with NumPy's indexing: the planes are read, then the other indices are applied."""
        first, *rest = index if isinstance(index, tuple) else (index,)
        numbers = np.arange(len(self))[first]
        planes = self._read(numbers.ravel()).reshape(*numbers.shape, *self.shape[1:])
        return planes[(slice(None),) * numbers.ndim + tuple(rest)]

    def _read(self, numbers: Int64[np.ndarray, " m"]) -> Shaped[np.ndarray, "m ..."]:
        """The planes with these numbers; consecutive planes, such as a slice with its context, in one read."""
        planes = np.empty((len(numbers), *self.shape[1:]), self.dtype)
        content = planes.reshape(-1).view(np.uint8).data
        plane_bytes = math.prod(self.shape[1:]) * self.dtype.itemsize
        starts = np.flatnonzero(np.diff(numbers, prepend=-2) != 1)
        with self._opened() as file:
            for start, end in pairwise([*starts.tolist(), len(numbers)]):
                file.seek(self.offset + int(numbers[start]) * plane_bytes)
                self._fill(file, content[start * plane_bytes : end * plane_bytes])
        return planes

    def _opened(self) -> FileIO:
        try:
            return self.path.open("rb", buffering=0)
        except FileNotFoundError:  # the cache may be deleted at any time
            self.rebuild()
            return self.path.open("rb", buffering=0)

    def _fill(self, file: FileIO, content: memoryview) -> None:
        while content:  # one system call reads at most 2 GiB
            n_read = file.readinto(content)
            if not n_read:
                raise OSError(f"{self.path} has been truncated since it was opened")
            content = content[n_read:]

    def __array__(self, dtype: np.dtype[np.generic] | None = None, copy: bool | None = None) -> np.ndarray:
        """The whole array."""
        return self[:].astype(dtype or self.dtype, copy=False)

    def __len__(self) -> int:
        return self.shape[0]


@dataclass(frozen=True)
class StoredCase:
    """One opened entry of the store. With a box, the slices are those of the box."""

    case_id: str
    axis: AxisName
    grid: InPlaneGrid
    spacing_mm: tuple[float, float, float]
    """Between slices (perpendicular to them), along h and along w of the native planes."""
    voxel_volume_mm3: float
    """Volume of one native voxel in mm³."""
    images: StoredArray
    """Normalised intensities (n c h w), float16."""
    labels: StoredArray
    """Class indices on the network's grid (n h w), uint8; `IGNORED` for voxels of unknown class."""
    reference: StoredArray
    """Class indices of the whole volume on the native planes (N H W), uint8; `IGNORED` for voxels of unknown class."""
    foreground: Bool[np.ndarray, " n"]
    label_values: tuple[tuple[int, ...], ...]
    """For each class, its values in the label file."""
    other_values: tuple[int, ...]
    """Values in the label file that belong to no class, without 0."""
    volumes_mm3: tuple[float, ...]
    """Volume of each class in the reference, in mm³; ignored voxels belong to none."""
    fingerprint: str
    """Hash of the image's voxels: identical for two files of the same image."""
    implausible_units: str | None = None
    """Why the intensities are implausible for the intensity setting, if they are."""
    shear_degrees: float = 0.0
    """Largest departure of two voxel axes from the right angle."""
    group: str | None = None
    """The unit that must stay in one split, such as the patient."""
    ignored_slices: tuple[int, ...] = ()
    """Slices in which no voxel is labelled."""
    ignored_volume_mm3: float = 0.0
    """Volume of the voxels that are neither trained on nor scored."""
    unlabelled: frozenset[int] = frozenset()
    """Class indices that this case does not label: what is background in its reference may be any of them."""
    background_code: int = 0
    """What the background is in the label maps of the loss, which tells these classes."""
    box: Box | None = None
    """The part of the RAS grid that the slices show; None: all of it."""
    outside: Int64[np.ndarray, "N classes"] | None = None
    """In each slice of the whole volume, the voxels beyond the box: all that are not ignored, then those of each class
    in the reference. None without a box."""

    @cached_property
    def regions(self) -> Regions | None:
        """How the classes overlap; None if they do not."""
        return regions_of(self.label_values)

    @cached_property
    def n_indices(self) -> int:
        """The largest class index in the reference, besides `IGNORED`."""
        return count_indices(self.label_values)

    @property
    def n_slices(self) -> int:
        """Number of slices along the axis."""
        return len(self.images)

    @property
    def first_slice(self) -> int:
        """Number of the first slice in the whole volume."""
        return 0 if self.box is None else in_slice_order(self.box.start, self.axis)[0]

    def in_volume(self, index: int | Int64[np.ndarray, " b"]) -> tuple[PlaneIndex, slice, slice]:
        """The place of slices in an array of the whole volume (N H W), such as `reference`."""
        if self.box is None:
            return index, slice(None), slice(None)
        _, rows, columns = in_slice_order(self.box.slices, self.axis)
        return index + self.first_slice, rows, columns

    def outside_of(self, slices: Int64[np.ndarray, " b"]) -> Int64[np.ndarray, "N classes"] | None:
        """The rows of `outside` that belong to these slices, the other ones 0; None without a box.

        A slice of the whole volume that is not one of the labelled slices of the box belongs to the nearest of them, so
        that no voxel is left unscored where the slices of a volume are split.
        """
        if self.outside is None:
            return None
        labelled = np.array(self.labelled_slices, np.int64)
        if not len(labelled):
            return np.zeros_like(self.outside)
        numbers = np.arange(len(self.outside)) - self.first_slice
        nearest = labelled[np.abs(numbers[:, None] - labelled).argmin(axis=1)]
        return np.where(np.isin(nearest, slices)[:, None], self.outside, 0)

    @property
    def labelled_slices(self) -> tuple[int, ...]:
        """Slices with at least one labelled voxel."""
        return tuple(sorted(set(range(self.n_slices)) - set(self.ignored_slices)))

    @property
    def n_channels(self) -> int:
        """Number of image channels."""
        return self.images.shape[1]
