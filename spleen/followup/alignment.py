"""Bring later scans of a subject onto the first one, and tell voxel by voxel where an organ has grown or shrunk."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Num, UInt8

from spleen.errors import InputError
from spleen.followup.scans import Scan
from spleen.imaging.native import read_native
from spleen.imaging.nifti import Volume, read_label, write_volume
from spleen.registration.align import align
from spleen.registration.grids import as_volume, grid_of
from spleen.registration.resampling import resample_onto
from spleen.registration.transforms import Motion, motion, write_transform
from spleen.types import Affine, MaskVolume, SpacingMm

if TYPE_CHECKING:
    from SimpleITK import Transform

UNCHANGED, GAIN, LOSS = 1, 2, 3
"""Values in a map of changes."""
_MARGIN_MM = 25.0
"""Around the organ; what lies there decides the alignment, so that organs are compared and not the position of the
patient."""


@dataclass(frozen=True)
class AlignedScan:
    """One scan on the grid of the subject's first one."""

    scan: Scan
    image: Num[np.ndarray, "i j k"]
    affine: Affine
    changes: Mapping[str, UInt8[np.ndarray, "i j k"]]
    """By class: unchanged, gain and loss."""
    gain_ml: Mapping[str, float]
    loss_ml: Mapping[str, float]
    motion: Motion | None
    """How the patient has moved; None for the first scan."""


@dataclass(frozen=True)
class Failed:
    """A scan that could not be aligned."""

    scan: Scan
    reason: str


def aligned_scans(
    scans: Sequence[Scan],
    masks: Mapping[Scan, Path],
    values: Mapping[str, Sequence[int]],
    folder: Path,
    n_channels: int | None = None,
) -> Iterator[AlignedScan | Failed]:
    """The scans that have a mask, each rigidly aligned to the first of them in one interpolation.

    `values` are the label values of each class, which overlapping classes share; `n_channels` are those of an image, by
    default one for each file, of which the first is aligned. Writes changes/NAME_CLASS.nii.gz and
    transforms/NAME.tfm into the folder; the image of the first scan and one other are in memory at a time.
    """
    usable = [scan for scan in scans if scan in masks]
    if not usable:
        return
    try:
        fixed, fixed_label = _read(usable[0], masks, n_channels)
    except (InputError, OSError) as error:
        yield Failed(usable[0], str(error))
        return
    near = _near(fixed_label)
    for scan in usable:
        try:
            if scan is usable[0]:
                moved, label, moves = fixed.array, fixed_label.array, None
            else:
                moved, label, transform = _onto(fixed, *_read(scan, masks, n_channels), near, str(scan.images[0]))
                (folder / "transforms").mkdir(parents=True, exist_ok=True)
                write_transform(folder / "transforms" / f"{scan.name}.tfm", transform)
                moves = motion(transform, grid_of(fixed))
            yield _compared(scan, moved, (fixed_label, label), values, moves, folder)
        except (InputError, OSError) as error:
            yield Failed(scan, str(error))


def change_map(before: MaskVolume, after: MaskVolume) -> UInt8[np.ndarray, "i j k"]:
    """Where a mask is the same, has grown and has shrunk."""
    changes = np.zeros(before.shape, dtype=np.uint8)
    changes[before & after], changes[~before & after], changes[before & ~after] = UNCHANGED, GAIN, LOSS
    return changes


def _read(scan: Scan, masks: Mapping[Scan, Path], n_channels: int | None) -> tuple[Volume, Volume]:
    image = read_native(*scan.images, n_channels=n_channels or len(scan.images))
    return as_volume(image.channels[0], image.affine), read_label(masks[scan], image.affine)


def box_around(mask: MaskVolume, spacing: SpacingMm, margin_mm: float) -> tuple[slice, slice, slice]:
    """The voxels around a mask that is not empty."""
    box = []
    for axis in range(3):
        places = np.flatnonzero(mask.any(axis=tuple(other for other in range(3) if other != axis)))
        margin = round(margin_mm / spacing[axis])
        box.append(slice(max(0, int(places[0]) - margin), int(places[-1]) + margin + 1))
    return box[0], box[1], box[2]


def _near(label: Volume) -> MaskVolume | None:
    """A box around the organ; None where nothing was found."""
    organ = label.array != 0
    if not organ.any():
        return None
    inside = np.zeros(organ.shape, dtype=bool)
    inside[box_around(organ, label.spacing_mm, _MARGIN_MM)] = True
    return inside


def _onto(
    fixed: Volume, moving: Volume, label: Volume, near: MaskVolume | None, name: str
) -> "tuple[Num[np.ndarray, 'i j k'], Num[np.ndarray, 'i j k'], Transform]":
    transform = align(fixed, moving, "rigid", near, ("the first scan", name)).transform
    grid = grid_of(fixed)
    return resample_onto(moving, grid, transform), resample_onto(label, grid, transform, "nearest"), transform


def _compared(
    scan: Scan,
    image: Num[np.ndarray, "i j k"],
    labels: tuple[Volume, Num[np.ndarray, "i j k"]],
    values: Mapping[str, Sequence[int]],
    moves: Motion | None,
    folder: Path,
) -> AlignedScan:
    first, after = labels
    changes = {
        name: change_map(np.isin(first.array, of_class), np.isin(after, of_class)) for name, of_class in values.items()
    }
    if moves is not None:
        (folder / "changes").mkdir(parents=True, exist_ok=True)
        for name, changed in changes.items():
            write_volume(folder / "changes" / f"{scan.name}_{name}.nii.gz", changed, first.affine)
    gain, loss = (
        {name: float((each == kind).sum()) * first.voxel_volume_mm3 / 1000 for name, each in changes.items()}
        for kind in (GAIN, LOSS)
    )
    return AlignedScan(scan, image, first.affine, changes, gain, loss, moves)
