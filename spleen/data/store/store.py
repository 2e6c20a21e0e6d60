"""The slice store: a cache of preprocessed cases as arrays on disk.

An entry is a folder named by the hash of the content of both files and of every setting that affects the arrays. It
contains images.npy (n c h w, float16), labels.npy (n h w, uint8), reference.npy (N H W, uint8, the label on the native
planes, also beyond the box of a case) and entry.json, with the checksum of each array. It is renamed into place when
complete, so a half-written entry is never read.
"""

import hashlib
import json
import logging
import math
import os
import shutil
import zlib
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import asdict
from functools import partial
from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8

from spleen.data.cases import Case
from spleen.data.store.entry import StoredArray, StoredCase
from spleen.errors import InputError
from spleen.imaging.classes import ClassMap
from spleen.imaging.dicom.location import is_series
from spleen.imaging.dicom.series import read_series
from spleen.imaging.files import is_there
from spleen.imaging.fingerprint import fingerprint
from spleen.imaging.foreign import looks_like_label, swapped
from spleen.imaging.geometry import Box, check_same_grid, shear_degrees
from spleen.imaging.intensity import fit_intensity, implausible_units
from spleen.imaging.labels import IGNORED, resolve, to_class_indices
from spleen.imaging.nifti import Channels, Volume, read_channels, read_image, read_label, read_shape
from spleen.imaging.preprocessing import Preprocessing, map_chunks, network_planes
from spleen.imaging.slicing import InPlaneGrid, resample_labels, slice_shape, slice_spacing_mm, to_slices
from spleen.system.files import new_folder
from spleen.system.hashing import content_hash
from spleen.system.memory import MemoryBudget
from spleen.types import AxisName, LabelVolume

log = logging.getLogger(__name__)

_ARRAYS = ("images", "labels", "reference")
_FILES = (*(f"{name}.npy" for name in _ARRAYS), "entry.json")
# Increase whenever the arrays of an entry change for the same settings.
_FORMAT = 4


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
    verify: bool = False,
    restore: Callable[[], None] = _nothing_to_restore,
) -> StoredCase:
    """Open the entry of a case; a missing or damaged entry is built first, once `room` has enough memory for it.

    `allow_empty_label` allows a label without foreground, for data in which some patients lack the organ. `verify`
    compares every array with its checksum, not only those whose file has changed since it was written.
    `restore` makes the files of the case again if they are in the cache too and it is deleted while it is in use.
    Raises InputError for invalid files, and for a cache folder that cannot be written.
    """
    for path in (*case.images, case.label):
        if not is_there(path):
            raise InputError(f"{path}: no such file (case '{case.case_id}')")
        if path.exists() and not os.access(path, os.R_OK):
            raise InputError(f"{path} is not readable by this user; change its permissions")
    try:
        entry = entries_folder(cache) / _key(case, preprocessing, cache, allow_empty_label)
        rebuild = partial(_rebuild, entry, case, preprocessing, cache, allow_empty_label, restore)
        if entry.is_dir():
            try:
                return _open(case, entry, preprocessing.axis, rebuild, verify)
            except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
                log.warning("%s is damaged (%s) and is rebuilt", entry, error)
                shutil.rmtree(entry)
        with (
            room.taken(_bytes_to_build(case, preprocessing)) if room else nullcontext(),
            new_folder(entry) as folder,
        ):
            _build(case, preprocessing, folder, allow_empty_label)
        return _open(case, entry, preprocessing.axis, rebuild, verify=False)
    except OSError as error:
        raise InputError(
            f"cannot use the slice store under {cache}: {error}. Free some space or choose another cache_dir=…"
        ) from error


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
    settings = asdict(preprocessing)
    if settings["ignore_value"] is None:  # entries made before there was this setting stay valid
        del settings["ignore_value"]
    shaping = {
        "format": _FORMAT,
        "images": [image_hash(image, cache / "hashes") for image in case.images],
        "label": content_hash(case.label, cache / "hashes"),
        "settings": {**settings, "may_be_empty": allow_empty_label},
    }
    if case.box is not None:
        shaping["box"] = asdict(case.box)
    return hashlib.sha256(json.dumps(shaping, sort_keys=True).encode()).hexdigest()[:32]


def image_hash(image: Path, memory: Path) -> str:
    """A hash of the content of an image's file, or of all files of its DICOM series in their order."""
    if not is_series(image):
        return content_hash(image, memory)
    frames = read_series(image).frames
    parts = [f"{content_hash(frame.instance.path, memory)}/{frame.index}" for frame in frames]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _open(case: Case, entry: Path, axis: AxisName, rebuild: Callable[[], None], verify: bool) -> StoredCase:
    """Raises OSError, or one of the errors of wrong content, for a damaged entry."""
    facts = json.loads((entry / "entry.json").read_text(encoding="utf-8"))
    if facts.pop("checksum") != _checksum(facts):
        raise ValueError("entry.json does not match its checksum")
    native, resampled, padded = (tuple(facts["grid"][name]) for name in ("native", "resampled", "padded"))
    arrays = {name: StoredArray.at(entry / f"{name}.npy", rebuild) for name in _ARRAYS}
    for name, array in arrays.items():
        expected = facts["arrays"][name]
        if (list(array.shape), str(array.dtype)) != (expected["shape"], expected["dtype"]):
            raise ValueError(f"{name}.npy has another shape or type than entry.json says")
        array.check(expected["crc32"], None if verify else expected["written_ns"])
    return StoredCase(
        case_id=case.case_id,
        axis=axis,
        grid=InPlaneGrid(native, resampled, padded),
        spacing_mm=tuple(facts["spacing_mm"]),
        voxel_volume_mm3=facts["voxel_volume_mm3"],
        foreground=np.array(facts["foreground"], dtype=bool),
        label_values=tuple(tuple(values) for values in facts["label_values"]),
        other_values=tuple(facts["other_values"]),
        volumes_mm3=tuple(facts["volumes_mm3"]),
        fingerprint=facts["fingerprint"],
        implausible_units=facts["implausible_units"],
        shear_degrees=facts["shear_degrees"],
        group=case.group,
        ignored_slices=tuple(facts.get("ignored_slices", ())),
        ignored_volume_mm3=facts.get("ignored_volume_mm3", 0.0),
        box=case.box,
        outside=None if case.box is None else np.array(facts["outside"], dtype=np.int64),
        images=arrays["images"],
        labels=arrays["labels"],
        reference=arrays["reference"],
    )


def _bytes_to_build(case: Case, preprocessing: Preprocessing) -> int:
    """Approximate memory that `_build` needs: measured on 13 to 79 million voxels with 1 to 4 channels, rounded up.

    0 for an image whose header cannot be read, for which building fails immediately with the reason.
    """
    try:
        shape, affine = read_shape(case.images[0])
        shown = shape if case.box is None else case.box.shape
        grid = preprocessing.plan(shown, affine)
    except InputError:
        return 0
    n_slices = slice_shape(shown, preprocessing.axis)[0]
    read = math.prod(shape) * (16 + 6 * preprocessing.n_channels)
    written = n_slices * math.prod(grid.padded) * (2 + 2 * preprocessing.n_channels)
    return read + written


def _build(case: Case, preprocessing: Preprocessing, folder: Path, allow_empty_label: bool) -> None:
    image, label, classes = _read_case(case, preprocessing, allow_empty_label)
    spacing = slice_spacing_mm(image.affine, preprocessing.axis)
    indices = to_class_indices(label, classes, preprocessing.ignore_value)
    others = np.unique(label[(indices == 0) & (label != 0)]).tolist()
    reference = np.ascontiguousarray(to_slices(indices, preprocessing.axis))
    box = _box_of(case, label.shape)
    shown = to_slices(indices[box.slices], preprocessing.axis)
    grid = preprocessing.plan(box.shape, image.affine)
    n_indices = classes.n_indices + 1
    images = np.empty((len(shown), preprocessing.n_channels, *grid.padded), np.float16)
    for number, channel in enumerate(image.arrays):
        name = case.images[0] if len(image.arrays) == 1 else f"{case.images[0]}, channel {number}"
        intensity = fit_intensity(channel, preprocessing.intensity, str(name))
        images[:, number] = network_planes(channel[box.slices], preprocessing.axis, grid, intensity)
    labels = map_chunks(shown, lambda planes: resample_labels(torch.from_numpy(planes), grid, n_indices).numpy())
    checks = {}
    for name, array in zip(_ARRAYS, (images, labels, reference), strict=True):
        path = folder / f"{name}.npy"
        np.save(path, array)
        # Of the array in memory, so that a fault while it is written is noticed too.
        checks[name] = {
            "shape": array.shape,
            "dtype": str(array.dtype),
            "crc32": zlib.crc32(array.reshape(-1).view(np.uint8).data),
            "written_ns": path.stat().st_mtime_ns,
        }
    facts = {
        "case_id": case.case_id,
        "arrays": checks,
        "images": [str(path) for path in case.images],
        "label": str(case.label),
        "axis": preprocessing.axis,
        "grid": asdict(grid),
        "spacing_mm": spacing,
        "foreground": ((shown > 0) & (shown != IGNORED)).any(axis=(1, 2)).tolist(),
        "label_values": classes.values,
        "other_values": others,
        "voxel_volume_mm3": image.voxel_volume_mm3,
        "volumes_mm3": [float(count * image.voxel_volume_mm3) for count in _count_voxels(reference, classes)[1:]],
        "shear_degrees": shear_degrees(image.affine),
        "fingerprint": fingerprint(image.arrays),
        "implausible_units": implausible_units(image.arrays, preprocessing.intensity),
    }
    if preprocessing.ignore_value is not None:
        facts["ignored_slices"] = np.flatnonzero((shown == IGNORED).all(axis=(1, 2))).tolist()
        facts["ignored_volume_mm3"] = float(np.count_nonzero(reference == IGNORED) * image.voxel_volume_mm3)
    if case.box is not None:
        inside = np.zeros(indices.shape, dtype=bool)
        inside[box.slices] = True
        beyond = np.where(to_slices(inside, preprocessing.axis), IGNORED, reference)
        facts["outside"] = [_count_voxels(plane, classes) for plane in beyond]
    facts["checksum"] = _checksum(facts)
    (folder / "entry.json").write_text(json.dumps(facts, indent=1), encoding="utf-8")


def _box_of(case: Case, shape: tuple[int, ...]) -> Box:
    """The box of a case, or all of its grid; raises InputError for a box that reaches beyond the grid."""
    i, j, k = shape
    box = case.box or Box((0, 0, 0), (i, j, k))
    if any(not 0 <= start < stop <= end for start, stop, end in zip(box.start, box.stop, shape, strict=True)):
        raise InputError(f"{case.images[0]}: the box from {box.start} to {box.stop} is not part of a grid of {shape}")
    return box


def _count_voxels(indices: UInt8[np.ndarray, "..."], classes: ClassMap) -> list[int]:
    """Voxels that are not ignored, then those of each class; classes may overlap."""
    of_index = np.bincount(indices.ravel(), minlength=classes.n_indices + 1)[: classes.n_indices + 1]
    numbers, regions = range(1, 1 + len(classes.names)), classes.regions
    members = [(number,) if regions is None else regions.indices(number) for number in numbers]
    return [int(of_index.sum()), *(int(of_index[[*each]].sum()) for each in members)]


def _checksum(facts: Mapping[str, object]) -> str:
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]


def _read_case(
    case: Case, preprocessing: Preprocessing, allow_empty_label: bool
) -> tuple[Channels, LabelVolume, ClassMap]:
    image = read_channels(case.images, preprocessing.grid_tolerance_mm)
    label = _read_label(case, image, preprocessing.ignore_value)
    if len(image.arrays) != preprocessing.n_channels:
        raise InputError(_wrong_channels(case.images[0], len(image.arrays), preprocessing.n_channels))
    check_same_grid(
        (image.arrays[0].shape, label.array.shape),
        (image.affine, label.affine),
        preprocessing.grid_tolerance_mm,
        (str(case.images[0]), str(case.label)),
    )
    try:
        classes = resolve(label.array, preprocessing.classes, allow_empty_label, preprocessing.ignore_value)
        return image, label.array, classes
    except InputError as error:
        raise InputError(f"{case.label}: {error}") from error


def _read_label(case: Case, image: Channels, ignore_value: int | None) -> Volume:
    """Read the label; raises InputError if the image is the label, and the other way round."""
    if looks_like_label(image.arrays[0]):
        values = read_image(case.label).array
        known = values if ignore_value is None else values[values != ignore_value]  # it may be negative
        if known.size and not looks_like_label(known):
            raise InputError(swapped(case.images[0], case.label))
    return read_label(case.label, image.affine)


def _wrong_channels(path: Path, found: int, expected: int) -> str:
    if expected == 1:
        return f"{path} has {found} channels, expected a single channel; for more, see data=folder and data.channels"
    return f"{path} has {found} channels, expected {expected} (data.channels)"
