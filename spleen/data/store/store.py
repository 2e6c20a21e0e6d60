"""The slice store: a cache of preprocessed cases as arrays on disk.

An entry is a folder named by the hash of the content of both files and of every setting that affects the arrays. It
contains images.npy (n c h w, float16), labels.npy (n h w, uint8), reference.npy (n H W, uint8, the label on the native
planes) and entry.json. It is renamed into place when complete, so a half-written entry is never read.
"""

import hashlib
import json
import logging
import math
import os
import shutil
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict
from functools import partial
from pathlib import Path

import numpy as np
import torch

from spleen.data.cases import Case
from spleen.data.store.entry import StoredArray, StoredCase
from spleen.errors import InputError
from spleen.imaging.classes import ClassMap
from spleen.imaging.fingerprint import fingerprint
from spleen.imaging.geometry import check_same_grid
from spleen.imaging.intensity import fit_intensity, implausible_units
from spleen.imaging.labels import resolve, to_class_indices
from spleen.imaging.nifti import Channels, read_channels, read_label, read_shape
from spleen.imaging.preprocessing import Preprocessing, map_chunks, network_planes
from spleen.imaging.slicing import InPlaneGrid, resample_labels, slice_shape, slice_spacing_mm, to_slices
from spleen.system.files import new_folder
from spleen.system.hashing import content_hash
from spleen.system.memory import MemoryBudget
from spleen.types import AxisName, LabelVolume

log = logging.getLogger(__name__)

_FILES = ("images.npy", "labels.npy", "reference.npy", "entry.json")
# Increase whenever the arrays of an entry change for the same settings.
_FORMAT = 3


def _nothing_to_restore() -> None:
    """The files of a case are not in the cache."""


def entries_folder(cache: Path) -> Path:
    """The folder of all entries."""
    return cache / "slices"


def open_case(
    case: Case,
    preprocessing: Preprocessing,
    cache: Path,
    room: MemoryBudget | None = None,
    allow_empty_label: bool = False,
    restore: Callable[[], None] = _nothing_to_restore,
) -> StoredCase:
    """Open the entry of a case; a missing entry is built first, once `room` has enough memory for it.

    `restore` makes the files of the case again if they are in the cache too and it is deleted while it is in use.
    `allow_empty_label` allows a label without foreground, for data in which some patients lack the organ.
    Raises InputError for invalid files, and for a cache folder that cannot be written.
    """
    for path in (*case.images, case.label):
        if not path.is_file():
            raise InputError(f"{path}: no such file (case '{case.case_id}')")
        if not os.access(path, os.R_OK):
            raise InputError(f"{path} is not readable by this user; change its permissions")
    try:
        entry = entries_folder(cache) / _key(case, preprocessing, cache, allow_empty_label)
        if not entry.is_dir():
            with (
                room.taken(_bytes_to_build(case, preprocessing)) if room else nullcontext(),
                new_folder(entry) as folder,
            ):
                _build(case, preprocessing, folder, allow_empty_label)
    except OSError as error:
        raise InputError(
            f"cannot use the slice store under {cache}: {error}. Free some space or choose another cache_dir=…"
        ) from error
    try:
        rebuild = partial(_rebuild, entry, case, preprocessing, cache, allow_empty_label, restore)
        return _open(case, entry, preprocessing.axis, rebuild)
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"{entry} is damaged: {error!r}. Delete it, and it will be rebuilt") from error


def _rebuild(
    entry: Path,
    case: Case,
    preprocessing: Preprocessing,
    cache: Path,
    allow_empty_label: bool,
    restore: Callable[[], None],
) -> None:
    """Build an entry again that was deleted while it was in use. Raises InputError if it cannot be the same again."""
    log.warning("%s was deleted while it was in use, and is rebuilt", entry)
    if not all((entry / name).exists() for name in _FILES):  # what a deletion in progress has left
        shutil.rmtree(entry, ignore_errors=True)
    try:
        restore()
        rebuilt = open_case(case, preprocessing, cache, allow_empty_label=allow_empty_label)
    except InputError as error:
        raise InputError(f"the cache of case '{case.case_id}' was deleted while it was in use: {error}") from error
    if rebuilt.images.path.parent != entry:
        raise InputError(
            f"the cache of case '{case.case_id}' was deleted while it was in use, and {case.images[0]} or {case.label} "
            "has changed since"
        )


def _key(case: Case, preprocessing: Preprocessing, cache: Path, allow_empty_label: bool) -> str:
    shaping = {
        "format": _FORMAT,
        "images": [content_hash(image, cache / "hashes") for image in case.images],
        "label": content_hash(case.label, cache / "hashes"),
        "settings": {**asdict(preprocessing), "may_be_empty": allow_empty_label},
    }
    return hashlib.sha256(json.dumps(shaping, sort_keys=True).encode()).hexdigest()[:32]


def _open(case: Case, entry: Path, axis: AxisName, rebuild: Callable[[], None]) -> StoredCase:
    facts = json.loads((entry / "entry.json").read_text(encoding="utf-8"))
    native, resampled, padded = (tuple(facts["grid"][name]) for name in ("native", "resampled", "padded"))
    arrays = {name: StoredArray.at(entry / f"{name}.npy", rebuild) for name in ("images", "labels", "reference")}
    return StoredCase(
        case_id=case.case_id,
        axis=axis,
        grid=InPlaneGrid(native, resampled, padded),
        spacing_mm=tuple(facts["spacing_mm"]),
        foreground=np.array(facts["foreground"], dtype=bool),
        label_values=tuple(tuple(values) for values in facts["label_values"]),
        volumes_mm3=tuple(facts["volumes_mm3"]),
        fingerprint=facts["fingerprint"],
        implausible_units=facts.get("doubt"),
        group=case.group,
        **arrays,
    )


def _bytes_to_build(case: Case, preprocessing: Preprocessing) -> int:
    """Approximate memory that `_build` needs: measured on 13 to 79 million voxels with 1 to 4 channels, rounded up.

    0 for an image whose header cannot be read, for which building fails immediately with the reason.
    """
    try:
        shape, spacing = read_shape(case.images[0])
        grid = preprocessing.plan(shape, spacing)
    except InputError:
        return 0
    n_slices = slice_shape(shape, preprocessing.axis)[0]
    read = math.prod(shape) * (16 + 6 * preprocessing.n_channels)
    written = n_slices * math.prod(grid.padded) * (2 + 2 * preprocessing.n_channels)
    return read + written


def _build(case: Case, preprocessing: Preprocessing, folder: Path, allow_empty_label: bool) -> None:
    image, label, classes = _read_case(case, preprocessing, allow_empty_label)
    spacing = slice_spacing_mm(image.spacing_mm, preprocessing.axis)
    reference = np.ascontiguousarray(to_slices(to_class_indices(label, classes), preprocessing.axis))
    grid = preprocessing.plan(label.shape, image.spacing_mm)
    n_classes = len(classes.names) + 1
    images = np.empty((len(reference), preprocessing.n_channels, *grid.padded), np.float16)
    for number, channel in enumerate(image.arrays):
        name = case.images[0] if len(image.arrays) == 1 else f"{case.images[0]}, channel {number}"
        intensity = fit_intensity(channel, preprocessing.intensity, str(name))
        images[:, number] = network_planes(channel, preprocessing.axis, grid, intensity)
    labels = map_chunks(reference, lambda planes: resample_labels(torch.from_numpy(planes), grid, n_classes).numpy())
    np.save(folder / "images.npy", images)
    np.save(folder / "labels.npy", labels)
    np.save(folder / "reference.npy", reference)
    voxels = np.bincount(reference.ravel(), minlength=n_classes)
    facts = {
        "case_id": case.case_id,
        "images": [str(path) for path in case.images],
        "label": str(case.label),
        "axis": preprocessing.axis,
        "grid": asdict(grid),
        "spacing_mm": spacing,
        "foreground": reference.any(axis=(1, 2)).tolist(),
        "label_values": classes.values,
        "volumes_mm3": [float(count * np.prod(spacing)) for count in voxels[1:]],
        "fingerprint": fingerprint(image.arrays),
        "doubt": implausible_units(image.arrays, preprocessing.intensity),
    }
    (folder / "entry.json").write_text(json.dumps(facts, indent=1), encoding="utf-8")


def _read_case(
    case: Case, preprocessing: Preprocessing, allow_empty_label: bool
) -> tuple[Channels, LabelVolume, ClassMap]:
    image, label = read_channels(case.images, preprocessing.grid_tolerance_mm), read_label(case.label)
    if len(image.arrays) != preprocessing.n_channels:
        raise InputError(_wrong_channels(case.images[0], len(image.arrays), preprocessing.n_channels))
    check_same_grid(
        (image.arrays[0].shape, label.array.shape),
        (image.affine, label.affine),
        preprocessing.grid_tolerance_mm,
        (str(case.images[0]), str(case.label)),
    )
    try:
        return image, label.array, resolve(label.array, preprocessing.classes, allow_empty_label)
    except InputError as error:
        raise InputError(f"{case.label}: {error}") from error


def _wrong_channels(path: Path, found: int, expected: int) -> str:
    if expected == 1:
        return f"{path} has {found} channels, expected a single channel; for more, see data=folder and data.channels"
    return f"{path} has {found} channels, expected {expected} (data.channels)"
