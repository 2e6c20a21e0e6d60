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
from collections.abc import Callable
from contextlib import nullcontext, suppress
from dataclasses import asdict
from functools import partial
from pathlib import Path

import numpy as np

from spleen.data.cases import Case
from spleen.data.store.entry import StoredArray, StoredCase
from spleen.data.store.write import ARRAYS, facts_checksum, write_entry
from spleen.errors import InputError
from spleen.imaging.dicom.location import is_series
from spleen.imaging.dicom.series import read_series
from spleen.imaging.files import is_there
from spleen.imaging.nifti import read_shape
from spleen.imaging.preprocessing import Preprocessing
from spleen.imaging.slicing import InPlaneGrid, slice_shape
from spleen.system.files import new_folder, temporary_sibling
from spleen.system.hashing import content_hash
from spleen.system.memory import MemoryBudget
from spleen.types import AxisName

log = logging.getLogger(__name__)

_FILES = (*(f"{name}.npy" for name in ARRAYS), "entry.json")
# Increase whenever the arrays of an entry change for the same settings.
_FORMAT = 4


def nothing_to_restore() -> None:
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
    restore: Callable[[], None] = nothing_to_restore,
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
            found = _stamp(entry)
            try:
                return _open(case, entry, preprocessing.axis, rebuild, verify)
            except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
                log.warning("%s is damaged (%s) and is rebuilt", entry, error)
                _remove(entry, found)
        with (
            room.taken(_bytes_to_build(case, preprocessing)) if room else nullcontext(),
            new_folder(entry) as folder,
        ):
            write_entry(case, preprocessing, folder, allow_empty_label)
        return _open(case, entry, preprocessing.axis, rebuild, verify=False)
    except OSError as error:
        raise InputError(
            f"cannot use the slice store under {cache}: {error}. Free some space or choose another cache_dir=…"
        ) from error


def _stamp(folder: Path) -> tuple[int, int]:
    """What tells a folder from another one that is later put in its place."""
    status = folder.stat()
    return status.st_ino, status.st_ctime_ns


def _remove(entry: Path, stamp: tuple[int, int]) -> None:
    """Remove a damaged entry, but not the one that another process has put in its place."""
    aside = temporary_sibling(entry)
    with suppress(OSError):  # gone already
        if _stamp(entry) == stamp:
            entry.rename(aside)
    shutil.rmtree(aside, ignore_errors=True)


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
    if facts.pop("checksum") != facts_checksum(facts):
        raise ValueError("entry.json does not match its checksum")
    native, resampled, padded = (tuple(facts["grid"][name]) for name in ("native", "resampled", "padded"))
    arrays = {name: StoredArray.at(entry / f"{name}.npy", rebuild) for name in ARRAYS}
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
    """Memory that `write_entry` needs, roughly: measured on 13 to 79 million voxels with 1 to 4 channels, rounded up.

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
