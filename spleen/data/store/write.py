"""Writing an entry of the slice store: the arrays of a case, and what is known about them."""

import hashlib
import json
import zlib
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float16, Shaped, UInt8

from spleen.data.cases import Case
from spleen.errors import InputError
from spleen.imaging.classes import ClassMap
from spleen.imaging.fingerprint import fingerprint
from spleen.imaging.foreign import looks_like_label, swapped
from spleen.imaging.geometry import Box, check_same_grid, shear_degrees
from spleen.imaging.intensity import fit_intensity, implausible_units
from spleen.imaging.labels import IGNORED, resolve, to_class_indices
from spleen.imaging.nifti import Channels, Volume, read_channels, read_image, read_label
from spleen.imaging.preprocessing import Preprocessing, map_chunks, network_planes
from spleen.imaging.slicing import InPlaneGrid, resample_labels, slice_shape, slice_spacing_mm, to_slices
from spleen.types import AxisName, LabelVolume

ARRAYS = ("images", "labels", "reference")


def write_entry(case: Case, preprocessing: Preprocessing, folder: Path, allow_empty_label: bool) -> None:
    """Read a case, and write its arrays and entry.json into `folder`. Raises InputError for invalid files."""
    image, label, classes = _read_case(case, preprocessing, allow_empty_label)
    indices = to_class_indices(label, classes, preprocessing.ignore_value)
    others = np.unique(label[(indices == 0) & (label != 0)]).tolist()
    reference = np.ascontiguousarray(to_slices(indices, preprocessing.axis))
    box = _box_of(case, label.shape)
    shown = to_slices(indices[box.slices], preprocessing.axis)
    grid = preprocessing.plan(box.shape, image.affine)
    n_indices = classes.n_indices + 1
    arrays = {
        "images": _network_images(case, image, box, preprocessing, grid),
        "labels": map_chunks(shown, lambda planes: resample_labels(torch.from_numpy(planes), grid, n_indices).numpy()),
        "reference": reference,
    }
    facts = {
        "case_id": case.case_id,
        "arrays": {name: _save(arrays[name], folder / f"{name}.npy") for name in ARRAYS},
        "images": [str(path) for path in case.images],
        "label": str(case.label),
        "grid": asdict(grid),
        "other_values": others,
        **_image_facts(image, preprocessing),
        **_label_facts(reference, shown, classes, image.voxel_volume_mm3, preprocessing.ignore_value),
    }
    if case.box is not None:
        facts["outside"] = _counts_outside(box, reference, indices.shape, classes, preprocessing.axis)
    facts["checksum"] = facts_checksum(facts)
    (folder / "entry.json").write_text(json.dumps(facts, indent=1), encoding="utf-8")


def facts_checksum(facts: Mapping[str, object]) -> str:
    """The checksum in entry.json of all else in it."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]


def _network_images(
    case: Case, image: Channels, box: Box, preprocessing: Preprocessing, grid: InPlaneGrid
) -> Float16[np.ndarray, "n c h w"]:
    n_slices = slice_shape(box.shape, preprocessing.axis)[0]
    images = np.empty((n_slices, preprocessing.n_channels, *grid.padded), np.float16)
    for number, channel in enumerate(image.arrays):
        name = case.images[0] if len(image.arrays) == 1 else f"{case.images[0]}, channel {number}"
        intensity = fit_intensity(channel, preprocessing.intensity, str(name))
        images[:, number] = network_planes(channel[box.slices], preprocessing.axis, grid, intensity)
    return images


def _save(array: Shaped[np.ndarray, "..."], path: Path) -> dict[str, object]:
    """Save an array; what entry.json says of it is of the array in memory, so that a fault in writing is noticed."""
    np.save(path, array)
    return {
        "shape": array.shape,
        "dtype": str(array.dtype),
        "crc32": zlib.crc32(array.reshape(-1).view(np.uint8).data),
        "written_ns": path.stat().st_mtime_ns,
    }


def _image_facts(image: Channels, preprocessing: Preprocessing) -> dict[str, object]:
    return {
        "axis": preprocessing.axis,
        "spacing_mm": slice_spacing_mm(image.affine, preprocessing.axis),
        "voxel_volume_mm3": image.voxel_volume_mm3,
        "shear_degrees": shear_degrees(image.affine),
        "fingerprint": fingerprint(image.arrays),
        "implausible_units": implausible_units(image.arrays, preprocessing.intensity),
    }


def _label_facts(
    reference: UInt8[np.ndarray, "N H W"],
    shown: UInt8[np.ndarray, "n h w"],
    classes: ClassMap,
    voxel_volume_mm3: float,
    ignore_value: int | None,
) -> dict[str, object]:
    """Facts of the label on all its planes, and of the part of them that the network is shown."""
    facts: dict[str, object] = {
        "foreground": ((shown > 0) & (shown != IGNORED)).any(axis=(1, 2)).tolist(),
        "label_values": classes.values,
        "volumes_mm3": [float(count * voxel_volume_mm3) for count in _count_voxels(reference, classes)[1:]],
    }
    if ignore_value is not None:
        facts["ignored_slices"] = np.flatnonzero((shown == IGNORED).all(axis=(1, 2))).tolist()
        facts["ignored_volume_mm3"] = float(np.count_nonzero(reference == IGNORED) * voxel_volume_mm3)
    return facts


def _counts_outside(
    box: Box,
    reference: UInt8[np.ndarray, "N H W"],
    shape: tuple[int, ...],
    classes: ClassMap,
    axis: AxisName,
) -> list[list[int]]:
    """For each plane, the voxels of the label beyond the box, see `_count_voxels`."""
    inside = np.zeros(shape, dtype=bool)
    inside[box.slices] = True
    beyond = np.where(to_slices(inside, axis), IGNORED, reference)
    return [_count_voxels(plane, classes) for plane in beyond]


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
