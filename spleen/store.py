"""The slice store: every case preprocessed once into memory-mapped arrays, and read from there ever after.

An entry is a folder named by the hash of both files' content and of every setting that shapes the arrays. It holds
images.npy (n h w, float16), labels.npy (n h w, uint8), reference.npy (n H W, uint8, the label on the native planes) and
entry.json, and appears by one rename when it is complete: a half-written entry is never read.
"""

import hashlib
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float16, UInt8

from spleen.atomic import new_folder
from spleen.cases import Case
from spleen.content_hash import content_hash
from spleen.errors import InputError
from spleen.geometry import check_same_grid
from spleen.intensity import Intensity, fit_intensity
from spleen.labels import ClassMap, resolve, to_class_indices
from spleen.network_input import in_chunks, network_planes
from spleen.slicing import InPlaneGrid, Resize, plan_in_plane, resample_labels, slice_shape, slice_spacing_mm, to_slices
from spleen.types import AxisName, LabelVolume, SpacingMm
from spleen.volume import Volume, read_image, read_label

# Raised whenever the arrays of an entry change for the same settings.
_FORMAT = 2


@dataclass(frozen=True)
class StoreSettings:
    """Everything that shapes the arrays of an entry, besides the files themselves."""

    axis: AxisName
    img_size: int
    resize: Resize
    size_multiple: int
    intensity: Intensity
    classes: ClassMap
    grid_tolerance_mm: float

    def plan(self, shape: tuple[int, ...], spacing: SpacingMm) -> InPlaneGrid:
        """The network's grid for the slices of a RAS volume of this shape and spacing in mm."""
        _, height, width = slice_shape(shape, self.axis)
        _, height_mm, width_mm = slice_spacing_mm(spacing, self.axis)
        return plan_in_plane((height, width), (height_mm, width_mm), self.img_size, self.resize, self.size_multiple)


@dataclass(frozen=True)
class StoredCase:
    """One opened entry. The arrays are memory-mapped: only the pages that a batch touches are read."""

    case_id: str
    axis: AxisName
    grid: InPlaneGrid
    spacing_mm: tuple[float, float, float]
    """Between slices, along h and along w of the native planes."""
    images: Float16[np.ndarray, "n h w"]
    labels: UInt8[np.ndarray, "n h w"]
    reference: UInt8[np.ndarray, "n H W"]
    foreground: Bool[np.ndarray, " n"]
    label_values: tuple[tuple[int, ...], ...]
    """For each class, the values of the label file that stand for it."""
    volumes_mm3: tuple[float, ...]
    """Volume of each class in the reference."""

    @property
    def n_slices(self) -> int:
        """Slices along the axis."""
        return len(self.images)

    @property
    def voxel_volume_mm3(self) -> float:
        """Volume of one native voxel."""
        return float(np.prod(self.spacing_mm))


def open_case(case: Case, settings: StoreSettings, cache: Path) -> StoredCase:
    """Open the entry of a case, building it first if there is none.

    Raises InputError for anything wrong with the files, and for a cache folder that cannot be written.
    """
    for path in (case.image, case.label):
        if not path.is_file():
            raise InputError(f"{path}: no such file (case '{case.case_id}')")
        if not os.access(path, os.R_OK):
            raise InputError(f"{path} may not be read by this user; change its permissions")
    try:
        entry = cache / "slices" / _key(case, settings, cache)
        if not entry.is_dir():
            with new_folder(entry) as folder:
                _build(case, settings, folder)
    except OSError as error:
        raise InputError(
            f"the slice store under {cache} cannot be used: {error}. Make room or give another folder with cache_dir=…"
        ) from error
    return _open(case.case_id, entry, settings.axis)


def _key(case: Case, settings: StoreSettings, cache: Path) -> str:
    shaping = {
        "format": _FORMAT,
        "image": content_hash(case.image, cache / "hashes"),
        "label": content_hash(case.label, cache / "hashes"),
        "settings": asdict(settings),
    }
    return hashlib.sha256(json.dumps(shaping, sort_keys=True).encode()).hexdigest()[:32]


def _open(case_id: str, entry: Path, axis: AxisName) -> StoredCase:
    facts = json.loads((entry / "entry.json").read_text())
    native, resampled, padded = (tuple(facts["grid"][name]) for name in ("native", "resampled", "padded"))
    arrays = {name: np.load(entry / f"{name}.npy", mmap_mode="r") for name in ("images", "labels", "reference")}
    return StoredCase(
        case_id=case_id,
        axis=axis,
        grid=InPlaneGrid(native, resampled, padded),
        spacing_mm=tuple(facts["spacing_mm"]),
        foreground=np.array(facts["foreground"], dtype=bool),
        label_values=tuple(tuple(values) for values in facts["label_values"]),
        volumes_mm3=tuple(facts["volumes_mm3"]),
        **arrays,
    )


def _build(case: Case, settings: StoreSettings, folder: Path) -> None:
    image, label, classes = _read_case(case, settings)
    spacing = slice_spacing_mm(image.spacing_mm, settings.axis)
    reference = np.ascontiguousarray(to_slices(to_class_indices(label, classes), settings.axis))
    grid = settings.plan(image.array.shape, image.spacing_mm)
    n_classes = len(classes.names) + 1
    images = network_planes(
        image.array, settings.axis, grid, fit_intensity(image.array, settings.intensity, str(case.image))
    )
    labels = in_chunks(reference, lambda planes: resample_labels(torch.from_numpy(planes), grid, n_classes).numpy())
    np.save(folder / "images.npy", images)
    np.save(folder / "labels.npy", labels)
    np.save(folder / "reference.npy", reference)
    voxels = np.bincount(reference.ravel(), minlength=n_classes)
    facts = {
        "case_id": case.case_id,
        "image": str(case.image),
        "label": str(case.label),
        "axis": settings.axis,
        "grid": asdict(grid),
        "spacing_mm": spacing,
        "foreground": reference.any(axis=(1, 2)).tolist(),
        "label_values": classes.values,
        "volumes_mm3": [float(count * np.prod(spacing)) for count in voxels[1:]],
    }
    (folder / "entry.json").write_text(json.dumps(facts, indent=1))


def _read_case(case: Case, settings: StoreSettings) -> tuple[Volume, LabelVolume, ClassMap]:
    image, label = read_image(case.image), read_label(case.label)
    check_same_grid(
        (image.array.shape, label.array.shape),
        (image.affine, label.affine),
        settings.grid_tolerance_mm,
        (str(case.image), str(case.label)),
    )
    try:
        return image, label.array, resolve(label.array, settings.classes)
    except InputError as error:
        raise InputError(f"{case.label}: {error}") from error
