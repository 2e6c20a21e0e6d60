"""The slice store: every case preprocessed once into memory-mapped arrays, and read from there ever after.

An entry is a folder named by the hash of both files' content and of every setting that shapes the arrays. It holds
images.npy (n h w, float16), labels.npy (n h w, uint8), reference.npy (n H W, uint8, the label on the native planes) and
entry.json, and appears by one rename when it is complete: a half-written entry is never read.
"""

import hashlib
import json
import os
from collections.abc import Callable
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
from spleen.intensity import Intensity, normalise
from spleen.labels import ClassMap, to_class_indices
from spleen.slicing import (
    InPlaneGrid,
    Resize,
    plan_in_plane,
    resample_images,
    resample_labels,
    slice_spacing_mm,
    to_slices,
)
from spleen.types import AxisName
from spleen.volume import Volume, read_image, read_label

# Raised whenever the arrays of an entry change for the same settings.
_FORMAT = 1
# Planes resampled at once: bounds the float32 temporaries.
_CHUNK = 16


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
        **arrays,
    )


def _build(case: Case, settings: StoreSettings, folder: Path) -> None:
    image, classes = _read_case(case, settings)
    spacing = slice_spacing_mm(image.spacing_mm, settings.axis)
    reference = np.ascontiguousarray(to_slices(classes, settings.axis))
    native = (reference.shape[1], reference.shape[2])
    grid = plan_in_plane(native, (spacing[1], spacing[2]), settings.img_size, settings.resize, settings.size_multiple)
    n_classes = len(settings.classes.names) + 1
    normalised = normalise(image.array, settings.intensity, str(case.image))
    fill = float(normalised.min())
    images = _resample(to_slices(normalised, settings.axis), lambda planes: resample_images(planes, grid, fill).half())
    labels = _resample(reference, lambda planes: resample_labels(planes, grid, n_classes))
    np.save(folder / "images.npy", images)
    np.save(folder / "labels.npy", labels)
    np.save(folder / "reference.npy", reference)
    facts = {
        "case_id": case.case_id,
        "image": str(case.image),
        "label": str(case.label),
        "axis": settings.axis,
        "grid": asdict(grid),
        "spacing_mm": spacing,
        "foreground": reference.any(axis=(1, 2)).tolist(),
    }
    (folder / "entry.json").write_text(json.dumps(facts, indent=1))


def _read_case(case: Case, settings: StoreSettings) -> tuple[Volume, UInt8[np.ndarray, "i j k"]]:
    image, label = read_image(case.image), read_label(case.label)
    check_same_grid(
        (image.array.shape, label.array.shape),
        (image.affine, label.affine),
        settings.grid_tolerance_mm,
        (str(case.image), str(case.label)),
    )
    try:
        return image, to_class_indices(label.array, settings.classes)
    except InputError as error:
        raise InputError(f"{case.label}: {error}") from error


def _resample(slices: np.ndarray, resample: Callable[[torch.Tensor], torch.Tensor]) -> np.ndarray:
    """Apply `resample` to a stack of planes, a few at a time."""
    chunks = [slices[start : start + _CHUNK] for start in range(0, len(slices), _CHUNK)]
    return np.concatenate([resample(torch.from_numpy(np.ascontiguousarray(chunk))).numpy() for chunk in chunks])
